/* test_stages.c: `stages` and batch.ramp become whole configurations, each with what those before
 * it have set, at the steps that a count by hand gives; every mistake in them is named. */
#include "test.h"

#include <stdlib.h>

#include "config_text.h"

#define STEPS(text) LEAST "run: {steps: 100}\nbatch: {global: 8, micro: 2}\n" text

static void a_stage_keeps_what_the_ones_before_have_set(void **state) {
    (void)state;
    Config c;
    assert_status_ok(
        parse(&c, STEPS("optim: {lr: 1e-3, min_lr: 1e-4}\n"
                        "stages:\n"
                        "  - from: 10\n"
                        "    model: {seq_len: 64, rope_theta: 1e6}\n"
                        "    data: {train: [{path: b.bin, weight: 3}, {path: c.bin, weight: 1}]}\n"
                        "  - {from: 20, optim: {lr: 5e-4, schedule: wsd}, batch.global: 16}\n"
                        "  - {from: 30, model.seq_len: 16, data: {window: 8}}\n")));
    assert_int_equal(config_n_stages(&c), 4);
    const Config *s[4];
    for (int k = 0; k < 4; k++) {
        s[k] = config_of_stage(&c, k);
        assert_int_equal(config_stage_from(&c, k), 10 * k);
        assert_int_equal(config_steps(s[k]), k < 3 ? 10 : 70);
        assert_int_equal(config_n_stages(s[k]), 1);
        assert_int_equal(s[k]->model.head_dim, 16); /* what is derived is so in each of them */
    }
    assert_int_equal(s[0]->model.seq_len, 32);
    assert_string_equal(s[0]->data.train[0].path, "a.bin");
    assert_int_equal(s[1]->model.seq_len, 64);
    assert_float_equal(s[1]->model.rope_theta, 1e6, 0);
    assert_int_equal(s[1]->batch.global, 8);
    assert_int_equal(s[2]->model.seq_len, 64);
    assert_int_equal(s[2]->data.n_train, 2);
    assert_float_equal(s[2]->optim.lr, 5e-4, 0);
    assert_float_equal(s[2]->optim.min_lr, 1e-4, 0);
    assert_int_equal(s[0]->optim.decay_steps, 100); /* cosine: all steps; wsd: a tenth of them */
    assert_int_equal(s[2]->optim.decay_steps, 10);
    assert_int_equal(s[3]->model.seq_len, 16);
    assert_int_equal(s[3]->data.window, 8);
    assert_int_equal(s[3]->batch.global, 16);
    assert_float_equal(c.optim.lr, 1e-3, 0); /* the file's own keys */
    /* 10 steps of 8 x 32 tokens, 10 of 8 x 64, 10 of 16 x 64 */
    assert_float_equal(c.timeline[3].tokens, 2560 + 5120 + 10240, 0);
    /* update 10 is the last of the first stage */
    static const struct {
        int64_t step;
        int stage;
    } at[] = {{0, 0}, {1, 0}, {10, 0}, {11, 1}, {20, 1}, {21, 2}, {31, 3}, {100, 3}, {1000, 3}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        assert_int_equal(config_stage_at(&c, at[i].step), at[i].stage);
    StrBuf taken = {0};
    config_print_stages(&c, 0, 21, &taken);
    assert_string_equal(taken.text,
                        "[{\"from\": 10, \"model.seq_len\": 64, \"model.rope_theta\": 1000000, "
                        "\"data.train\": [{\"path\": \"b.bin\", \"weight\": 3}, {\"path\": "
                        "\"c.bin\", \"weight\": 1}]}, {\"from\": 20, \"batch.global\": 16, "
                        "\"optim.lr\": 0.0005, \"optim.schedule\": \"wsd\"}]");
    strbuf_free(&taken);
    config_take_stage(&c, 2);
    assert_int_equal(config_n_stages(&c), 1);
    assert_int_equal(c.batch.global, 16);
    config_free(&c);
}

static void a_begin_in_tokens_is_rounded_up_to_a_step(void **state) {
    (void)state;
    Config c;
    /* 256 tokens a step; from step 4 on 512 */
    assert_status_ok(parse(&c, STEPS("stages: [{from_tokens: 1024, batch.global: 16}, "
                                     "{from_tokens: 1025, optim.lr: 0.5}, "
                                     "{from_tokens: 2.049e3, optim.lr: 0.25}]\n")));
    assert_int_equal(config_n_stages(&c), 4);
    assert_int_equal(config_stage_from(&c, 1), 4);
    assert_int_equal(config_stage_from(&c, 2), 5);
    assert_int_equal(config_stage_from(&c, 3), 7);
    config_free(&c);
}

/* Also with a stage of its own in the middle, which keeps the batch. */
static void a_ramp_raises_the_batch_by_tokens(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, LEAST
                           "run: {steps: 100}\n"
                           "batch: {global: 8, micro: 1, ramp: {from: 2, step: 2, tokens: 3000}}\n"
                           "stages: [{from: 20, optim.lr: 0.5}]\n"));
    /* rises at 1000, 2000 and 3000 tokens: 16 steps of 64 (1024), 8 of 128 (2048), 5 of 192 */
    static const int64_t from[] = {0, 16, 20, 24, 29}, global[] = {2, 4, 4, 6, 8};
    assert_int_equal(config_n_stages(&c), 5);
    for (int k = 0; k < 5; k++) {
        assert_int_equal(config_stage_from(&c, k), from[k]);
        assert_int_equal(config_of_stage(&c, k)->batch.global, global[k]);
        assert_float_equal(config_of_stage(&c, k)->optim.lr, k < 2 ? 3e-4 : 0.5, 0);
    }
    assert_float_equal(c.timeline[4].tokens, 1024 + 1024 + 5 * 192, 0);
    assert_int_equal(c.batch.global, 8);
    config_free(&c);
    /* rises at 30, 60 and 90 tokens, a step of 64: the first two come together */
    assert_status_ok(parse(&c, LEAST "batch: {global: 8, ramp: {from: 2, step: 2, tokens: 90}}\n"));
    assert_int_equal(config_n_stages(&c), 3);
    assert_int_equal(config_stage_from(&c, 1), 1);
    assert_int_equal(config_of_stage(&c, 1)->batch.global, 6);
    assert_int_equal(config_stage_from(&c, 2), 2);
    assert_int_equal(config_of_stage(&c, 2)->batch.global, 8);
    config_free(&c);
}

/* A shorter run needs no other file; it says so. */
static void what_is_not_reached_is_left_out(void **state) {
    (void)state;
    Config c;
    assert_status_ok(
        parse_with(&c, STEPS("stages: [{from: 10, optim.lr: 0.5}, {from: 50, batch.global: 3}]\n"),
                   "run.steps=50"));
    assert_int_equal(config_n_stages(&c), 2);
    assert_string_equal(c.notes.text,
                        "t.yaml:14: stages: run.steps 50 ends before stages[1] begins (step 50)");
    config_free(&c);
}

static void stages_are_part_of_the_hash(void **state) {
    (void)state;
    Config plain, none, some;
    assert_status_ok(parse(&plain, LEAST));
    assert_status_ok(parse(&none, LEAST "stages: []\n"));
    assert_status_ok(parse(&some, LEAST "stages: [{from: 5, optim.lr: 0.5}]\n"));
    assert_int_equal(config_hash(&plain), config_hash(&none));
    assert_int_not_equal(config_hash(&plain), config_hash(&some));
    StrBuf named = {0};
    assert_int_equal(config_differences(&plain, &some, DIFFERS_COURSE, &named), 1);
    assert_string_equal(named.text, "stages [] -> [{\"from\": 5, \"optim.lr\": 0.5}]");
    strbuf_free(&named);
    config_free(&plain);
    config_free(&none);
    config_free(&some);
}

static void every_mistake_names_its_stage(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"stages: 3\n", "t.yaml:14: stages: found '3', expected a list of {from: STEP or"},
        {"stages: [3]\n", "t.yaml:14: stages: found '3', expected {from: STEP or from_tokens"},
        {"stages:\n  - {from: 5, optim.lr: 0.5}\n  - {optim.lr: 0.1}\n",
         "t.yaml:16: stages[1]: found neither from nor from_tokens, expected the step or token"},
        {"stages: [{from: 5}]\n", "stages[0]: found no key, expected those that change"},
        {"stages: [{from: 0, optim.lr: 1}]\n",
         "stages[0]: from: found '0', expected a number of steps from 1 on"},
        {"stages: [{from: 1.5, optim.lr: 1}]\n", "from: found '1.5', expected a number of steps"},
        {"stages: [{from_tokens: [], optim.lr: 1}]\n",
         "stages[0]: from_tokens: found a list, expected a number of tokens from 1 on"},
        {"stages: [{from: 5, from_tokens: 9, optim.lr: 1}]\n",
         "stages[0]: from_tokens: found a second begin, expected from or from_tokens, once"},
        {"stages: [{from: 5, model.layers: 4}]\n",
         "stages[0]: model.layers: found in a stage, expected one of the keys that may change"},
        {"stages: [{from: 5, stages: []}]\n", "stages[0]: stages: found in a stage"},
        {"stages: [{from: 5, optim: {lrr: 4}}]\n",
         "stages[0]: unknown key 'optim.lrr', did you mean optim.lr?"},
        {"stages: [{from: 5, optim: {lr: high}}]\n",
         "stages[0]: optim.lr: found 'high', expected a number"},
        {"stages: [{from: 5, optim: {lr: 1, lr: 2}}]\n",
         "stages[0]: optim.lr: found twice, expected once"},
        /* order */
        {"stages: [{from: 9, optim.lr: 1}, {from: 5, optim.lr: 2}]\n",
         "t.yaml:14: stages[1]: found from 5, expected one or more steps after the beginning of "
         "the "
         "stage before (step 9, after 2304 tokens)"},
        {"stages: [{from: 9, optim.lr: 1}, {from: 9, optim.lr: 2}]\n", "stages[1]: found from 9"},
        {"stages: [{from: 9, optim.lr: 1}, {from_tokens: 2304, optim.lr: 2}]\n",
         "stages[1]: found from_tokens 2304, expected one or more steps after the beginning"},
        /* what a configuration is checked for, in each stage */
        {"stages: [{from: 5, optim.lr: 1}, {from: 6, batch.global: 9}]\n",
         "t.yaml:13: stages[1]: batch.micro: found 2, expected a divisor of batch.global 9"},
        {"stages: [{from: 5, data.mask: document}]\n",
         "t.yaml:14: stages[0]: data.mask: found document without data.eod"},
        {"stages: [{from: 5, data.train: []}]\n",
         "t.yaml:14: stages[0]: data.train: found an empty list, expected a token file"},
        {"stages: [{from: 5, optim.min_lr: 0.5}]\n",
         "t.yaml:14: stages[0]: optim.min_lr: found 0.5, expected at most optim.lr 0.0003"},
        {"data.order: megatron\nstages: [{from: 5, batch.global: 4}]\n",
         "stages[0]: found batch.global with data.order megatron, expected data.order cria"},
        /* the ramp */
        {"batch.ramp: {from: 2}\n", "batch.ramp.tokens: found 0 with batch.ramp.from 2 and"},
        {"batch.ramp: {from: 2, step: 4, tokens: 9}\n",
         "batch.ramp.step: found 4 from batch.ramp.from 2 on, expected steps that end at "
         "batch.global 8"},
        {"batch.ramp: {from: 8, step: 4, tokens: 9}\n", "expected steps that end at batch.global"},
        {"batch.ramp: {from: 1, step: 1, tokens: 9}\n",
         "batch.ramp.from: batch.micro: found 2, expected a divisor of batch.global 1"},
        {"batch.ramp: {from: 2, step: 2, tokens: 9000}\nstages: [{from: 5, batch.global: 4}]\n",
         "stages[0]: found batch.global before batch.ramp has come to its end, expected it in a "
         "stage from 9000 tokens on"},
        {"data.order: megatron\nbatch.ramp: {from: 2, step: 2, tokens: 9000}\n",
         "batch.ramp.tokens: found 9000 with data.order megatron"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        char *text = mem_printf("%s%s", STEPS(""), cases[i][0]);
        Status st = parse(&c, text);
        if (st != ERR_USER || strstr(status_message(), cases[i][1]) == NULL)
            fail_msg("case %zu: status %d, expected \"%s\", found \"%s\"", i, st, cases[i][1],
                     status_message());
        status_clear();
        config_free(&c);
        free(text);
    }
}

/* The values of an override have no lines by which the second could be told. */
static void an_override_sets_a_key_of_a_stage_once(void **state) {
    (void)state;
    Config c;
    assert_status_fails(
        parse_with(&c, STEPS(""), "stages=[{from: 5, optim.lr: 0.5, optim: {lr: 0.25}}]"), ERR_USER,
        "stages[0]: optim.lr: found twice, expected once");
    config_free(&c);
    assert_status_ok(
        parse_with(&c, STEPS(""), "stages=[{from: 5, optim.lr: 0.5}, {from: 6, optim.lr: 0.25}]"));
    config_free(&c);
}

static void ranks_must_fit_every_stage(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, STEPS("stages: [{from: 5, batch.global: 12}]\n")));
    assert_status_ok(config_check_world(&c, 2));
    assert_status_fails(config_check_world(&c, 4), ERR_USER,
                        "stages[0]: batch.global: found 12, expected a multiple of batch.micro 2");
    config_free(&c);
    assert_status_ok(parse(&c, STEPS("parallel: {cp: 4, backend: ring}\n"
                                     "stages: [{from: 5, model.seq_len: 30}]\n")));
    assert_status_fails(config_check_world(&c, 4), ERR_USER,
                        "stages[0]: model.seq_len: found 30 x batch.micro 2");
    config_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stage_keeps_what_the_ones_before_have_set),
        cmocka_unit_test(a_begin_in_tokens_is_rounded_up_to_a_step),
        cmocka_unit_test(a_ramp_raises_the_batch_by_tokens),
        cmocka_unit_test(what_is_not_reached_is_left_out),
        cmocka_unit_test(stages_are_part_of_the_hash),
        cmocka_unit_test(every_mistake_names_its_stage),
        cmocka_unit_test(an_override_sets_a_key_of_a_stage_once),
        cmocka_unit_test(ranks_must_fit_every_stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
