/* The JSON files of Hugging Face directories, and directories that do not fit together. */
#include "hf_dir.h"

/* ---- config.json ---------------------------------------------------------------------------- */

#define DIMENSIONS                                                                                 \
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "                  \
    "\"num_attention_heads\": 4, \"intermediate_size\": 128, \"vocab_size\": 256"
#define LLAMA3                                                                                     \
    "\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "                      \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192"

static HfExtra extra; /* of the last parse */

static Status parse(Config *c, const char *text) {
    return hf_config_parse(c, &extra, "config.json", text, (int64_t)strlen(text));
}

static void the_forms_of_transformers_4_and_5_say_the_same(void **state) {
    (void)state;
    static const char *const texts[] = {
        DIMENSIONS ", \"rope_theta\": 500000.0, \"rope_scaling\": {" LLAMA3
                   "}, \"torch_dtype\": \"x\"}",
        DIMENSIONS ", \"rope_parameters\": {\"rope_theta\": 500000.0, " LLAMA3
                   "}, \"dtype\": \"x\"}"};
    StrBuf printed[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        Config c;
        assert_status_ok(parse(&c, texts[i]));
        assert_true(c.model.rope_theta == 500000 && c.model.rope_scaling.factor == 32);
        assert_true(c.model.rope_scaling.low == 1 && c.model.rope_scaling.high == 4);
        assert_int_equal(c.model.rope_scaling.original, 8192);
        hf_config_print(&c, &extra, DT_BF16, &printed[i]);
        config_free(&c);
    }
    assert_string_equal(printed[0].text, printed[1].text);
    strbuf_free(&printed[0]);
    strbuf_free(&printed[1]);
}

static void what_is_missing_has_the_defaults_of_transformers(void **state) {
    (void)state;
    Config c;
    assert_status_ok(parse(&c, DIMENSIONS ", \"head_dim\": null, \"rope_scaling\": null}"));
    assert_int_equal(c.model.kv_heads, 4);
    assert_int_equal(c.model.head_dim, 16);
    assert_int_equal(c.model.seq_len, 2048);
    assert_false(c.model.tie_embeddings);
    assert_true(c.model.norm_eps == 1e-6 && c.model.rope_theta == 10000);
    assert_true(c.model.rope_scaling.factor == 1);
    assert_int_equal(c.data.eod, -1);
    config_free(&c);
    assert_status_ok(parse(&c, DIMENSIONS ", \"eos_token_id\": [7, 8]}"));
    assert_int_equal(c.data.eod, 7);
    config_free(&c);
}

static void other_spellings_of_the_same_are_accepted(void **state) {
    (void)state;
    static const char *const texts[] = {
        ", \"partial_rotary_factor\": 1",
        ", \"partial_rotary_factor\": 1.0",
        ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000, "
        "\"partial_rotary_factor\": 1.0}",
        ", \"rope_scaling\": {\"type\": \"default\", \"partial_rotary_factor\": 1}",
        ", \"hidden_act\": \"swish\"",
        ", \"hidden_act\": \"silu\"",
        ", \"rope_theta\": 10000, \"initializer_range\": 2e-2, \"rms_norm_eps\": 0.000001"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Config c;
        char *text = mem_printf(DIMENSIONS "%s}", texts[i]);
        assert_status_ok(parse(&c, text));
        assert_true(c.model.rope_theta == 10000 && c.model.init_std == 0.02);
        config_free(&c);
        free(text);
    }
}

/* What no key of the configuration holds: from config.json into a checkpoint and back. */
static void ids_and_the_length_are_kept(void **state) {
    (void)state;
    Config c;
    HfExtra again;
    StrBuf entry = {0}, printed = {0}, generation = {0};
    assert_status_ok(parse(&c,
                           DIMENSIONS ", \"max_position_embeddings\": 131072, \"bos_token_id\": 1, "
                                      "\"eos_token_id\": [2, 3, 256, -1], \"pad_token_id\": 0}"));
    assert_int_equal(c.data.eod, 2);
    hf_extra_print(&extra, &entry);
    assert_string_equal(entry.text, "{\"max_position_embeddings\": 131072, \"bos_token_id\": 1, "
                                    "\"pad_token_id\": 0, \"eos_token_id\": [2, 3]}");
    assert_status_ok(hf_extra_parse(&again, "name", entry.text));
    c.model.seq_len = 128; /* a run on shorter sequences, of data with another end */
    c.data.eod = 7;
    again = hf_extra_resolve(&again, &c);
    hf_config_print(&c, &again, DT_BF16, &printed);
    static const char *const lines[] = {"  \"bos_token_id\": 1,\n",
                                        "  \"max_position_embeddings\": 131072,\n",
                                        "  \"pad_token_id\": 0,\n  \"pretraining_tp\"",
                                        "  \"eos_token_id\": [\n    7,\n    2,\n    3\n  ],\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (strstr(printed.text, lines[i]) == NULL) fail_msg("no %s in %s", lines[i], printed.text);
    hf_generation_print(&again, &generation);
    assert_string_equal(generation.text,
                        "{\n  \"_from_model_config\": true,\n  \"bos_token_id\": 1,\n"
                        "  \"eos_token_id\": [\n    7,\n    2,\n    3\n  ],\n"
                        "  \"pad_token_id\": 0\n}\n");
    assert_status_ok(hf_extra_parse(&again, "name", NULL));
    again = hf_extra_resolve(&again, &c);
    assert_true(again.max_positions == 128 && again.bos == -1 && again.pad == -1);
    assert_true(again.n_eos == 1 && again.eos[0] == 7);
    assert_status_fails(hf_extra_parse(&again, "name", "{\"eos_token_id\": \"2\"}"), ERR_USER,
                        "name: its entry cria.hf is not one that cria wrote: expected a number");
    assert_status_fails(hf_extra_parse(&again, "name", "{\"max_position_embeddings\": -1}"),
                        ERR_USER, "out of bounds");
    config_free(&c);
    strbuf_free(&entry), strbuf_free(&printed), strbuf_free(&generation);
}

/* transformers warns at each load unless a model with RoPE scaling is longer than without. */
static void a_scaled_model_is_longer_than_the_unscaled_one(void **state) {
    (void)state;
    static const struct {
        double factor;
        int64_t original, seq_len, kept, expected;
    } cases[] = {{1, 8192, 4096, 0, 4096},       {1, 8192, 4096, 131072, 131072},
                 {1, 8192, 4096, 2048, 4096},    {8, 8192, 8192, 0, 65536},
                 {8, 8192, 131072, 0, 131072},   {8, 8192, 8192, 131072, 131072},
                 {32, 8192, 8192, 8192, 262144}, {1.5, 5, 4, 0, 8},
                 {1e6, 8192, 64, 0, 1 << 29}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c = {.model = {.vocab = 8, .seq_len = cases[i].seq_len}, .data = {.eod = -1}};
        c.model.rope_scaling.factor = cases[i].factor;
        c.model.rope_scaling.original = cases[i].original;
        HfExtra kept = {.max_positions = cases[i].kept, .bos = -1, .pad = -1};
        kept = hf_extra_resolve(&kept, &c);
        if (kept.max_positions != cases[i].expected)
            fail_msg("case %d: found %lld", (int)i, (long long)kept.max_positions);
    }
}

static void numbers_are_written_as_python_writes_them(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{500000, "500000.0"},
                 {1e-5, "1e-05"},
                 {0.02, "0.02"},
                 {12345.678, "12345.678"},
                 {1e-6, "1e-06"},
                 {0.0001, "0.0001"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1, "1.0"},
                 {1.5e-7, "1.5e-07"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c = {.model = {.rope_theta = cases[i].value}};
        StrBuf b = {0};
        char *line = mem_printf("\"rope_theta\": %s,", cases[i].text);
        hf_config_print(&c, &extra, DT_F32, &b);
        if (strstr(b.text, line) == NULL) fail_msg("no %s in %s", line, b.text);
        free(line);
        strbuf_free(&b);
    }
}

static void a_config_of_another_model_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "expected an object at byte 0"},
        {"[]", "expected an object"},
        {DIMENSIONS, "expected ',' or '}'"},
        {DIMENSIONS "} x", "expected the end of the text"},
        {"{}", "it has no model_type"},
        {"{\"model_type\": \"llama\"}", "it has no num_hidden_layers"},
        {"{\"model_type\": \"mistral\"}", "model_type is \"mistral\""},
        {DIMENSIONS ", \"architectures\": [\"LlamaForSequenceClassification\"]}",
         "no LlamaForCausalLM"},
        {DIMENSIONS ", \"attention_bias\": true}", "attention_bias is true"},
        {DIMENSIONS ", \"mlp_bias\": true}", "mlp_bias is true"},
        {DIMENSIONS ", \"hidden_act\": \"gelu\"}", "hidden_act is \"gelu\""},
        {DIMENSIONS ", \"quantization_config\": {\"bits\": 4}}", "quantization_config is {"},
        {DIMENSIONS ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor is 0.5"},
        {DIMENSIONS ", \"rope_scaling\": {\"partial_rotary_factor\": 0.5}}",
         "partial_rotary_factor is 0.5"},
        {DIMENSIONS ", \"partial_rotary_factor\": true}", "partial_rotary_factor is true"},
        {DIMENSIONS ", \"bos_token_id\": \"1\"}", "expected a number"},
        {DIMENSIONS
         ", \"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
         "1,1,1,1]}",
         "more ids in eos_token_id than cria keeps"},
        {DIMENSIONS ", \"num_key_value_heads\": 3}", "expected a divisor of model.heads 4"},
        {DIMENSIONS ", \"num_key_value_heads\": \"2\"}", "num_key_value_heads is \"2\""},
        {DIMENSIONS ", \"hidden_size\": 32}", "hidden_size is given twice, as 64 and 32"},
        {DIMENSIONS ", \"head_dim\": 15}", "head_dim: found 15, expected an even number"},
        {DIMENSIONS ", \"rms_norm_eps\": -1}", "norm_eps: found '-1'"},
        {DIMENSIONS ", \"tie_word_embeddings\": 1}", "tie_embeddings: found '1'"},
        {DIMENSIONS ", \"max_position_embeddings\": 1e3}", "seq_len: found '1e3'"},
        {DIMENSIONS ", \"eos_token_id\": 256}", "eod: found 256"},
        {DIMENSIONS ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", "rope_type is 'linear'"},
        {DIMENSIONS ", \"rope_scaling\": {\"type\": \"yarn\", \"beta_fast\": 32}}",
         "rope_scaling holds beta_fast"},
        {DIMENSIONS ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}}",
         "it needs a field low_freq_factor"},
        {DIMENSIONS ", \"rope_scaling\": {\"factor\": 8.0}}", "there is a field factor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c;
        assert_status_fails(parse(&c, cases[i].text), ERR_USER, cases[i].message);
        config_free(&c);
    }
}

static void an_index_that_is_none_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"weight_map\": {\"a\": 1}}", "expected a string"},
        {"{\"metadata\": {}}", "it has no weight_map"},
        {"{\"weight_map\": {\"a\": \"../a.safetensors\"}}", "'../a.safetensors' is not the name"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "'/etc/passwd' is not the name"},
        {"{\"weight_map\": {\"a\": \".safetensors\"}}", "'.safetensors' is not the name"},
        {"{\"weight_map\": {\"a\": \"a.safetensors\", \"a\": \"b.safetensors\"}}",
         "'a' appears twice"},
    };
    HfIndex index;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_status_fails(
            hf_index_parse(&index, "index", cases[i].text, (int64_t)strlen(cases[i].text)),
            ERR_USER, cases[i].message);
}

/* ---- directories that do not fit together ---------------------------------------------------- */

static void a_config_that_does_not_match_the_weights_is_refused(void **state) {
    (void)state;
    static const char single[] = "model.safetensors", config[] = "config.json";
    static const char index[] = "model.safetensors.index.json";
    static const char part[] = "model-00009-of-00009.safetensors";
    static const struct {
        const char *golden, *file, *from, *to, *message;
    } cases[] = {
        {"hf_untied", config, "\"vocab_size\": 73", "\"vocab_size\": 74",
         "model.embed_tokens.weight is 73 x 40, config.json calls for 74 x 40"},
        {"hf_untied", config, "\"head_dim\": 10", "\"head_dim\": 20",
         "q_proj.weight is 40 x 40, config.json calls for 80 x 40"},
        {"hf_untied", config, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
         "lack tensor model.layers.2.input_layernorm.weight"},
        {"hf_untied", config, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
         "have tensor 'model.layers.1.input_layernorm.weight'"},
        {"hf_untied", config, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true",
         "tie_word_embeddings is true, but lm_head.weight is not model.embed_tokens.weight"},
        {"hf_tied", config, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
         "lack tensor lm_head.weight, for which config.json calls (tie_word_embeddings is not "
         "true)"},
        {"hf_untied", single, "model.norm.weight", "model.nor_.weight",
         "lack tensor model.norm.weight"},
        {"hf_untied", single, "\"F32\"", "\"I32\"", "of type I32, expected F32, BF16 or F16"},
        {"hf_untied", single, "\"F32\"", "\"U32\"", "of type U32, expected F32, BF16 or F16"},
        {"hf_untied", single, "\"F32\"", "\"N32\"", "of type N32, expected F32, BF16 or F16"},
        {"hf_untied", single, "\"F32\"", "\"F16\"", "shape and dtype need"},
        {"hf_tied", part, "model.norm.weight", "model.nor_.weight",
         "which the index does not have"},
        {"hf_tied", index, "model.norm.weight", "zodel.norm.weight",
         "'model.norm.weight', which the"},
        {"hf_tied", index, "model.norm.weight", "aodel.norm.weight", "which does not hold it"},
        {"hf_tied", index, "00001-of", "00003-of", "which does not hold it"},
        {"hf_tied", index, "\"model.norm.weight\": \"model-00009",
         "\"model.norm.weight\": \"model-00003",
         "is in model-00009-of-00009.safetensors, the index has it in model-00003-of"},
        {"hf_tied", index, "model-00009", "model-00010", "cannot open"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_golden(cases[i].golden);
        replace(cases[i].file, cases[i].from, cases[i].to);
        assert_status_fails(hf_import(hf, ckpt), ERR_USER, cases[i].message);
        char names[64][64];
        if (list(dir, "", names) != 1) fail_msg("case %d left %s", (int)i, names[0]);
    }
}

static void a_damaged_directory_is_refused(void **state) {
    (void)state;
    char *path = mem_printf("%s/model.safetensors", hf);
    copy_golden("hf_untied");
    assert_int_equal(truncate(path, 100000), 0);
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, "cut short");
    assert_int_equal(unlink(path), 0);
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, "has neither model.safetensors nor");
    char *config = mem_printf("%s/config.json", hf);
    assert_int_equal(truncate(config, (off_t)1 << 30), 0); /* a hole: no disk, no memory */
    assert_status_fails(hf_import(hf, ckpt), ERR_USER,
                        "found more than 4194304 bytes, expected this config of a model");
    assert_int_equal(unlink(config), 0);
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, "cannot open");
    assert_status_fails(hf_import("tests/golden/hf_untied/model.safetensors", ckpt), ERR_USER,
                        "model.safetensors is not a directory: expected one with config.json");
    assert_status_fails(hf_import("meta-llama/Llama-3.2-1B", ckpt), ERR_USER,
                        "is downloaded first, by hf download");
    free(path), free(config);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_forms_of_transformers_4_and_5_say_the_same),
        TEST(what_is_missing_has_the_defaults_of_transformers),
        TEST(other_spellings_of_the_same_are_accepted),
        TEST(ids_and_the_length_are_kept),
        TEST(a_scaled_model_is_longer_than_the_unscaled_one),
        TEST(numbers_are_written_as_python_writes_them),
        TEST(a_config_of_another_model_is_refused),
        TEST(an_index_that_is_none_is_refused),
        TEST(a_config_that_does_not_match_the_weights_is_refused),
        TEST(a_damaged_directory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
