/* test_config_print.c: configurations and the files in configs/ printed, read back, hashed and
 * compared. Run it from the repository root. */
#include "test.h"

#include "config/keys.h"
#include "config_text.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

static void assert_config_equal(const Config *a, const Config *b) {
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        const void *x = config_key_field(k, a), *y = config_key_field(k, b);
        if (k->type == KEY_STRING) {
            assert_string_equal(*(char *const *)x, *(char *const *)y);
        } else if (k->type == KEY_SOURCES) {
            assert_int_equal(*config_key_count(k, a), *config_key_count(k, b));
            for (int j = 0; j < *config_key_count(k, a); j++) {
                const DataSource *s = *(DataSource *const *)x, *t = *(DataSource *const *)y;
                assert_string_equal(s[j].path, t[j].path);
                assert_memory_equal(&s[j].weight, &t[j].weight, sizeof s[j].weight);
                assert_int_equal(s[j].set == NULL, t[j].set == NULL);
                if (s[j].set != NULL) assert_string_equal(s[j].set, t[j].set);
            }
        } else if (k->type == KEY_STAGES) {
            StrBuf one = {0}, other = {0};
            config_value_print(k, a, false, &one);
            config_value_print(k, b, false, &other);
            assert_string_equal(one.text, other.text);
            strbuf_free(&one);
            strbuf_free(&other);
        } else {
            bool wide = k->type == KEY_INT64 || k->type == KEY_DOUBLE;
            assert_memory_equal(x, y, k->type == KEY_BOOL ? sizeof(bool) : wide ? 8 : 4);
        }
    }
}

static void assert_prints_and_reads_back(const Config *c) {
    Config again;
    StrBuf yaml = {0}, json = {0};
    config_print(c, &yaml);
    assert_status_ok(parse(&again, yaml.text));
    assert_config_equal(c, &again);
    assert_int_equal(config_hash(c), config_hash(&again));
    config_free(&again);
    config_print_json(c, &json); /* JSON is YAML, too */
    assert_null(strchr(json.text, '\n'));
    assert_status_ok(parse(&again, json.text));
    assert_config_equal(c, &again);
    config_free(&again);
    strbuf_free(&yaml);
    strbuf_free(&json);
}

static void printing_reads_back_the_same(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, LEAST));
    assert_prints_and_reads_back(&c);
    config_free(&c);
    assert_status_ok(parse(
        &c, LEAST "run: {dir: \"q\\\"b\\\\ #: \xc3\xa9 - \", seed: 9007199254740991}\n"
                  "optim: {lr: 0.1234567890123456789, eps: 1e-30, schedule: constant}\n"
                  "data.val: [{path: \"null\", weight: 0.3333333333333333}, {path: '*x', weight: "
                  "2}]\n"
                  "parallel: {overlap_degree: 0}\n"
                  "data.format: llmc\n"));
    assert_prints_and_reads_back(&c);
    config_free(&c);
}

static void sets_print_and_read_back(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, LEAST "  val: {web: [{path: a, weight: 1}, {path: b, weight: 2}], "
                                     "books-1: c.bin}\n"
                                     "run: {eval_sequences: 0, eval_every: 3}\n"));
    assert_prints_and_reads_back(&c);
    assert_int_equal(c.data.n_val, 3);
    assert_int_equal(config_set_end(c.data.val, 3, 0), 2);
    assert_int_equal(config_set_end(c.data.val, 3, 2), 3);
    assert_string_equal(c.data.val[1].set, "web");
    assert_string_equal(c.data.val[2].set, "books-1");
    config_free(&c);
}

static void json_nests_as_the_sections_do(void **state) {
    (void)state;
    Config c;
    StrBuf json = {0};
    assert_status_ok(parse(&c, LEAST));
    config_print_json(&c, &json);
    assert_non_null(strstr(
        json.text, "\"allow_data_change\": false}, \"device\": \"auto\", \"precision\": \"bf16\", "
                   "\"fp8\": {\"first_bf16\": 0, \"last_bf16\": 0, \"gradients\": \"e5m2\", "
                   "\"head\": false}, \"model\": {\"layers\": 2,"));
    assert_non_null(strstr(json.text, "\"rope_scaling\": {\"factor\": 1, \"low\": 1, \"high\": 4, "
                                      "\"original\": 8192}}, \"data\": {\"train\": [\"a.bin\"], "
                                      "\"val\": []"));
    assert_non_null(strstr(json.text, "\"overlap_degree\": \"auto\""));
    strbuf_free(&json);
    config_free(&c);
}

/* Checkpoints of earlier versions hold it. */
static void the_hash_stays_the_same(void **state) {
    (void)state;
    char *overrides[] = {
        "run.seed=5", "data.train=[{path: /x/a.bin, weight: 3.5}, {path: b.bin, weight: 0.1}]",
        "optim.lr=0.123456789012345678", "model.rope_scaling.factor=32", "data.split=9,1"};
    Config c;
    assert_status_ok(parse(&c, LEAST));
    assert_int_equal(config_hash(&c), 0x423e52b7);
    config_free(&c);
    assert_status_ok(config_parse(&c, "t.yaml", LEAST, strlen(LEAST), 5, overrides));
    assert_int_equal(config_hash(&c), 0x2e592138);
    config_free(&c);
}

static void the_hash_knows_what_changes_results(void **state) {
    (void)state;
    static const struct {
        char *override;
        bool changes;
    } cases[] = {
        {"run.seed=5", true},         {"model.layers=3", true},
        {"optim.lr=1e-5", true},      {"batch.global=16", true},
        {"data.eod=3", true},         {"data.train=b.bin", true},
        {"precision=fp8", true},      {"data.train=elsewhere/a.bin", false},
        {"batch.micro=2", false},     {"run.dir=x", false},
        {"parallel.cp=2", false},     {"parallel.backend=ring", false},
        {"data.val=v.bin", false},    {"memory.recompute=layer", false},
        {"model.head_dim=16", false}, /* what it is resolved to */
    };
    Config base, c;
    assert_status_ok(parse(&base, LEAST));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_status_ok(parse_with(&c, LEAST, cases[i].override));
        if ((config_hash(&c) != config_hash(&base)) != cases[i].changes)
            fail_msg("%s: the hash should %s", cases[i].override,
                     cases[i].changes ? "change" : "stay");
        config_free(&c);
    }
    config_free(&base);
}

static void differences_are_told_by_what_they_mean(void **state) {
    (void)state;
    static const struct {
        char *override;
        ConfigDifference kind; /* DIFFERS_KINDS: none */
        const char *text;
    } cases[] = {
        {"model.rope_theta=1e4", DIFFERS_MODEL, "model.rope_theta 500000 -> 10000"},
        {"model.rope_scaling.factor=8", DIFFERS_MODEL, "model.rope_scaling.factor 1 -> 8"},
        {"model.rope_scaling.low=2", DIFFERS_KINDS, ""}, /* without scaling it is not used */
        {"model.head_dim=16", DIFFERS_KINDS, ""},        /* what it is resolved to */
        {"model.init_std=1", DIFFERS_KINDS, ""},
        {"model.seq_len=64", DIFFERS_BATCHES, "model.seq_len 32 -> 64"},
        {"data.order=megatron", DIFFERS_BATCHES, "data.order cria -> megatron"},
        {"data.train=elsewhere/b.bin", DIFFERS_KINDS, ""}, /* files are compared by contents */
        {"data.train=[{path: a.bin, weight: 2}]", DIFFERS_BATCHES,
         "data.train [\"a.bin\"] -> [{\"path\": \"a.bin\", \"weight\": 2}]"},
        {"data.eod=3", DIFFERS_KINDS, ""},
        {"batch.global=16", DIFFERS_COURSE, "batch.global 8 -> 16"},
        {"optim.clip=2", DIFFERS_COURSE, "optim.clip 1 -> 2"},
        {"run.on_spike=stop", DIFFERS_COURSE, "run.on_spike warn -> stop"},
        {"parallel.cp=2", DIFFERS_KINDS, ""},
        {"run.dir=x", DIFFERS_KINDS, ""},
    };
    Config base, c;
    assert_status_ok(parse(&base, LEAST));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_status_ok(parse_with(&c, LEAST, cases[i].override));
        for (ConfigDifference kind = 0; kind < DIFFERS_KINDS; kind++) {
            StrBuf out = {0};
            assert_int_equal(config_differences(&base, &c, kind, &out), kind == cases[i].kind);
            assert_string_equal(strbuf_text(&out), kind == cases[i].kind ? cases[i].text : "");
            strbuf_free(&out);
        }
        config_free(&c);
    }
    config_free(&base);
}

/* As other versions of cria may have printed it. */
static void printed_configurations_of_other_versions_are_read(void **state) {
    (void)state;
    Config base, c;
    StrBuf text = {0}, more = {0}, differences = {0};
    assert_status_ok(parse(&base, LEAST));
    config_print(&base, &text);
    char *gone = strstr(text.text, "  clip: 1\n"), *end = strchr(gone, '\n') + 1;
    strbuf_printf(&more, "%.*s%swarp: {factor: 9}\n", (int)(gone - text.text), text.text, end);
    assert_status_ok(config_parse_printed(&c, more.text));
    assert_string_equal(status_message(), "");
    for (ConfigDifference kind = 0; kind < DIFFERS_KINDS; kind++)
        assert_int_equal(config_differences(&c, &base, kind, &differences), 0);
    config_free(&c);
    assert_status_fails(config_parse_printed(&c, "model: [1, 2"), ERR_USER,
                        "is not a configuration");
    config_free(&c);
    assert_status_fails(config_parse_printed(&c, "a: b\n"), ERR_USER, "is not a configuration");
    config_free(&c);
    config_free(&base);
    strbuf_free(&text);
    strbuf_free(&more);
}

static void every_file_of_configs_is_valid(void **state) {
    (void)state;
    glob_t files;
    assert_int_equal(glob("configs/*.yaml", 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 4);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        Config c;
        assert_status_ok(config_load(&c, files.gl_pathv[i], 0, NULL));
        assert_prints_and_reads_back(&c);
        assert_status_ok(config_check_world(&c, 8));
        config_free(&c);
    }
    globfree(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printing_reads_back_the_same),
        cmocka_unit_test(sets_print_and_read_back),
        cmocka_unit_test(json_nests_as_the_sections_do),
        cmocka_unit_test(the_hash_stays_the_same),
        cmocka_unit_test(the_hash_knows_what_changes_results),
        cmocka_unit_test(differences_are_told_by_what_they_mean),
        cmocka_unit_test(printed_configurations_of_other_versions_are_read),
        cmocka_unit_test(every_file_of_configs_is_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
