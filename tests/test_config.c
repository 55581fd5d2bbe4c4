/* test_config.c: reading, the documented file, and help. Run it from the
 * repository root. */
#include "test.h"

#include "config/keys.h"
#include "config_text.h"

#include <stdio.h>
#include <stdlib.h>

static void the_least_config_gets_every_default(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, LEAST));
    assert_string_equal(c.run.dir, "runs/default");
    assert_int_equal(c.run.steps, 1000);
    assert_int_equal(c.run.seed, 1234);
    assert_int_equal(c.model.head_dim, 16); /* 64 / 4 */
    assert_int_equal(c.model.rope_scaling.original, 8192);
    assert_int_equal(c.data.n_train, 1);
    assert_string_equal(c.data.train[0].path, "a.bin");
    assert_int_equal(c.data.n_val, 0);
    assert_int_equal(c.data.eod, -1);
    assert_string_equal(c.data.split, "");
    assert_int_equal(c.optim.schedule, SCHEDULE_COSINE);
    assert_int_equal(c.optim.decay_steps, 1000); /* run.steps */
    assert_true(c.optim.beta2 == 0.95);
    assert_int_equal(c.parallel.backend, BACKEND_MAGI);
    assert_int_equal(c.parallel.overlap_degree, -1);
    assert_true(c.log.jsonl);
    config_free(&c);
}

static void every_type_of_value_is_read(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, LEAST "run: {dir: \"a b\", steps: 7, deterministic: true}\n"
                                     "device: cpu\n"
                                     "optim: {lr: 1.5e-3, schedule: wsd}\n"
                                     "parallel: {overlap_degree: 3, backend: \"ring\"}\n"
                                     "memory:\n"));
    assert_string_equal(c.run.dir, "a b");
    assert_int_equal(c.run.steps, 7);
    assert_true(c.run.deterministic);
    assert_int_equal(c.device, DEVICE_CPU);
    assert_true(c.optim.lr == 1.5e-3);
    assert_int_equal(c.optim.decay_steps, 1); /* a tenth of 7, rounded up */
    assert_int_equal(c.parallel.overlap_degree, 3);
    assert_int_equal(c.parallel.backend, BACKEND_RING);
    assert_string_equal(config_enum_name(c.parallel.backend, "parallel.backend"), "ring");
    config_free(&c);
}

static void token_files_are_a_path_a_list_or_weighted(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse_with(&c, LEAST, "data.train=[a, 'b c', \"d\"]"));
    assert_int_equal(c.data.n_train, 3);
    assert_string_equal(c.data.train[1].path, "b c");
    assert_true(c.data.train[1].weight == 0);
    config_free(&c);
    assert_status_ok(
        parse_with(&c, LEAST, "data.train=[{path: a, weight: 2}, {weight: 0.5, path: b}]"));
    assert_int_equal(c.data.n_train, 2);
    assert_true(c.data.train[0].weight == 2 && c.data.train[1].weight == 0.5);
    assert_string_equal(c.data.train[1].path, "b");
    config_free(&c);
    assert_status_ok(parse_with(&c, LEAST, "data.train=dir/x=y.bin"));
    assert_string_equal(c.data.train[0].path, "dir/x=y.bin");
    config_free(&c);
}

static void evaluation_is_switched_off_in_every_usual_way(void **state) {
    (void)state;
    Config c;
    char *overrides[] = {"data.val=", "data.val=[]", "data.val=null", "data.val=~",
                         "data.val=\"\""};
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        assert_status_ok(parse_with(&c, LEAST "  val: b.bin\n", overrides[i]));
        assert_int_equal(c.data.n_val, 0);
        config_free(&c);
    }
    assert_status_ok(parse(&c, LEAST "  val:\n"));
    assert_int_equal(c.data.n_val, 0);
    config_free(&c);
}

/* What looks like a comment stays where YAML reads it as text. */
static void a_quoted_override_is_taken_as_it_is(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"run.dir=\"exp #3\"", "exp #3"},
                                           {"run.dir='it #1'", "it #1"},
                                           {"run.dir=a#b", "a#b"},
                                           {"run.dir=  x  ", "x"}};
    Config c;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status_ok(parse_with(&c, LEAST, (char *)cases[i][0]));
        assert_string_equal(c.run.dir, cases[i][1]);
        config_free(&c);
    }
}

static void overrides_win_and_the_last_one_wins(void **state) {
    (void)state;
    Config c;
    char *overrides[] = {"model.layers=5", "data.split=", "model.layers=6", "run.dir=x"};
    assert_status_ok(config_parse(&c, "t", LEAST, strlen(LEAST), 4, overrides));
    assert_int_equal(c.model.layers, 6);
    assert_string_equal(c.run.dir, "x");
    config_free(&c);
    /* A whole configuration can come from the command line. */
    char *all[] = {"model.layers=1", "model.hidden=8", "model.heads=1",   "model.kv_heads=1",
                   "model.ffn=8",    "model.vocab=9",  "model.seq_len=4", "data.train=a"};
    assert_status_ok(config_parse(&c, "t", "{}", 2, 8, all));
    config_free(&c);
}

/* Equal in every field, through the table. */
static void an_override_lowers_what_it_leaves_no_room_for(void **state) {
    (void)state;
    static const char file[] = LEAST "optim: {lr: 1e-2, min_lr: 1e-3, warmup_steps: 12}\n"
                                     "run: {steps: 40}\n";
    static const struct {
        char *overrides[2];
        int64_t warmup, decay;
        double min_lr;
        const char *notes;
    } cases[] = {
        {{"run.seed=1", "run.log_every=1"}, 12, 40, 1e-3, ""},
        {{"run.steps=12", "optim.lr=1e-3"}, 12, 12, 1e-3, ""},
        {{"run.steps=5", "run.seed=1"},
         5,
         5,
         1e-3,
         "t.yaml:12: optim.warmup_steps: found 12, lowered to 5 because of run.steps=5"},
        {{"optim.decay_steps=7", "run.seed=1"},
         7,
         7,
         1e-3,
         "t.yaml:12: optim.warmup_steps: found 12, lowered to 7 because of optim.decay_steps=7"},
        {{"optim.schedule=wsd", "run.steps=10"},
         9,
         1,
         1e-3,
         "t.yaml:12: optim.warmup_steps: found 12, lowered to 9 because of run.steps=10"},
        {{"optim.lr=1e-4", "run.steps=6"},
         6,
         6,
         1e-4,
         "t.yaml:12: optim.min_lr: found 0.001, lowered to 0.0001 because of optim.lr=1e-4\n"
         "t.yaml:12: optim.warmup_steps: found 12, lowered to 6 because of run.steps=6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        assert_status_ok(
            config_parse(&c, "t.yaml", file, strlen(file), 2, (char **)cases[i].overrides));
        assert_string_equal(strbuf_text(&c.notes), cases[i].notes);
        assert_int_equal(c.optim.warmup_steps, cases[i].warmup);
        assert_int_equal(c.optim.decay_steps, cases[i].decay);
        assert_true(c.optim.min_lr == cases[i].min_lr);
        config_free(&c);
    }
    /* a final decay gives way, too, and a value that is an override itself does not */
    static const char wsd[] =
        LEAST "optim: {schedule: wsd, warmup_steps: 2, decay_steps: 30}\nrun: {steps: 40}\n";
    char *shorter[] = {"run.steps=10", "optim.warmup_steps=4"};
    Config c;
    assert_status_ok(config_parse(&c, "t.yaml", wsd, strlen(wsd), 2, shorter));
    assert_int_equal(c.optim.warmup_steps, 4);
    assert_int_equal(c.optim.decay_steps, 6);
    config_free(&c);
    char *both[] = {"run.steps=5", "optim.warmup_steps=6"};
    assert_status_fails(config_parse(&c, "t.yaml", file, strlen(file), 2, both), ERR_USER,
                        "optim.warmup_steps: found 6, expected at most the 5 steps");
    config_free(&c);
    char *dear[] = {"optim.lr=1e-4", "optim.min_lr=2e-4"};
    assert_status_fails(config_parse(&c, "t.yaml", file, strlen(file), 2, dear), ERR_USER,
                        "optim.min_lr: found 0.0002, expected at most optim.lr 0.0001");
    config_free(&c);
}

static void the_world_must_fit(void **state) {
    (void)state;
    static const struct {
        int world;
        const char *text, *expected;
    } cases[] = {
        {1, "", NULL},
        {8, "", NULL},
        {8, "parallel: {cp: 3}\n",
         "parallel.cp: found 3 on 8 ranks (8 = 3 x 2 + 2), expected a divisor of the ranks: use "
         "parallel.cp 1 or 2, or 6 or 9 ranks"},
        {2, "parallel: {cp: 4}\n", "use parallel.cp 1 or 2, or 4 ranks"},
        {8, "batch: {global: 20, micro: 2}\nparallel: {cp: 2}\n",
         "batch.global: found 20, expected a multiple of batch.micro 2 x 8 ranks / cp 2 = 8 (20 = "
         "8 "
         "x 2 + 4): use batch.global 16 or 24"},
        {16, "", "(8 = 16 x 0 + 8): use batch.global 16"},
        {4, "parallel: {cp: 4, backend: ulysses}\n",
         "parallel.cp: found 4 with backend ulysses, expected a divisor of model.kv_heads 2"},
        {2, "parallel: {cp: 2, backend: ulysses}\n", NULL},
        {2, "parallel: {cp: 2, backend: ring}\n", NULL},
        {2, "parallel: {cp: 2, backend: ring}\nmodel.seq_len: 30\n",
         "model.seq_len: found 30 x batch.micro 1 = 30 tokens with backend ring, expected a "
         "multiple of 2 x cp 2 = 4: use model.seq_len 28 or 32"},
        {4, "parallel: {cp: 4, chunk_size: 16}\n",
         "= 32 tokens into 2 chunks, expected one or more for each of 4 ranks: use at most 8, or "
         "0"},
        {4, "parallel: {cp: 4, chunk_size: 8}\n", NULL},
        {6, "parallel: {cp: 4, backend: ulysses}\n",
         "2 problems:\nparallel.cp: found 4 on 6 ranks"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Config c;
        bool moved = strstr(cases[i].text, "model.seq_len") != NULL;
        char *text = mem_printf("%s%s", LEAST, cases[i].text);
        if (moved) memcpy(strstr(text, "  seq_len: 32"), "# seq_len: 32", 13);
        assert_status_ok(parse(&c, text));
        if (cases[i].expected == NULL)
            assert_status_ok(config_check_world(&c, cases[i].world));
        else
            assert_status_fails(config_check_world(&c, cases[i].world), ERR_USER,
                                cases[i].expected);
        config_free(&c);
        free(text);
    }
}

static void a_file_that_cannot_be_read_is_named(void **state) {
    (void)state;
    Config c;
    assert_status_fails(config_load(&c, "no/such.yaml", 0, NULL), ERR_USER,
                        "no/such.yaml: cannot open this config: No such file");
    config_free(&c);
    assert_status_fails(config_load(&c, "configs", 0, NULL), ERR_USER,
                        "configs: cannot read this config: it is a directory");
    config_free(&c);
}

/* Removing a key's line from llama-1b.yaml must be noticed: the same key twice is an error, so a
 * key is in the file if and only if setting it once more is refused. */
static void the_documented_file_sets_every_key(void **state) {
    (void)state;
    FILE *f = fopen("configs/llama-1b.yaml", "rb");
    assert_non_null(f);
    char *text = NEW(char, 1 << 20);
    assert_in_range(fread(text, 1, (1 << 20) - 1, f), 1000, (1 << 20) - 2);
    fclose(f);
    for (int i = 0; i < config_n_keys; i++) {
        Config c;
        char *twice = mem_printf("%s\n%s: x\n", text, config_keys[i].name);
        char *expected = mem_printf("%s: found twice", config_keys[i].name);
        assert_status_fails(parse(&c, twice), ERR_USER, expected);
        config_free(&c);
        free(twice);
        free(expected);
    }
    free(text);
}

static void help_names_every_key(void **state) {
    (void)state;
    StrBuf help = {0};
    assert_status_ok(config_print_help("", &help));
    for (int i = 0; i < config_n_keys; i++) {
        char *line = mem_printf("\n  %s: ", config_keys[i].name);
        assert_non_null(strstr(help.text, line));
        StrBuf wrapped = {0};
        strbuf_wrap(&wrapped, config_keys[i].help, 6);
        assert_non_null(strstr(help.text, wrapped.text));
        strbuf_free(&wrapped);
        free(line);
    }
    assert_non_null(strstr(help.text, "  model.layers: an integer from 1 to 1024; required\n"));
    assert_non_null(strstr(help.text, "\nmodel.rope_scaling\n"));
    for (const char *line = help.text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        if (line[0] == ' ' && line[2] == ' ') assert_in_range(end - line, 7, 80);
    strbuf_free(&help);
}

static void help_shows_a_section_or_a_key(void **state) {
    (void)state;
    StrBuf help = {0};
    assert_status_ok(config_print_help("model.rope_scaling", &help));
    assert_non_null(strstr(help.text, "  model.rope_scaling.low: "));
    assert_null(strstr(help.text, "model.heads"));
    strbuf_free(&help);
    assert_status_ok(config_print_help("device", &help));
    assert_non_null(strstr(help.text, "one of auto, cpu, cuda; default auto\n"));
    assert_null(strstr(help.text, "run.dir"));
    strbuf_free(&help);
    assert_status_fails(config_print_help("modl", &help), ERR_USER,
                        "there is no key or section modl, did you mean model?");
    strbuf_free(&help);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_config_gets_every_default),
        cmocka_unit_test(every_type_of_value_is_read),
        cmocka_unit_test(token_files_are_a_path_a_list_or_weighted),
        cmocka_unit_test(evaluation_is_switched_off_in_every_usual_way),
        cmocka_unit_test(a_quoted_override_is_taken_as_it_is),
        cmocka_unit_test(overrides_win_and_the_last_one_wins),
        cmocka_unit_test(an_override_lowers_what_it_leaves_no_room_for),
        cmocka_unit_test(the_world_must_fit),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(the_documented_file_sets_every_key),
        cmocka_unit_test(help_names_every_key),
        cmocka_unit_test(help_shows_a_section_or_a_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
