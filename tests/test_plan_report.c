#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "report/plan_report.h"
#include "report/plan_svg.h"
#include "config_text.h"
#include "cp/cp.h"
#include "base/json.h"
#include "mask_cases.h"
#include "token_files.h"
#include "cli/plan.h"

/* ---- reading reports --------------------------------------------------------------------------
 */

/* The text of the value at `path` ("a.b.3.c") of a whole JSON text that must be valid. */
static char *json_at(const char *text, const char *path) {
    Json j;
    json_start(&j, text, (int64_t)strlen(text));
    for (const char *part = path; *part != '\0';) {
        size_t n = strcspn(part, ".");
        bool found = false;
        if (json_peek(&j) == '[') {
            json_array(&j);
            for (int i = atoi(part); (found = json_array_next(&j)) && i > 0; i--) json_skip(&j);
        } else {
            char *key;
            json_object(&j);
            while (!found && json_object_next(&j, &key)) {
                found = strncmp(key, part, n) == 0 && key[n] == '\0';
                if (!found) json_skip(&j);
                free(key);
            }
        }
        if (!found) fail_msg("%s: there is no '%s' in %s", path, part, text);
        part += n + (part[n] == '.');
    }
    json_peek(&j);
    int64_t begin = j.pos;
    json_skip(&j);
    if (j.error != NULL) fail_msg("%s: %s at byte %ld", path, j.error, (long)j.pos);
    return mem_printf("%.*s", (int)(j.pos - begin), text + begin);
}

static double number_at(const char *text, const char *path) {
    char *value = json_at(text, path), *end;
    double x = strtod(value, &end);
    if (end == value || *end != '\0') fail_msg("%s: '%s' is no number", path, value);
    free(value);
    return x;
}

static void assert_json(const char *text, const char *path, const char *expected) {
    char *value = json_at(text, path);
    if (strcmp(value, expected) != 0) fail_msg("%s: '%s', expected '%s'", path, value, expected);
    free(value);
}

static double sum_at(const char *text, const char *array, int n, const char *key) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s.%d.%s", array, i, key);
        sum += number_at(text, path);
    }
    return sum;
}

static void assert_valid_json(const char *text) {
    Json j;
    json_start(&j, text, (int64_t)strlen(text));
    json_skip(&j);
    json_end(&j);
    if (j.error != NULL) fail_msg("%s at byte %ld of %s", j.error, (long)j.pos, text);
}

/* Well-formed as far as this writer goes: tags nest, attributes are quoted, text has no bare & or
 * <. Returns the number of elements. */
static int assert_well_formed_xml(const char *s) {
    const char *open[32];
    size_t length[32];
    int depth = 0, elements = 0;
    for (; *s != '\0'; s++) {
        assert_true(*s != '&' && *s != '>');
        if (*s != '<') continue;
        bool closing = *++s == '/';
        const char *name = s += closing;
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz");
        assert_true(n > 0);
        s += n;
        if (closing) {
            assert_true(depth > 0 && length[depth - 1] == n &&
                        memcmp(open[depth - 1], name, n) == 0);
            depth--;
        } else {
            elements++;
            while (*s == ' ') {
                s += 1 + strcspn(s + 1, "=<> ");
                assert_true(s[0] == '=' && s[1] == '"');
                s += 2 + strcspn(s + 2, "\"<&");
                assert_true(*s == '"');
                s++;
            }
            if (*s == '/') {
                s++;
            } else {
                assert_true(depth < 32);
                open[depth] = name;
                length[depth++] = n;
            }
        }
        assert_true(*s == '>');
    }
    assert_int_equal(depth, 0);
    return elements;
}

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

/* ---- the command ------------------------------------------------------------------------------
 */

#define FOUR_RANKS "parallel:\n  cp: 4\nbatch:\n  global: 8\n  micro: 2\n"

static char *report_of(const char *more, const PlanCommandOptions *options) {
    Config c;
    StrBuf text = {0}, out = {0};
    strbuf_printf(&text, "%s%s", LEAST, more);
    assert_status_ok(parse(&c, strbuf_text(&text)));
    assert_status_ok(plan_command_run(&c, options, &out));
    config_free(&c);
    strbuf_free(&text);
    return out.text;
}

static void a_run_is_planned_for_ranks_that_are_not_there(void **state) {
    (void)state;
    char *text =
        report_of(FOUR_RANKS "device: cuda\n", &(PlanCommandOptions){.ranks = 8, .json = true});
    assert_valid_json(text);
    assert_json(text, "data", "null");
    assert_json(text, "world", "{\"ranks\":8,\"dp\":2,\"cp\":4,\"device\":\"cuda\"}");
    assert_json(text, "batch.micro_steps", "2");
    assert_json(text, "batch.epochs", "null");
    assert_json(text, "memory.act_bytes", "2");
    assert_json(text, "mask.source", "\"causal\"");
    assert_json(text, "plan.tokens", "64");
    /* 2 bytes a weight, 4 a gradient, 12 of optimizer state shared by 8 ranks; all with padding */
    double weights = number_at(text, "memory.regions.1.bytes");
    assert_json(text, "memory.regions.1.name", "\"weights\"");
    assert_true(weights >= 2 * number_at(text, "model.parameters"));
    assert_true(number_at(text, "memory.regions.2.bytes") == 2 * weights);
    assert_true(number_at(text, "memory.bytes_per_rank") ==
                sum_at(text, "memory.regions", 6, "bytes"));
    double step = number_at(text, "estimate.step_seconds");
    assert_true(step > 0 && number_at(text, "estimate.run_seconds") >= step);
    assert_in_range(number_at(text, "estimate.tok_s") * step + 0.5, 8 * 32 - 1, 8 * 32 + 1);
    free(text);

    text = report_of(FOUR_RANKS "device: cpu\n", &(PlanCommandOptions){.json = true});
    assert_json(text, "estimate", "null");
    assert_json(text, "world.ranks", "4"); /* as many as parallel.cp */
    assert_json(text, "memory.act_bytes", "4");
    free(text);

    text = report_of(FOUR_RANKS, &(PlanCommandOptions){.ranks = 8});
    assert_non_null(strstr(text, "8 ranks on GPUs (bf16) = dp 2 x cp 4 (magi)"));
    assert_non_null(strstr(text, "is not used: cannot open token file a.bin"));
    free(text);
}

/* The example 1B: 73.7 k tokens/s were measured on one H200, 88.7 k in FP8 (README). */
static void time_and_cards_are_estimated(void **state) {
    (void)state;
    static const struct {
        const char *override[3], *expected[2];
    } cases[] = {
        {{"batch.micro=1", "parallel.cp=1"},
         {"speed      about 70.6 k tokens/s on 1 rank, 1.86 s a step; 2.1 days for 100000 steps\n",
          "80 GB 37 % full, 141 GB 21 % full\n           more of 80 GB with batch.micro=8: "}},
        {{"precision=fp8", "parallel.cp=1", "batch.micro=1"},
         {"speed      about 85.8 k tokens/s on 1 rank",
          "at 560 (FP8 840) TFLOP/s, attention as planned;\n"}},
        {{"batch.micro=4", "parallel.cp=1"}, {"80 GB 5", "141 GB 3"}},
        {{"batch.micro=16", "parallel.cp=1"},
         {"80 GB too small, 141 GB 8", "           fits 80 GB with batch.micro=8: "}},
        {{"batch.micro=1", "parallel.cp=1", "model.layers=200"},
         {"80 GB too small, 141 GB too small", "least is memory.recompute=layer: "}},
        {{"device=cpu", "parallel.cp=1"},
         {"speed      not estimated for CPUs", "memory per rank"}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        StrBuf out = {0};
        char *overrides[4] = {mem_strdup("device=cuda")};
        int n = 1;
        for (; n < 4 && cases[i].override[n - 1] != NULL; n++)
            overrides[n] = mem_strdup(cases[i].override[n - 1]);
        assert_status_ok(config_load(&c, "configs/llama-1b-example.yaml", n, overrides));
        assert_status_ok(plan_command_run(&c, &(PlanCommandOptions){.ranks = 1}, &out));
        for (int k = 0; k < 2; k++)
            if (strstr(strbuf_text(&out), cases[i].expected[k]) == NULL)
                fail_msg("'%s' is not in %s", cases[i].expected[k], strbuf_text(&out));
        for (const char *at = strbuf_text(&out); *at != '\0';) {
            size_t length = strcspn(at, "\n");
            if (length >= 100) fail_msg("%zu columns: %.*s", length, (int)length, at);
            at += length + (at[length] == '\n');
        }
        while (n > 0) free(overrides[--n]);
        strbuf_free(&out);
        config_free(&c);
    }
}

static void documents_come_from_the_first_micro_batch_or_are_drawn(void **state) {
    (void)state;
    char *text =
        report_of("  mask: document\n  eod: 7\n" FOUR_RANKS, &(PlanCommandOptions){.json = true});
    assert_json(text, "mask.source", "\"drawn\"");
    double drawn = number_at(text, "mask.documents");
    assert_true(drawn >= 8); /* each at most a quarter of one of two sequences */
    assert_true(number_at(text, "plan.bands") == drawn);
    free(text);

    /* With the file there: the plan is the one that training makes of its first micro-batch. */
    uint16_t ids[1000];
    for (int i = 0; i < 1000; i++) ids[i] = (uint16_t)(i % 11);
    char more[512];
    snprintf(more, sizeof more, "  mask: document\n  eod: 7\n  val: []\n%s", FOUR_RANKS);
    Config c;
    StrBuf out = {0};
    char *override = mem_printf("data.train=%s", write_ids("train.bin", ids, 1000));
    char *all = mem_printf("%s%s", LEAST, more);
    assert_status_ok(config_parse(&c, "t.yaml", all, strlen(all), 1, &override));
    assert_status_ok(plan_command_run(&c, &(PlanCommandOptions){.json = true}, &out));
    assert_json(strbuf_text(&out), "mask.source", "\"first micro-batch\"");
    assert_json(strbuf_text(&out), "mask.no_data", "null");

    Dataset *data;
    MicroBatch mb;
    DatasetOptions d = {.sources = c.data.train,
                        .n_sources = 1,
                        .format = c.data.format,
                        .seq_len = 32,
                        .vocab = 256,
                        .seed = (uint64_t)c.run.seed,
                        .shuffle = true};
    LoaderOptions l = {
        .global = 8, .micro = 2, .dp_size = 1, .seq_len = 32, .eod = 7, .documents = true};
    CpOptions o = {.backend = BACKEND_MAGI,
                   .size = 4,
                   .overlap_degree = -1,
                   .tokens = 64,
                   .seq_len = 32,
                   .mask.kind = MASK_DOCUMENT,
                   .H = 4,
                   .K = 2,
                   .D = 16};
    assert_status_ok(dataset_open(&data, &d));
    assert_status_ok(loader_batch(&mb, data, &l, 0, 0));
    CpBatch *batch = cp_batch_create(&o, &mb);
    char hash[32];
    snprintf(hash, sizeof hash, "\"%016llx\"", (unsigned long long)batch->hash);
    assert_json(strbuf_text(&out), "plan.hash", hash);
    assert_true(number_at(strbuf_text(&out), "mask.documents") == mb.n_docs);
    assert_true(number_at(strbuf_text(&out), "plan.area") == batch->area);
    cp_batch_free(batch);
    loader_batch_free(&mb, &l);
    dataset_close(data);
    config_free(&c);
    strbuf_free(&out);
    free(override);
    free(all);
}

static void a_mask_file_takes_the_place_of_the_mask(void **state) {
    (void)state;
    const char *slices = "0 16 0 16 FULL\n16 32 16 32 CAUSAL\n";
    PlanCommandOptions o = {.json = true, .mask_file = write_bytes("mask", slices, strlen(slices))};
    char *text = report_of(FOUR_RANKS, &o);
    assert_json(text, "mask.source", "\"file\"");
    double area = 16 * 16 + 16 * 17 / 2; /* of a sequence */
    assert_true(number_at(text, "plan.area") == 2 * area);
    char *same = mem_printf("data.mask: slices\ndata.mask_file: %s\n" FOUR_RANKS, o.mask_file);
    free(text);
    text = report_of(same, &(PlanCommandOptions){.json = true});
    assert_json(text, "mask.source", "\"file\"");
    assert_true(number_at(text, "plan.area") == 2 * area);
    free(same);
    free(text);
}

static void pictures_go_to_the_file_that_is_named(void **state) {
    (void)state;
    PlanCommandOptions o = {.svg = in_folder("plan.svg")};
    free(report_of(FOUR_RANKS, &o));
    FILE *f = fopen(o.svg, "r");
    assert_non_null(f);
    StrBuf svg = {0};
    for (int c; (c = fgetc(f)) != EOF;) strbuf_printf(&svg, "%c", c);
    fclose(f);
    assert_true(assert_well_formed_xml(strbuf_text(&svg)) > 20);
    strbuf_free(&svg);
}

static void what_cannot_be_planned_is_refused(void **state) {
    (void)state;
    Config c;
    StrBuf out = {0};
    assert_status_ok(parse(&c, LEAST FOUR_RANKS));
    assert_status_fails(plan_command_run(&c, &(PlanCommandOptions){.ranks = 6}, &out), ERR_USER,
                        "parallel.cp: found 4 on 6 ranks");
    assert_status_fails(plan_command_run(&c, &(PlanCommandOptions){.ranks_per_node = 3}, &out),
                        ERR_USER, "nodes of 3");
    assert_status_fails(plan_command_run(&c, &(PlanCommandOptions){.mask_file = "/nowhere"}, &out),
                        ERR_USER, "/nowhere");
    assert_status_fails(plan_command_run(&c, &(PlanCommandOptions){.svg = "/nowhere/a.svg"}, &out),
                        ERR_USER, "/nowhere/a.svg");
    config_free(&c);
    strbuf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_json_report_says_what_the_plan_says),
        cmocka_unit_test(equal_stages_hold_the_same_work_as_real_ones),
        cmocka_unit_test(the_text_report_has_a_line_for_each_rank_and_backend),
        cmocka_unit_test(pictures_are_well_formed_and_small_for_every_backend_and_size),
        cmocka_unit_test(a_picture_shows_ranks_by_colour_and_stages_by_lightness),
        cmocka_unit_test(a_run_is_planned_for_ranks_that_are_not_there),
        cmocka_unit_test(time_and_cards_are_estimated),
        cmocka_unit_test(documents_come_from_the_first_micro_batch_or_are_drawn),
        cmocka_unit_test(a_mask_file_takes_the_place_of_the_mask),
        cmocka_unit_test(pictures_go_to_the_file_that_is_named),
        cmocka_unit_test(what_cannot_be_planned_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
