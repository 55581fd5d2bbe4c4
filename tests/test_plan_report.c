#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "report/plan_report.h"
#include "report/plan_svg.h"
#include "cp/cp.h"
#include "report_text.h"
#include "mask_cases.h"
#include "token_files.h"

/* ---- plans ------------------------------------------------------------------------------------
 */

static AttnPlan pack_plan(CpBackend backend, int P, int64_t S, int ranks_per_node) {
    int32_t *begin = NEW(int32_t, S);
    Mask mask;
    AttnPlan plan;
    CostModel cost = cost_default(32, 8, 64);
    PlanOptions o = {.backend = backend,
                     .dispatch = {.P = P, .ranks_per_node = ranks_per_node},
                     .degree = -1,
                     .cost = &cost};
    assert_status_ok(mask_documents(&mask, S, begin, draw_pack(1, S, begin), 0));
    assert_status_ok(plan_build(&plan, &mask, &o));
    mask_free(&mask);
    free(begin);
    return plan;
}

/* Those for several ranks. */
static const CpBackend first_backend = BACKEND_NONE + 1;
enum { N_BACKENDS = CP_BACKENDS - 1 };

static void the_json_report_says_what_the_plan_says(void **state) {
    (void)state;
    CostModel cost = cost_default(32, 8, 64);
    for (int i = 0; i < 2 * N_BACKENDS; i++) {
        int P = i < N_BACKENDS ? 8 : 80; /* exact, equal stages */
        AttnPlan plan = pack_plan(first_backend + (CpBackend)i % N_BACKENDS, P, 32768, 4);
        AttnPlan ring = pack_plan(BACKEND_RING, P, 32768, 4);
        PlanReport report = {&plan, &ring, 1, &cost};
        StrBuf out = {0};
        plan_report_json(&report, &out);
        const char *text = strbuf_text(&out);
        assert_valid_json(text);
        PlanSummary s = plan_summary(&plan);
        PlanBytes bytes = plan_bytes(&plan, &cost);
        assert_true(sum_at(text, "per_rank", P, "area") == (double)s.area);
        assert_true(sum_at(text, "per_rank", P, "recv_rows") == (double)s.recv_rows);
        assert_true(sum_at(text, "per_rank", P, "send_rows") == (double)s.recv_rows);
        assert_true(number_at(text, "area") == (double)mask_area(&plan.mask));
        assert_true(number_at(text, "bytes.forward") == (double)bytes.forward);
        assert_true(number_at(text, "bytes.backward") == (double)bytes.backward);
        assert_true(number_at(text, "stages") == plan.n_stages);
        assert_json(text, "prediction.exact", P == 8 ? "true" : "false");
        assert_json(text, "backends.1.backend", "\"ring\"");

        /* The slowest rank is the one of the table, and takes what its intervals take. */
        int slowest = (int)number_at(text, "prediction.slowest_rank");
        char path[64];
        snprintf(path, sizeof path, "per_rank.%d.backward_seconds", slowest);
        assert_true(number_at(text, path) == number_at(text, "prediction.backward.seconds"));
        assert_true(number_at(text, path) == number_at(text, "backends.0.backward.seconds"));
        RankTimes t = plan_rank_times(&plan, slowest, &cost, true);
        double last = 0;
        for (int k = 0; k < t.forward.n_intervals; k++)
            if (t.forward.intervals[k].end > last) last = t.forward.intervals[k].end;
        assert_true(last == t.forward.seconds);
        rank_times_free(&t);
        strbuf_free(&out);
        plan_free(&plan);
        plan_free(&ring);
    }
}

/* What thousands of ranks are judged by is near what the real stages give. */
static void equal_stages_hold_the_same_work_as_real_ones(void **state) {
    (void)state;
    CostModel cost = cost_default(32, 8, 64);
    for (int i = 0; i < 2 * N_BACKENDS; i++) {
        CpBackend backend = first_backend + (CpBackend)(i / 2);
        int per_node = i % 2 ? 0 : 8;
        AttnPlan plan = pack_plan(backend, 16, 65536, per_node);
        for (int r = 0; r < plan.P; r++) {
            RankPlan rp;
            CostStage *real = NEW(CostStage, plan.n_stages), *equal = NEW(CostStage, plan.n_stages);
            int64_t area[2] = {0}, in[2] = {0};
            plan_rank(&plan, r, &rp);
            plan_cost_stages(&plan, &rp, &cost, real);
            plan_cost_equal(&plan, r, &cost, equal);
            for (int k = 0; k < plan.n_stages; k++) {
                area[0] += real[k].tile_area, area[1] += equal[k].tile_area;
                in[0] += real[k].in[0], in[1] += equal[k].in[0];
            }
            /* bands cut at stages touch a few more tiles; a stage waits for the larger of its two
             * directions, and the sum over stages of that is at least the larger sum */
            assert_true(area[1] <= area[0] && 2 * area[1] >= area[0]);
            assert_true(in[1] <= in[0] + plan.n_stages && 2 * in[1] >= in[0]);
            if (cp_backend_is(backend, BACKEND_NEEDED_ROWS) && per_node > 0) {
                int64_t far = 0, recv = 0;
                for (int k = 0; k < rp.n_stages; k++)
                    for (int n = 0; n < rp.stages[k].n_recv; n++) {
                        const PlanSegment *s = &rp.stages[k].recv[n];
                        recv += s->rows;
                        if (s->peer / 8 != r / 8) far += s->rows;
                    }
                double share = recv > 0 ? (double)far / (double)recv : 0;
                double found = equal[plan.n_stages - 1].far;
                if (found < share - 1e-9 || found > share + 1e-9)
                    fail_msg("rank %d: %g of its rows cross nodes, not %g", r, share, found);
            }
            free(real);
            free(equal);
            rank_plan_free(&rp);
        }
        plan_free(&plan);
    }
}

static void the_text_report_has_a_line_for_each_rank_and_backend(void **state) {
    (void)state;
    CostModel cost = cost_default(32, 8, 64);
    AttnPlan plan = pack_plan(BACKEND_MAGI, 8, 16384, 0),
             ring = pack_plan(BACKEND_RING, 8, 16384, 0);
    PlanReport report = {&plan, &ring, 1, &cost};
    StrBuf out = {0};
    plan_report_text(&report, &out);
    for (int r = 0; r < 8; r++) {
        char line[64];
        snprintf(line, sizeof line, "\n  %-8d%17ld", r, (long)plan.ranks[r].area);
        assert_non_null(strstr(strbuf_text(&out), line));
    }
    assert_non_null(strstr(strbuf_text(&out), "\n> magi "));
    assert_non_null(strstr(strbuf_text(&out), "\n  ring "));
    assert_non_null(strstr(strbuf_text(&out), "attention |0"));
    strbuf_free(&out);
    plan_free(&plan);
    plan_free(&ring);
}

static void pictures_are_well_formed_and_small_for_every_backend_and_size(void **state) {
    (void)state;
    static const struct {
        int P;
        int64_t S;
    } sizes[] = {{1, 100}, {1, 1 << 20}, {2, 9}, {3, 1000}, {8, 8192}, {64, 65536}, {300, 1 << 20}};
    CostModel cost = cost_default(32, 8, 64);
    for (int i = 0; i < 7; i++)
        for (CpBackend b = first_backend; b < CP_BACKENDS; b++) {
            AttnPlan plan =
                pack_plan(sizes[i].P == 1 ? BACKEND_NONE : b, sizes[i].P, sizes[i].S, 0);
            StrBuf out = {0};
            plan_svg(&(const AttnPlan *){&plan}, 1, &cost, &out);
            int elements = assert_well_formed_xml(strbuf_text(&out));
            assert_in_range(elements, 20, 4000);
            assert_in_range(out.len, 2000, 1 << 20);
            assert_null(strstr(strbuf_text(&out), "nan"));
            assert_null(strstr(strbuf_text(&out), "inf\""));
            strbuf_free(&out);
            plan_free(&plan);
        }
}

/* Pixels that the path of one colour at full strength covers. */
static int64_t covered(const char *svg, const char *colour) {
    char start[64];
    snprintf(start, sizeof start, "<path fill=\"%s\" fill-opacity=\"1.00\" d=\"", colour);
    const char *at = strstr(svg, start);
    int64_t pixels = 0;
    int x, y, width, height, used;
    if (at == NULL) return 0;
    for (at += strlen(start);
         sscanf(at, "M%d %dh%dv%dh-%*dz%n", &x, &y, &width, &height, &used) == 4; at += used)
        pixels += (int64_t)width * height;
    assert_true(*at == '"');
    return pixels;
}

/* Full mask, two ranks, contiguous: four quarters, local ones in full colour, remote ones lighter.
 */
static void a_picture_shows_ranks_by_colour_and_stages_by_lightness(void **state) {
    (void)state;
    Mask mask;
    AttnPlan plan;
    CostModel cost = cost_default(32, 8, 64);
    PlanOptions o = {.backend = BACKEND_MAGI, .dispatch = {.P = 2}, .degree = 1};
    assert_status_ok(mask_full(&mask, 4096, 4096));
    assert_status_ok(plan_build(&plan, &mask, &o));
    StrBuf out = {0};
    plan_svg(&(const AttnPlan *){&plan}, 1, &cost, &out);
    const char *svg = strbuf_text(&out);
    assert_int_equal(covered(svg, "#4e79a7"), 256 * 256);
    assert_int_equal(covered(svg, "#f28e2b"), 256 * 256);
    assert_int_equal(covered(svg, "#9eb5cf"), 256 * 256); /* 45 % white */
    assert_int_equal(covered(svg, "#f8c18a"), 256 * 256);
    strbuf_free(&out);
    plan_free(&plan);
    mask_free(&mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_json_report_says_what_the_plan_says),
        cmocka_unit_test(equal_stages_hold_the_same_work_as_real_ones),
        cmocka_unit_test(the_text_report_has_a_line_for_each_rank_and_backend),
        cmocka_unit_test(pictures_are_well_formed_and_small_for_every_backend_and_size),
        cmocka_unit_test(a_picture_shows_ranks_by_colour_and_stages_by_lightness),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
