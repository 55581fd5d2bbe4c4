#include "test.h"

#include "attn/band.h"
#include "mask_cases.h"

/* Bands live within [0, G) x [0, G) here, and are compared with dense boolean matrices. */
enum { G = 14 };

typedef struct {
    bool at[G][G];
} Dense;

/* Straight from the definition, so that unshrunk bands count as well. */
static Dense dense_of(Band b) {
    Dense d = {0};
    for (int q = b.q_begin; q < b.q_end; q++)
        for (int k = b.k_begin; k < b.k_end; k++)
            if (k - q >= b.lo && k - q <= b.hi) d.at[q][k] = true;
    return d;
}

static bool dense_equal(const Dense *a, const Dense *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

static int64_t dense_area(const Dense *d) {
    int64_t n = 0;
    for (int i = 0; i < G * G; i++) n += d->at[i / G][i % G];
    return n;
}

static Band draw_raw_band(Draw *d) {
    Range q = draw_range(d, G), k = draw_range(d, G);
    int32_t lo = draw_below(d, 4) ? draw_below(d, 2 * G) - G : BAND_NO_LO;
    int32_t hi = draw_below(d, 4) ? draw_below(d, 2 * G) - G : BAND_NO_HI;
    return (Band){q.begin, q.end, k.begin, k.end, lo, hi};
}

static void shrinking_keeps_the_pairs_and_is_tight(void **state) {
    (void)state;
    Draw draw = {.seed = 1};
    for (int i = 0; i < 20000; i++) {
        Band raw = draw_raw_band(&draw), b = band_shrink(raw);
        Dense want = dense_of(raw), got = dense_of(b);
        assert_true(dense_equal(&want, &got));
        assert_true(band_equal(band_shrink(b), b));
        assert_int_equal(band_is_empty(b), dense_area(&want) == 0);
        if (band_is_empty(b)) continue;
        int lo = G, hi = -G, q_begin = G, q_end = 0, k_begin = G, k_end = 0;
        for (int q = 0; q < G; q++)
            for (int k = 0; k < G; k++) {
                if (!want.at[q][k]) continue;
                if (k - q < lo) lo = k - q;
                if (k - q > hi) hi = k - q;
                if (q < q_begin) q_begin = q;
                if (k < k_begin) k_begin = k;
                if (q >= q_end) q_end = q + 1;
                if (k >= k_end) k_end = k + 1;
            }
        assert_true(band_equal(b, (Band){q_begin, q_end, k_begin, k_end, lo, hi}));
    }
}

static void cuts_and_intersections_are_those_of_the_pairs(void **state) {
    (void)state;
    Draw draw = {.seed = 2};
    for (int i = 0; i < 20000; i++) {
        Band a = draw_raw_band(&draw), b = draw_raw_band(&draw);
        Range r = draw_range(&draw, G);
        Dense da = dense_of(a), db = dense_of(b), both = da, rows = da, keys = da;
        for (int q = 0; q < G; q++)
            for (int k = 0; k < G; k++) {
                both.at[q][k] = da.at[q][k] && db.at[q][k];
                rows.at[q][k] = da.at[q][k] && q >= r.begin && q < r.end;
                keys.at[q][k] = da.at[q][k] && k >= r.begin && k < r.end;
            }
        Dense got = dense_of(band_intersect(a, b));
        assert_true(dense_equal(&got, &both));
        got = dense_of(band_cut_q(a, r));
        assert_true(dense_equal(&got, &rows));
        got = dense_of(band_cut_k(a, r));
        assert_true(dense_equal(&got, &keys));
    }
}

static void rows_area_and_tiles_count_the_pairs(void **state) {
    (void)state;
    Draw draw = {.seed = 3};
    for (int i = 0; i < 20000; i++) {
        Band b = band_shrink(draw_raw_band(&draw));
        Dense d = dense_of(b);
        assert_int_equal(band_area(b), dense_area(&d));
        for (int q = 0; q < G; q++) {
            Range keys = band_row(b, q);
            for (int k = 0; k < G; k++)
                assert_int_equal(d.at[q][k], k >= keys.begin && k < keys.end);
        }
        for (int tile = 1; tile <= 4; tile++) {
            bool touched[G][G] = {0};
            int64_t tiles = 0;
            for (int q = 0; q < G; q++)
                for (int k = 0; k < G; k++) {
                    bool *t = &touched[q / tile][k / tile];
                    if (d.at[q][k] && !*t) tiles++;
                    *t = *t || d.at[q][k];
                }
            assert_int_equal(band_tile_area(b, tile), tiles * tile * tile);
        }
    }
}

static void area_is_exact_for_long_streams(void **state) {
    (void)state;
    int64_t n = BAND_MAX_TOKENS;
    Range all = {0, (int32_t)n};
    assert_true(band_area(band_from_slice(all, all, SLICE_CAUSAL)) == n * (n + 1) / 2);
    assert_true(band_area(band_from_slice(all, all, SLICE_INV_CAUSAL)) == n * (n + 1) / 2);
    assert_true(band_area(band_from_slice(all, all, SLICE_FULL)) == n * n);
    assert_true(band_area(band_from_slice(all, all, SLICE_BI_CAUSAL)) == n);
}

static void slices_have_the_documented_shapes_and_areas(void **state) {
    (void)state;
    for (int m = 0; m <= 7; m++)
        for (int n = 0; n <= 7; n++)
            for (int t = 0; t < SLICE_TYPES; t++) {
                Range q = {3, 3 + m}, k = {5, 5 + n};
                Band b = band_from_slice(q, k, (SliceType)t);
                Dense want = {0}, got = dense_of(b);
                for (int i = 0; i < m; i++)
                    for (int j = 0; j < n; j++) {
                        bool right = t == SLICE_CAUSAL || t == SLICE_BI_CAUSAL;
                        bool left = t == SLICE_INV_CAUSAL || t == SLICE_BI_CAUSAL;
                        want.at[3 + i][5 + j] = (!right || j <= i + n - m) && (!left || j >= i);
                    }
                assert_true(dense_equal(&got, &want));
                int triangle = n > m ? (2 * n - m + 1) * m / 2 : n * (n + 1) / 2;
                int area[SLICE_TYPES] = {m * n, triangle, triangle, n >= m ? (n - m + 1) * m : 0};
                assert_int_equal(band_area(b), area[t]);
            }
}

static void shifting_moves_every_pair(void **state) {
    (void)state;
    Draw draw = {.seed = 4};
    for (int i = 0; i < 5000; i++) {
        Band b = band_shrink(draw_raw_band(&draw));
        int32_t dq = draw_below(&draw, 100) - 50, dk = draw_below(&draw, 100) - 50;
        Band moved = band_shift(b, dq, dk);
        assert_int_equal(band_area(moved), band_area(b));
        for (int32_t q = b.q_begin; q < b.q_end; q++) {
            assert_int_equal(band_row(moved, q + dq).begin, band_row(b, q).begin + dk);
            assert_int_equal(band_row(moved, q + dq).end, band_row(b, q).end + dk);
        }
    }
}

/* Two bands merge exactly when some band holds their pairs and no others. The candidate is read off
 * the dense matrix, so this does not lean on band_merge's own reasoning. */
static void bands_merge_whenever_their_union_is_a_band(void **state) {
    (void)state;
    Draw draw = {.seed = 5};
    int merged = 0, apart = 0;
    for (int i = 0; i < 200000; i++) {
        Band whole = band_shrink(draw_raw_band(&draw)), a, b;
        Range r = draw_range(&draw, G);
        switch (draw_below(&draw, 3)) {
        case 0:
            a = band_cut_q(whole, (Range){0, r.begin});
            b = band_cut_q(whole, (Range){r.begin, r.end});
            break;
        case 1:
            a = band_cut_k(whole, (Range){0, r.begin});
            b = band_cut_k(whole, (Range){r.begin, r.end});
            break;
        default:
            a = whole;
            b = band_shrink(draw_raw_band(&draw));
        }
        if (band_is_empty(a) || band_is_empty(b) || !band_is_empty(band_intersect(a, b))) continue;
        Dense da = dense_of(a), db = dense_of(b), both = da;
        for (int j = 0; j < G * G; j++) both.at[j / G][j % G] |= db.at[j / G][j % G];
        Band hull = {a.q_begin < b.q_begin ? a.q_begin : b.q_begin,
                     a.q_end > b.q_end ? a.q_end : b.q_end,
                     a.k_begin < b.k_begin ? a.k_begin : b.k_begin,
                     a.k_end > b.k_end ? a.k_end : b.k_end,
                     a.lo < b.lo ? a.lo : b.lo,
                     a.hi > b.hi ? a.hi : b.hi};
        Dense dh = dense_of(hull);
        Band out;
        bool can = dense_equal(&dh, &both);
        assert_int_equal(band_merge(a, b, &out), can);
        can ? merged++ : apart++;
        if (!can) continue;
        Dense got = dense_of(out);
        assert_true(dense_equal(&got, &both));
    }
    assert_true(merged > 1000 && apart > 1000);
}

static void a_list_of_pieces_merges_back(void **state) {
    (void)state;
    Band pieces[128], causal[16];
    assert_int_equal(band_merge_list(pieces, mask_case_pieces(8192, pieces)), 1);
    assert_true(
        band_equal(pieces[0], band_from_slice((Range){0, 8192}, (Range){0, 8192}, SLICE_FULL)));
    Band whole = band_from_slice((Range){0, 64}, (Range){0, 64}, SLICE_CAUSAL);
    for (int32_t i = 0; i < 16; i++)
        causal[i] = band_cut_k(band_cut_q(whole, (Range){i / 4 * 16, i / 4 * 16 + 16}),
                               (Range){i % 4 * 16, i % 4 * 16 + 16});
    assert_int_equal(band_merge_list(causal, 16), 1);
    assert_true(band_equal(causal[0], whole));
    assert_int_equal(band_merge_list(NULL, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shrinking_keeps_the_pairs_and_is_tight),
        cmocka_unit_test(cuts_and_intersections_are_those_of_the_pairs),
        cmocka_unit_test(rows_area_and_tiles_count_the_pairs),
        cmocka_unit_test(area_is_exact_for_long_streams),
        cmocka_unit_test(slices_have_the_documented_shapes_and_areas),
        cmocka_unit_test(shifting_moves_every_pair),
        cmocka_unit_test(bands_merge_whenever_their_union_is_a_band),
        cmocka_unit_test(a_list_of_pieces_merges_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
