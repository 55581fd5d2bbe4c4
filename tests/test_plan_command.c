/* test_plan_command.c: `cria plan`. Run it from the repository root. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/plan.h"
#include "config_text.h"
#include "cp/cp.h"
#include "data/loader.h"
#include "report_text.h"
#include "mask_cases.h"
#include "report/plan_svg.h"
#include "token_files.h"

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
        cmocka_unit_test(a_run_is_planned_for_ranks_that_are_not_there),
        cmocka_unit_test(time_and_cards_are_estimated),
        cmocka_unit_test(documents_come_from_the_first_micro_batch_or_are_drawn),
        cmocka_unit_test(a_mask_file_takes_the_place_of_the_mask),
        cmocka_unit_test(pictures_go_to_the_file_that_is_named),
        cmocka_unit_test(what_cannot_be_planned_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
