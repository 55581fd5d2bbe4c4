#include "test.h"

#include <time.h>

#include "attn/plan.h"
#include "mask_cases.h"
#include "plan_check.h"

static const int ranks[] = {1, 2, 3, 4, 5, 7, 8}, degrees[] = {0, 1, 2, 4};
enum { N_RANKS = 7, N_DEGREES = 4 };

/* plan_check, and what it cannot know: that it covered every rank and the whole mask. */
static void check(const Mask *m, const PlanOptions *o, const char *name) {
    AttnPlan p;
    Status st = plan_build(&p, m, o);
    if (st == OK) st = plan_check(&p);
    if (st != OK)
        fail_msg("%s, backend %d, degree %d, %d ranks, chunk %d: %s", name, o->backend, o->degree,
                 o->dispatch.P, p.dispatch.chunk, status_message());
    PlanSummary s = plan_summary(&p);
    assert_true(s.area == mask_area(m));
    assert_true(cp_backend_is(p.backend, BACKEND_NEEDED_ROWS) ? s.recv_rows <= s.ring_rows
                                                              : s.recv_rows == s.ring_rows);
    plan_free(&p);
}

static void check_all(const Mask *m, Draw *draw, const char *name) {
    for (int i = 0; i < N_RANKS * CP_BACKENDS * N_DEGREES; i++) {
        PlanOptions o = {.backend = (CpBackend)(i / N_DEGREES % CP_BACKENDS),
                         .degree = degrees[i % N_DEGREES],
                         .dispatch.P = ranks[i / N_DEGREES / CP_BACKENDS]};
        bool needed_rows = cp_backend_is(o.backend, BACKEND_NEEDED_ROWS);
        if (o.degree > 0 && !needed_rows) continue;
        if (o.dispatch.P > 1 && cp_backend_is(o.backend, BACKEND_ONE_RANK)) continue;
        if (needed_rows && draw_below(draw, 3)) {
            o.dispatch.kind = (DispatchKind)draw_below(draw, DISPATCH_KINDS);
            o.dispatch.chunk = 1 + draw_below(draw, ceil_div(m->S, o.dispatch.P));
            if (ceil_div(m->S, o.dispatch.chunk) < o.dispatch.P) o.dispatch.chunk = 1;
            o.dispatch.trials = draw_below(draw, 2) ? 0 : 8;
        } else if (draw_below(draw, 3) == 0) {
            o.dispatch.kind = (DispatchKind)draw_below(draw, DISPATCH_KINDS);
        }
        o.dispatch.ranks_per_node = o.dispatch.P % 2 ? 0 : 2;
        check(m, &o, name);
    }
}

static void random_band_lists_are_planned_exactly(void **state) {
    (void)state;
    Draw draw = {.seed = 31};
    for (int i = 0; i < 600; i++) {
        Band bands[10];
        Mask m;
        int32_t S = 1 + draw_below(&draw, i % 10 ? 48 : 200);
        assert_status_ok(mask_bands(&m, S, bands, draw_bands(&draw, S, 10, bands)));
        check_all(&m, &draw, "random bands");
        mask_free(&m);
    }
}

static void random_document_layouts_are_planned_exactly(void **state) {
    (void)state;
    Draw draw = {.seed = 32};
    for (int i = 0; i < 1000; i++) {
        int32_t begin[200];
        Mask m;
        int64_t S = 1 + draw_below(&draw, i % 10 ? 64 : 200);
        int64_t n = draw_documents(&draw, S, 1 + draw_below(&draw, S), begin);
        int64_t window = draw_below(&draw, 3) ? 0 : 1 + draw_below(&draw, S);
        assert_status_ok(mask_documents(&m, S, begin, n, window));
        check_all(&m, &draw, "documents");
        mask_free(&m);
    }
}

static void published_masks_are_planned_exactly(void **state) {
    (void)state;
    Draw draw = {.seed = 33};
    Band bands[CASE_SLICES_MAX];
    Mask m;
    for (int i = 0; i < N_MASK_CASES; i++) { /* 80 to 150 tokens, the shapes kept */
        int32_t scale = (int32_t)i64_max(1, mask_cases[i].S / 100);
        int64_t S = mask_cases[i].S / scale, n = mask_case_bands(&mask_cases[i], scale, bands);
        assert_status_ok(mask_bands(&m, S, bands, n));
        check_all(&m, &draw, mask_cases[i].name);
        mask_free(&m);
    }
    assert_status_ok(mask_bands(&m, 128, bands, mask_case_pieces(128, bands)));
    check_all(&m, &draw, "T7 full in pieces");
    mask_free(&m);
    /* with the chunk size that the published test uses */
    static const struct {
        int index, P;
        int64_t chunk;
    } at_size[] = {{8, 5, 5}, {9, 4, 16}, {10, 4, 128}, {11, 3, 63}, {14, 8, 32}, {15, 4, 128}};
    for (size_t i = 0; i < sizeof at_size / sizeof at_size[0]; i++) {
        const MaskCase *c = &mask_cases[at_size[i].index];
        assert_status_ok(mask_bands(&m, c->S, bands, mask_case_bands(c, 1, bands)));
        PlanOptions o = {.backend = BACKEND_MAGI,
                         .degree = 2,
                         .dispatch = {.P = at_size[i].P, .chunk = at_size[i].chunk}};
        check(&m, &o, c->name);
        mask_free(&m);
    }
}

static void degenerate_plans_are_exact(void **state) {
    (void)state;
    Draw draw = {.seed = 34};
    Mask m;
    int32_t ones[32];
    for (int i = 0; i < 32; i++) ones[i] = i;
    assert_status_ok(mask_documents(&m, 32, ones, 32, 0)); /* one-token documents: nothing moves */
    check_all(&m, &draw, "one-token documents");
    PlanOptions o = {.backend = BACKEND_MAGI, .degree = 2, .dispatch.P = 4};
    AttnPlan p;
    RankPlan rp;
    assert_status_ok(plan_build(&p, &m, &o));
    assert_int_equal(plan_summary(&p).recv_rows, 0);
    plan_rank(&p, 3, &rp);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(rp.stages[i].n_bands, 0);
        assert_int_equal(rp.stages[i].kv_rows, 0);
        assert_int_equal(rp.stages[i].n_recv + rp.stages[i].n_send, 0);
    }
    rank_plan_free(&rp);
    plan_free(&p);
    mask_free(&m);

    assert_status_ok(mask_bands(&m, 32, &(Band){0, 8, 16, 24, BAND_NO_LO, BAND_NO_HI}, 1));
    o.dispatch.kind =
        DISPATCH_CONTIGUOUS; /* rank 0 works on remote keys alone, others not at all */
    assert_status_ok(plan_build(&p, &m, &o));
    assert_status_ok(plan_check(&p));
    assert_int_equal(p.ranks[0].local_area, 0);
    assert_int_equal(p.ranks[0].recv_rows, 8);
    assert_int_equal(p.ranks[2].send_rows, 8);
    assert_int_equal(p.ranks[2].area + p.ranks[1].area + p.ranks[3].area, 0);
    plan_free(&p);
    check_all(&m, &draw, "idle ranks");
    mask_free(&m);

    assert_status_ok(mask_bands(&m, 20, NULL, 0));
    check_all(&m, &draw, "nothing to see");
    mask_free(&m);
    assert_status_ok(mask_causal(&m, 1, 1, 0));
    check_all(&m, &draw, "one token");
    mask_free(&m);
    assert_status_ok(mask_causal(&m, 37, 37, 0)); /* padding, and one chunk a rank */
    for (int i = 1; i < N_RANKS; i++) {
        o = (PlanOptions){.backend = BACKEND_MAGI,
                          .degree = 4,
                          .dispatch = {.P = ranks[i], .chunk = ceil_div(37, ranks[i])}};
        if (ceil_div(37, o.dispatch.chunk) < ranks[i]) continue;
        check(&m, &o, "one chunk a rank");
    }
    mask_free(&m);
}

static void one_rank_runs_the_mask_itself_under_every_backend(void **state) {
    (void)state;
    Mask m;
    assert_status_ok(mask_documents(&m, 100, (int32_t[]){0, 30, 31, 77}, 4, 20));
    for (CpBackend i = 0; i < CP_BACKENDS; i++) {
        AttnPlan p;
        RankPlan rp;
        PlanOptions o = {.backend = i, .degree = 2, .dispatch = {.P = 1, .chunk = 16}};
        assert_status_ok(plan_build(&p, &m, &o));
        plan_rank(&p, 0, &rp);
        assert_int_equal(rp.n_stages, 1);
        assert_int_equal(rp.rows, 100);
        assert_int_equal(rp.stages[0].kv_rows, 100);
        assert_int_equal(rp.stages[0].n_bands, m.n);
        assert_memory_equal(rp.stages[0].bands, m.bands, (size_t)m.n * sizeof(Band));
        assert_int_equal(rp.stages[0].n_recv + rp.stages[0].n_send, 0);
        rank_plan_free(&rp);
        plan_free(&p);
    }
    mask_free(&m);
}

static void a_causal_ring_has_the_three_shapes_of_transformer_engine(void **state) {
    (void)state;
    enum { P = 4, c = 16 };
    Mask m;
    AttnPlan p;
    assert_status_ok(mask_causal(&m, 2 * P * c, 2 * P * c, 0));
    PlanOptions o = {.backend = BACKEND_RING, .dispatch.P = P};
    assert_status_ok(plan_build(&p, &m, &o));
    for (int r = 0; r < P; r++) {
        RankPlan rp;
        plan_rank(&p, r, &rp);
        assert_int_equal(rp.n_stages, P);
        assert_int_equal(rp.max_recv_rows, 2 * c);
        for (int i = 0; i < P; i++) {
            Range both = {0, 2 * c}, first = {0, c}, second = {c, 2 * c};
            Band want = i == 0   ? band_from_slice(both, both, SLICE_CAUSAL)
                        : i <= r ? band_from_slice(both, first, SLICE_FULL)
                                 : band_from_slice(second, both, SLICE_FULL);
            assert_int_equal(rp.stages[i].n_bands, 1);
            assert_true(band_equal(rp.stages[i].bands[0], want));
            assert_int_equal(rp.stages[i].source, (r - i + P) % P);
            if (i == 0) continue;
            assert_int_equal(rp.stages[i].recv[0].peer, (r + P - 1) % P);
            assert_int_equal(rp.stages[i].send[0].peer, (r + 1) % P);
        }
        rank_plan_free(&rp);
    }
    plan_free(&p);
    mask_free(&m);
}

/* Section 6.1 of the reference: n = m P chunks of c tokens, min-heap: rank r receives (n - r - m)
 * c. */
static void causal_volumes_are_those_of_the_closed_form(void **state) {
    (void)state;
    for (int P = 2; P <= 8; P *= 2)
        for (int per_rank = 2; per_rank <= 16; per_rank *= 2) {
            enum { c = 128 };
            int64_t n = P * per_rank;
            Mask m;
            AttnPlan p;
            assert_status_ok(mask_causal(&m, n * c, n * c, 0));
            PlanOptions o = {.backend = BACKEND_MAGI,
                             .degree = 1,
                             .dispatch = {.P = P, .kind = DISPATCH_MIN_HEAP, .chunk = c}};
            assert_status_ok(plan_build(&p, &m, &o));
            PlanSummary s = plan_summary(&p);
            assert_true(s.imbalance == 0);
            for (int r = 0; r < P; r++)
                assert_int_equal(p.ranks[r].recv_rows, (n - r - per_rank) * c);
            assert_int_equal(s.max_recv_rows, s.ring_rows / P);
            assert_int_equal(s.max_send_rows, s.ring_rows / P);
            plan_free(&p);
            mask_free(&m);
        }
}

static void stages_are_cut_evenly_and_from_different_owners(void **state) {
    (void)state;
    enum { P = 8, S = 8192, D = 4 };
    Mask m;
    AttnPlan p;
    assert_status_ok(mask_full(&m, S, S));
    PlanOptions o = {.backend = BACKEND_MAGI, .degree = D, .dispatch.P = P};
    assert_status_ok(plan_build(&p, &m, &o));
    for (int r = 0; r < P; r++) {
        RankPlan rp;
        plan_rank(&p, r, &rp);
        assert_int_equal(rp.n_stages, 1 + D);
        for (int i = 1; i <= D; i++) {
            assert_in_range(rp.stages[i].recv_rows, 7 * S / P / D - 256, 7 * S / P / D + 256);
            assert_in_range(rp.stages[i].send_rows, 7 * S / P / D - 256, 7 * S / P / D + 256);
        }
        assert_int_equal(rp.stages[1].recv[rp.stages[1].n_recv - 1].peer, r == 0   ? 7
                                                                          : r == 1 ? 7
                                                                                   : r - 1);
        rank_plan_free(&rp);
    }
    plan_free(&p);
    mask_free(&m);
}

static void assert_stages_equal(const PlanStage *a, const PlanStage *b) {
    assert_int_equal(a->n_bands, b->n_bands);
    assert_int_equal(a->n_recv, b->n_recv);
    assert_int_equal(a->n_send, b->n_send);
    assert_memory_equal(a->bands, b->bands, (size_t)a->n_bands * sizeof *a->bands);
    if (a->n_recv > 0) assert_memory_equal(a->recv, b->recv, (size_t)a->n_recv * sizeof *a->recv);
    if (a->n_send > 0) assert_memory_equal(a->send, b->send, (size_t)a->n_send * sizeof *a->send);
}

static void plans_are_reproducible_and_hashes_tell_them_apart(void **state) {
    (void)state;
    enum { S = 4096, P = 8 };
    int32_t begin[S];
    Mask m;
    assert_status_ok(mask_documents(&m, S, begin, draw_pack(5, S, begin), 0));
    uint64_t hashes[5] = {0};
    for (int i = 0; i < 5; i++) {
        PlanOptions o = {
            .backend = i == 4 ? BACKEND_RING : BACKEND_MAGI,
            .degree = i == 1 ? 2 : 1,
            .dispatch = {.P = i == 2 ? 4 : P, .kind = i == 3 ? DISPATCH_MIN_HEAP : DISPATCH_AUTO}};
        AttnPlan a, b;
        assert_status_ok(plan_build(&a, &m, &o));
        assert_status_ok(plan_build(&b, &m, &o));
        assert_memory_equal(a.ranks, b.ranks, (size_t)a.P * sizeof *a.ranks);
        hashes[i] = plan_hash(&a);
        assert_true(hashes[i] == plan_hash(&b));
        for (int j = 0; j < i; j++) assert_true(hashes[i] != hashes[j]);
        for (int r = 0; r < a.P; r++) {
            RankPlan x, y;
            plan_rank(&a, r, &x);
            plan_rank(&b, r, &y);
            for (int s = 0; s < x.n_stages; s++) assert_stages_equal(&x.stages[s], &y.stages[s]);
            rank_plan_free(&x);
            rank_plan_free(&y);
        }
        plan_free(&a);
        plan_free(&b);
    }
    mask_free(&m);
}

static void bytes_follow_from_rows_and_heads(void **state) {
    (void)state;
    CostModel cost = cost_default(32, 8, 64);
    Mask m;
    AttnPlan p;
    assert_status_ok(mask_causal(&m, 8192, 8192, 0));
    PlanOptions o = {.backend = BACKEND_RING, .dispatch.P = 8};
    assert_status_ok(plan_build(&p, &m, &o));
    assert_true(plan_bytes(&p, &cost).forward == 8 * 14680064);        /* 14.7 MB a rank */
    assert_true(plan_bytes(&p, &cost).backward == 8 * 14680064 * 3LL); /* KV, and dKV in fp32 */
    assert_true(plan_bytes_dense(&p, BACKEND_ULYSSES, &cost).forward == 8 * 9175040); /* 9.2 MB */
    plan_free(&p);
    o = (PlanOptions){.backend = BACKEND_MAGI, .degree = 1, .dispatch = {.P = 8, .chunk = 512}};
    assert_status_ok(plan_build(&p, &m, &o));
    assert_true(plan_bytes(&p, &cost).forward ==
                8 * 14680064 * 3LL / 4); /* zigzag saves a quarter */
    plan_free(&p);
    mask_free(&m);
    /* the greatest of everything that keys allow: cp, the stream, heads, head_dim */
    cost = cost_default(1024, 1024, 1024);
    p = (AttnPlan){.P = 1 << 16, .dispatch.rows = 1 << 13};
    PlanBytes ring = plan_bytes_dense(&p, BACKEND_RING, &cost);
    assert_true(ring.forward == 65536.0 * 65535 * 8192 * (4 << 20));
    assert_true(ring.backward == 65536.0 * 65535 * 8192 * (12 << 20));
    assert_true(plan_bytes_dense(&p, BACKEND_ULYSSES, &cost).forward == 65535.0 * 8192 * (8 << 20));
}

static void the_degree_is_chosen_by_predicted_time(void **state) {
    (void)state;
    CostModel cost = cost_default(32, 8, 64);
    Mask m;
    AttnPlan p;
    PlanOptions o = {.backend = BACKEND_MAGI, .degree = -1, .dispatch.P = 8, .cost = &cost};
    assert_status_ok(mask_causal(&m, 131072, 131072, 0));
    assert_status_ok(plan_build(&p, &m, &o));
    assert_in_range(p.degree, 1, 8); /* much to hide behind: overlap */
    plan_free(&p);
    cost.link_bw = 1e15;
    cost.message_s = 0;
    assert_status_ok(plan_build(&p, &m, &o));
    assert_int_equal(p.degree, 0); /* free transfers: one call is cheapest */
    plan_free(&p);
    mask_free(&m);

    cost = cost_default(32, 8, 64);
    for (int degree = 0; degree <= 4; degree += 2) {
        assert_status_ok(mask_causal(&m, 8192, 8192, 0));
        o.degree = degree;
        assert_status_ok(plan_build(&p, &m, &o));
        for (int r = 0; r < 8; r++) {
            RankPlan rp;
            CostStage stages[5];
            plan_rank(&p, r, &rp);
            plan_cost_stages(&p, &rp, &cost, stages);
            for (int back = 0; back < 2; back++) {
                CostTimeline t = back ? cost_backward(&cost, stages, rp.n_stages, true)
                                      : cost_forward(&cost, stages, rp.n_stages, true);
                double busy[2] = {0}, end[2] = {0};
                for (int i = 0; i < t.n_intervals; i++) {
                    CostInterval x = t.intervals[i];
                    assert_true(x.begin >= end[x.stream] && x.end > x.begin && x.end <= t.seconds);
                    busy[x.stream] += x.end - x.begin;
                    end[x.stream] = x.end;
                }
                assert_true(busy[COST_COMPUTE] <= t.seconds && busy[COST_COMM] <= t.seconds);
                double exposed = t.seconds - busy[COST_COMPUTE] - t.exposed;
                assert_true(exposed < 1e-12 && exposed > -1e-12);
                if (degree == 0) /* nothing overlaps */
                    assert_true(t.seconds > 0.999 * (busy[COST_COMPUTE] + busy[COST_COMM]));
                else
                    assert_true(t.seconds < busy[COST_COMPUTE] + busy[COST_COMM]);
                cost_timeline_free(&t);
            }
            rank_plan_free(&rp);
        }
        plan_free(&p);
        mask_free(&m);
    }
}

static void a_broken_plan_is_noticed(void **state) {
    (void)state;
    int32_t begin[] = {0, 40, 100};
    Mask m;
    AttnPlan p;
    assert_status_ok(mask_documents(&m, 128, begin, 3, 0));
    PlanOptions o = {.backend = BACKEND_MAGI, .degree = 1, .dispatch = {.P = 4, .chunk = 8}};
    assert_status_ok(plan_build(&p, &m, &o));
    assert_status_ok(plan_check(&p));
    p.need[0].end--; /* a row too few */
    assert_status_fails(plan_check(&p), ERR_USER, "plan: ");
    p.need[0].end += 2; /* a row too many, even where the counts agree */
    p.ranks[0].recv_rows++;
    assert_status_fails(plan_check(&p), ERR_USER, "plan: ");
    p.need[0].end--;
    p.ranks[0].recv_rows--;
    assert_status_ok(plan_check(&p));
    mask_free(&p.mask); /* pairs that the areas in brief do not know */
    assert_status_ok(mask_causal(&p.mask, 128, 64, 0));
    assert_status_fails(plan_check(&p), ERR_USER, "plan: ");
    plan_free(&p);
    mask_free(&m);
}

static void impossible_plans_are_refused(void **state) {
    (void)state;
    Mask m;
    AttnPlan p;
    assert_status_ok(mask_causal(&m, 8192, 8192, 0));
    PlanOptions o = {.backend = BACKEND_NONE, .dispatch.P = 2};
    assert_status_fails(plan_build(&p, &m, &o), ERR_USER,
                        "parallel.backend: none works on one rank");
    o = (PlanOptions){.backend = BACKEND_MAGI, .degree = 9, .dispatch.P = 2};
    assert_status_fails(plan_build(&p, &m, &o), ERR_USER, "parallel.overlap_degree: 9");
    o.degree = 0;
    o.dispatch.chunk = 9000;
    assert_status_fails(plan_build(&p, &m, &o), ERR_USER, "parallel.chunk_size");
    o.dispatch.chunk = 0;
    assert_status_ok(plan_build(&p, &m, &o));
    assert_status_fails(plan_check(&p), ERR_USER, "at most 4096 tokens");
    plan_free(&p);
    mask_free(&m);
}

/* Chunks of one to three tokens: as many as there are rows. 65,528 = 8 x 8,191, a prime number: no
 * zigzag of whole pieces, and no blocks that fill every rank. */
static void planning_tiny_chunks_takes_no_longer_than_coarse_ones(void **state) {
    (void)state;
    static const struct {
        int64_t S, docs, chunk;
        int ranks_per_node;
    } cases[] = {{65528, 1, 1, 0},
                 {65528, 16, 1, 0},
                 {65536, 64, 1, 0},
                 {65536, 16, 2, 4},
                 {65521, 16, 3, 0}};
    enum { P = 8, CPU_SECONDS = 10 };
    int32_t *begin = NEW(int32_t, 65536);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Draw draw = {.seed = 23 + i};
        Mask m;
        AttnPlan p;
        RankPlan rp;
        int64_t S = cases[i].S, n = 1;
        begin[0] = 0;
        if (cases[i].docs > 1) n = draw_documents(&draw, S, 2 * S / cases[i].docs, begin);
        PlanOptions o = {.backend = BACKEND_MAGI,
                         .degree = 2,
                         .dispatch = {.P = P,
                                      .chunk = cases[i].chunk,
                                      .ranks_per_node = cases[i].ranks_per_node}};
        assert_status_ok(mask_documents(&m, S, begin, n, 0));
        clock_t start = clock(); /* CPU time */
        assert_status_ok(plan_build(&p, &m, &o));
        int64_t bands = 0, rows = 0;
        for (int r = 0; r < P; r++) {
            plan_rank(&p, r, &rp);
            for (int k = 0; k < rp.n_stages; k++) bands += rp.stages[k].n_bands;
            rows += rp.rows;
            rank_plan_free(&rp);
        }
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (seconds > CPU_SECONDS) fail_msg("case %d: %.1f s of CPU time", (int)i, seconds);
        assert_true(bands < 4000000);
        assert_int_equal(rows, p.dispatch.padded);
        assert_true(plan_summary(&p).imbalance < 0.06);
        plan_free(&p);
        mask_free(&m);
    }
    free(begin);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_band_lists_are_planned_exactly),
        cmocka_unit_test(random_document_layouts_are_planned_exactly),
        cmocka_unit_test(published_masks_are_planned_exactly),
        cmocka_unit_test(degenerate_plans_are_exact),
        cmocka_unit_test(one_rank_runs_the_mask_itself_under_every_backend),
        cmocka_unit_test(a_causal_ring_has_the_three_shapes_of_transformer_engine),
        cmocka_unit_test(causal_volumes_are_those_of_the_closed_form),
        cmocka_unit_test(stages_are_cut_evenly_and_from_different_owners),
        cmocka_unit_test(plans_are_reproducible_and_hashes_tell_them_apart),
        cmocka_unit_test(bytes_follow_from_rows_and_heads),
        cmocka_unit_test(the_degree_is_chosen_by_predicted_time),
        cmocka_unit_test(a_broken_plan_is_noticed),
        cmocka_unit_test(impossible_plans_are_refused),
        cmocka_unit_test(planning_tiny_chunks_takes_no_longer_than_coarse_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
