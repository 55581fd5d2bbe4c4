/* Work lists of attention: against the masks they came from, and the estimate of a forward. */
#include "test.h"

#include "base/rng.h"
#include "tiles_case.h"

static void test_random_masks(void **state) {
    (void)state;
    int64_t splits = 0;
    for (uint64_t trial = 0; trial < 400; trial++) {
        uint8_t bytes[256];
        for (uint64_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(rng_u64(7, rng_stream(RNG_TEST, trial), i) >> 8);
        splits += check_tiles_case(bytes, sizeof bytes, 700);
    }
    assert_true(splits > 0);
}

/* The bands of packed documents do not share tiles. */
static void test_documents_share_no_tile(void **state) {
    (void)state;
    const Band bands[] = {{0, 100, 0, 100, BAND_NO_LO, 0}, {100, 300, 100, 300, BAND_NO_LO, 0}};
    const RemoteKv local = {0};
    AttnTiles tiles = attn_tiles_by_q(bands, 2, 300, (AttnGrid){128, 128}, &local, NULL, NULL);
    assert_int_equal(tiles.n_tiles, 3);
    for (int64_t t = 0; t < tiles.n_tiles; t++)
        assert_true(tiles.tiles[t].row0 >= 100 || tiles.tiles[t].row0 + tiles.tiles[t].rows <= 100);
    attn_tiles_free(&tiles);
}

/* The short tile of a causal document is the one that walks the fewest keys. */
static void test_short_tile_is_first(void **state) {
    (void)state;
    const Band bands[] = {{0, 1000, 0, 1000, BAND_NO_LO, 0}};
    const RemoteKv local = {0};
    AttnTiles tiles = attn_tiles_by_q(bands, 1, 1000, (AttnGrid){192, 128}, &local, NULL, NULL);
    assert_int_equal(tiles.n_tiles, 6);
    int64_t steps = 0;
    for (int64_t t = 0; t < tiles.n_tiles; t++) {
        const AttnTile *tile = &tiles.tiles[t];
        assert_int_equal(tile->rows, tile->row0 == 0 ? 40 : 192);
        steps += tile->n_steps;
    }
    assert_int_equal(steps, 1 + 2 + 4 + 5 + 7 + 8);
    attn_tiles_free(&tiles);
}

/* One tile with eight steps on local keys and one on those of a range that is ready after 100 us.
 */
static void test_estimate(void **state) {
    (void)state;
    RemoteKv remote = {.n = 1,
                       .rows = {{1024 + ATTN_PAD_ROWS, 1024 + ATTN_PAD_ROWS + 128}},
                       .est_ready_us = {100}};
    const Band bands[] = {
        {0, 128, 0, 1024, BAND_NO_LO, BAND_NO_HI},
        {0, 128, remote.rows[0].begin, remote.rows[0].end, BAND_NO_LO, BAND_NO_HI}};
    const AttnGrid grid = {128, 128};
    const double steps_before = 9;
    AttnTuning one = tiles_tuning, ten = tiles_tuning;
    one.ctas = 1, ten.ctas = 10;
    AttnTiles unsplit = attn_tiles_by_q(bands, 2, 128, grid, &remote, NULL, &one);
    AttnTiles split = attn_tiles_by_q(bands, 2, 128, grid, &remote, &steps_before, &one);
    assert_int_equal(unsplit.n_tiles, 1);
    assert_int_equal(split.n_tiles, 2);
    assert_int_equal(split.n_split_tiles, 1);
    assert_int_equal(split.tiles[0].n_steps, 8);
    assert_int_equal(split.tiles[0].schedule_group, 0);
    assert_int_equal(split.tiles[1].schedule_group, 1);
    /* half a step for the item, then 2 us each */
    assert_true(attn_tiles_span_us(&unsplit, 1, NULL, &one) == 19);
    assert_true(attn_tiles_span_us(&unsplit, 1, &remote, &one) == 102);
    assert_true(attn_tiles_span_us(&unsplit, 5, &remote, &one) == 102 + 4 * 19);
    /* the local keys of all heads are done before the first range is ready */
    assert_true(attn_tiles_span_us(&split, 5, &remote, &one) < 102 + 4 * 6);
    assert_true(attn_tiles_span_us(&split, 5, &remote, &ten) == 102);
    attn_tiles_free(&unsplit);
    attn_tiles_free(&split);

    /* a forward is split where that saves enough */
    double us;
    split = attn_tiles_fwd(bands, 2, 128, grid, &remote, 5, &one, &us);
    assert_int_equal(split.n_split_tiles, 1);
    assert_true(us < 102 + 4 * 19);
    attn_tiles_free(&split);
    one.min_gain_us = 1e6;
    split = attn_tiles_fwd(bands, 2, 128, grid, &remote, 5, &one, &us);
    assert_int_equal(split.n_split_tiles, 0);
    assert_true(us == 102 + 4 * 19);
    attn_tiles_free(&split);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_masks), cmocka_unit_test(test_documents_share_no_tile),
        cmocka_unit_test(test_short_tile_is_first), cmocka_unit_test(test_estimate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
