#include "test.h"

#include "attn/balance.h"
#include "attn/dispatch.h"
#include "mask_cases.h"

static const int ranks[] = {1, 2, 3, 4, 5, 7, 8};
enum { N_RANKS = 7 };

/* Area of every rank; returns max / mean - 1. */
static double rank_areas(const Dispatch *d, const Mask *m, int64_t *area) {
    int64_t total = 0, most = 0;
    for (int r = 0; r < d->P; r++) {
        RangeList runs = {0};
        dispatch_runs(d, r, &runs);
        area[r] = 0;
        for (int64_t i = 0; i < runs.n; i++)
            for (int64_t b = 0; b < m->n; b++)
                area[r] += band_area(band_cut_q(m->bands[b], runs.ranges[i]));
        range_list_free(&runs);
        total += area[r];
        most = i64_max(most, area[r]);
    }
    return total ? (double)most * d->P / (double)total - 1 : 0;
}

/* Rows of other ranks that all ranks together read. */
static int64_t remote_rows(const Dispatch *d, const Mask *m) {
    int64_t rows = 0;
    for (int r = 0; r < d->P; r++) {
        RangeList runs = {0}, keys = {0}, need = {0};
        dispatch_runs(d, r, &runs);
        for (int64_t i = 0; i < runs.n; i++) mask_keys(m, runs.ranges[i], &keys);
        keys.n = range_normalize(keys.ranges, keys.n);
        range_subtract(&need, keys.ranges, keys.n, runs.ranges, runs.n);
        rows += range_total(need.ranges, need.n);
        range_list_free(&runs);
        range_list_free(&keys);
        range_list_free(&need);
    }
    return rows;
}

static void every_rank_holds_the_same_number_of_rows_once(void **state) {
    (void)state;
    Draw draw = {.seed = 21};
    for (int i = 0; i < 3000; i++) {
        int64_t S = 1 + draw_below(&draw, 300);
        int32_t begin[300];
        Mask m;
        Dispatch d;
        assert_status_ok(mask_documents(&m, S, begin, draw_documents(&draw, S, 60, begin), 0));
        DispatchOptions o = {.P = ranks[i % N_RANKS], .kind = (DispatchKind)(i % DISPATCH_KINDS)};
        if (draw_below(&draw, 2)) o.chunk = 1 + draw_below(&draw, ceil_div(S, o.P));
        if (draw_below(&draw, 2)) o.ranks_per_node = o.P % 2 ? 1 : 2;
        if (draw_below(&draw, 2)) o.chunks_per_rank = 1 + draw_below(&draw, 5);
        if (o.chunk > 1 && ceil_div(S, o.chunk) < o.P) o.chunk = 1;
        assert_status_ok(dispatch_build(&d, &m, &o));
        assert_int_equal(d.padded, (int64_t)d.rows * d.P);
        assert_int_equal(d.padded, (int64_t)d.n_chunks * d.chunk);
        assert_true(d.padded >= S);
        if (o.chunk > 0 && o.P > 1) assert_int_equal(d.chunk, o.chunk);
        bool *seen = NEW(bool, d.padded);
        for (int r = 0; r < d.P; r++) {
            for (int32_t row = 0; row < d.rows; row++) {
                int64_t t = dispatch_token_of(&d, r, row);
                assert_true(t >= 0 && t < d.padded && !seen[t]);
                assert_true(row == 0 || t > dispatch_token_of(&d, r, row - 1));
                assert_int_equal(dispatch_rank_of(&d, t), r);
                assert_int_equal(dispatch_row_of(&d, t), row);
                seen[t] = true;
            }
            RangeList runs = {0};
            dispatch_runs(&d, r, &runs);
            assert_int_equal(range_total(runs.ranges, runs.n), d.rows);
            assert_int_equal(range_normalize(runs.ranges, runs.n), runs.n);
            range_list_free(&runs);
        }
        free(seen);
        dispatch_free(&d);
        mask_free(&m);
    }
}

static void the_grid_is_chosen_by_size_alone(void **state) {
    (void)state;
    static const struct {
        int64_t S;
        int P;
        int64_t T, chunk, n;
    } want[] = {
        {8192, 8, 8192, 128, 64},
        {8192, 1, 8192, 8192, 1},
        {8192, 2, 8192, 512, 16},
        {131072, 8, 131072, 2048, 64},
        {1 << 20, 64, 1 << 20, 2048, 512},
        {32768, 4, 8192, 1024, 32}, /* four sequences: pieces of T / 2P = 1024 */
        {49152, 4, 8192, 1024, 48}, /* six: 8 chunks a rank would straddle the pieces */
        {1000, 8, 1000, 16, 64},    /* 24 tokens of padding */
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        int32_t chunk, n;
        DispatchOptions o = {.P = want[i].P, .T = want[i].T};
        assert_status_ok(dispatch_grid(want[i].S, &o, &chunk, &n));
        assert_int_equal(chunk, want[i].chunk);
        assert_int_equal(n, want[i].n);
    }
    /* the same grid for every mask that auto may meet: buffers keep their shape */
    for (int p = 1; p < N_RANKS; p++) {
        DispatchOptions o = {.P = ranks[p], .T = 1024};
        Mask masks[4];
        assert_status_ok(mask_causal(&masks[0], 2048, 1024, 0));
        assert_status_ok(mask_full(&masks[1], 2048, 2048));
        assert_status_ok(mask_causal(&masks[2], 2048, 1024, 100));
        assert_status_ok(mask_documents(&masks[3], 2048, (int32_t[]){0, 700, 1024, 1500}, 4, 0));
        int32_t rows = 0;
        for (int i = 0; i < 4; i++) {
            Dispatch d;
            assert_status_ok(dispatch_build(&d, &masks[i], &o));
            if (i > 0) assert_int_equal(d.rows, rows);
            rows = d.rows;
            dispatch_free(&d);
            mask_free(&masks[i]);
        }
    }
}

static void auto_follows_the_mask(void **state) {
    (void)state;
    static const struct {
        int64_t T, window;
        bool full;
        int per_node;
        DispatchKind kind;
    } want[] = {
        {8192, 0, false, 0, DISPATCH_ZIGZAG},       {8192, 0, true, 0, DISPATCH_CONTIGUOUS},
        {8192, 512, false, 0, DISPATCH_CONTIGUOUS}, {8192, 0, false, 2, DISPATCH_ZIGZAG},
        {4096, 0, false, 0, DISPATCH_ZIGZAG},       {2048, 0, false, 0, DISPATCH_CONTIGUOUS},
    };
    Mask m;
    Dispatch d;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        if (want[i].full)
            assert_status_ok(mask_full(&m, 8192, want[i].T));
        else
            assert_status_ok(mask_causal(&m, 8192, want[i].T, want[i].window));
        DispatchOptions o = {.P = 4, .T = want[i].T, .ranks_per_node = want[i].per_node};
        assert_status_ok(dispatch_build(&d, &m, &o));
        assert_int_equal(d.kind, want[i].kind);
        dispatch_free(&d);
        mask_free(&m);
    }
    int32_t begin[8192];
    assert_status_ok(mask_documents(&m, 8192, begin, draw_pack(1, 8192, begin), 0));
    for (int per_node = 0; per_node <= 2; per_node += 2) {
        DispatchOptions o = {.P = 4, .ranks_per_node = per_node};
        assert_status_ok(dispatch_build(&d, &m, &o));
        assert_int_equal(d.kind, per_node ? DISPATCH_TWO_LEVEL : DISPATCH_LOCAL_SEARCH);
        dispatch_free(&d);
    }
    mask_free(&m);
}

static void zigzag_balances_causal_sequences_exactly(void **state) {
    (void)state;
    for (int p = 0; p < N_RANKS; p++)
        for (int B = 1; B <= 3; B++) {
            int P = ranks[p];
            int64_t T = 2 * P * 12, area[8];
            Mask m;
            Dispatch d;
            assert_status_ok(mask_causal(&m, B * T, T, 0));
            DispatchOptions o = {.P = P, .kind = DISPATCH_ZIGZAG, .T = T, .chunk = 12};
            assert_status_ok(dispatch_build(&d, &m, &o));
            rank_areas(&d, &m, area);
            for (int r = 0; r < P; r++) assert_int_equal(area[r], area[0]);
            for (int64_t t = 0; P > 1 && t < B * T; t++) {
                int piece = (int)(t % T / 12);
                assert_int_equal(dispatch_rank_of(&d, t), piece < P ? piece : 2 * P - 1 - piece);
            }
            /* smaller chunks change nothing: pieces stay T / 2P */
            Dispatch fine;
            o.chunk = 3;
            assert_status_ok(dispatch_build(&fine, &m, &o));
            for (int64_t t = 0; t < B * T; t++)
                assert_int_equal(dispatch_rank_of(&fine, t), dispatch_rank_of(&d, t));
            dispatch_free(&fine);
            dispatch_free(&d);
            mask_free(&m);
        }
}

static void min_heap_on_a_causal_mask_is_zigzag(void **state) {
    (void)state;
    for (int p = 1; p < N_RANKS; p++) {
        int P = ranks[p];
        Mask m;
        Dispatch heap, zigzag;
        assert_status_ok(mask_causal(&m, 2 * P * 16, 2 * P * 16, 0));
        DispatchOptions o = {.P = P, .kind = DISPATCH_MIN_HEAP, .chunk = 16};
        assert_status_ok(dispatch_build(&heap, &m, &o));
        o.kind = DISPATCH_ZIGZAG;
        assert_status_ok(dispatch_build(&zigzag, &m, &o));
        for (int32_t i = 0; i < 2 * P; i++) assert_int_equal(heap.owner[i], zigzag.owner[i]);
        dispatch_free(&heap);
        dispatch_free(&zigzag);
        mask_free(&m);
    }
}

static void local_search_keeps_its_promises(void **state) {
    (void)state;
    static const int64_t lengths[] = {8192, 32768, 131072};
    int32_t *begin = NEW(int32_t, 131072);
    int64_t area[8];
    for (int s = 0; s < 3; s++)
        for (int P = 2; P <= 8; P *= 2) {
            double heap_moved = 0, moved = 0, ring = 0;
            for (uint64_t pack = 0; pack < 6; pack++) {
                Mask m;
                Dispatch d;
                int64_t S = lengths[s];
                assert_status_ok(mask_documents(&m, S, begin, draw_pack(pack, S, begin), 0));
                DispatchOptions o = {.P = P, .kind = DISPATCH_LOCAL_SEARCH};
                assert_status_ok(dispatch_build(&d, &m, &o));
                assert_true(rank_areas(&d, &m, area) <= 0.05);
                moved += (double)remote_rows(&d, &m);
                dispatch_free(&d);
                o.kind = DISPATCH_MIN_HEAP;
                assert_status_ok(dispatch_build(&d, &m, &o));
                assert_true(rank_areas(&d, &m, area) <= 0.04);
                heap_moved += (double)remote_rows(&d, &m);
                ring += (double)(S * (P - 1));
                dispatch_free(&d);
                mask_free(&m);
            }
            assert_true(moved < 0.25 * ring);
            assert_true(heap_moved < 0.5 * ring);
        }
    free(begin);
}

static void two_levels_move_fewer_rows_between_nodes(void **state) {
    (void)state;
    enum { S = 131072, P = 16, NODE = 8 };
    int32_t *begin = NEW(int32_t, S);
    int64_t crossed[2] = {0}, area[P];
    for (uint64_t pack = 0; pack < 4; pack++) {
        Mask m;
        assert_status_ok(mask_documents(&m, S, begin, draw_pack(pack, S, begin), 0));
        for (int k = 0; k < 2; k++) {
            Dispatch d;
            DispatchOptions o = {.P = P,
                                 .kind = k ? DISPATCH_TWO_LEVEL : DISPATCH_LOCAL_SEARCH,
                                 .ranks_per_node = NODE};
            assert_status_ok(dispatch_build(&d, &m, &o));
            assert_true(rank_areas(&d, &m, area) <= 0.06);
            /* rows that a node reads from the other one, each once */
            Dispatch nodes = d;
            int32_t owner[1024];
            assert_true(d.n_chunks <= 1024);
            for (int32_t i = 0; i < d.n_chunks; i++) owner[i] = d.owner[i] / NODE;
            int32_t chunks[1024], n = 0;
            for (int32_t node = 0; node < P / NODE; node++)
                for (int32_t i = 0; i < d.n_chunks; i++)
                    if (owner[i] == node) chunks[n++] = i;
            nodes.P = P / NODE;
            nodes.owner = owner;
            nodes.chunks = chunks;
            nodes.chunks_per_rank *= NODE;
            nodes.rows *= NODE;
            crossed[k] += remote_rows(&nodes, &m);
            dispatch_free(&d);
        }
        mask_free(&m);
    }
    assert_true(crossed[1] < crossed[0] * 3 / 4);
    free(begin);
}

static void local_search_never_worsens_and_obeys_its_budget(void **state) {
    (void)state;
    Draw draw = {.seed = 22};
    for (int i = 0; i < 300; i++) {
        enum { S = 256, P = 4, N = 32 };
        Band bands[8];
        Mask m;
        Dispatch d[3];
        int64_t area[P];
        assert_status_ok(mask_bands(&m, S, bands, draw_bands(&draw, S, 8, bands)));
        DispatchOptions o = {.P = P, .kind = DISPATCH_CONTIGUOUS, .chunk = S / N};
        assert_status_ok(dispatch_build(&d[0], &m, &o));
        o.kind = DISPATCH_LOCAL_SEARCH;
        assert_status_ok(dispatch_build(&d[1], &m, &o));
        assert_status_ok(dispatch_build(&d[2], &m, &o));
        assert_memory_equal(d[1].owner, d[2].owner, N * sizeof(int32_t));
        double before = rank_areas(&d[0], &m, area), after = rank_areas(&d[1], &m, area);
        assert_true(after <= before || after <= 0.04);
        dispatch_free(&d[2]);
        o.trials = -1;
        o.slack = 100; /* nothing to repair, nothing to try */
        assert_status_ok(dispatch_build(&d[2], &m, &o));
        assert_memory_equal(d[2].owner, d[0].owner, N * sizeof(int32_t));
        for (int k = 0; k < 3; k++) dispatch_free(&d[k]);
        mask_free(&m);
    }
}

static void impossible_grids_are_refused(void **state) {
    (void)state;
    int32_t chunk, n;
    assert_status_fails(dispatch_grid(100, &(DispatchOptions){.P = 8, .chunk = 32}, &chunk, &n),
                        ERR_USER, "parallel.chunk_size: chunks of 32");
    assert_status_fails(
        dispatch_grid(100, &(DispatchOptions){.P = 8, .ranks_per_node = 3}, &chunk, &n), ERR_USER,
        "do not fill nodes of 3");
    assert_status_fails(dispatch_grid(0, &(DispatchOptions){.P = 8}, &chunk, &n), ERR_USER,
                        "0 tokens");
    assert_status_fails(dispatch_grid(8, &(DispatchOptions){.P = 0}, &chunk, &n), ERR_USER,
                        "0 ranks");
    assert_status_ok(dispatch_grid(3, &(DispatchOptions){.P = 8}, &chunk, &n)); /* padding only */
    assert_true((int64_t)chunk * n >= 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_holds_the_same_number_of_rows_once),
        cmocka_unit_test(the_grid_is_chosen_by_size_alone),
        cmocka_unit_test(auto_follows_the_mask),
        cmocka_unit_test(zigzag_balances_causal_sequences_exactly),
        cmocka_unit_test(min_heap_on_a_causal_mask_is_zigzag),
        cmocka_unit_test(local_search_keeps_its_promises),
        cmocka_unit_test(two_levels_move_fewer_rows_between_nodes),
        cmocka_unit_test(local_search_never_worsens_and_obeys_its_budget),
        cmocka_unit_test(impossible_grids_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
