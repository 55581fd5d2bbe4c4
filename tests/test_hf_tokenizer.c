/* Tokenizers of an export: what is copied, and the tokenizer_config.json that is written where
 * there is none. tests/golden/check_tokenizer.py holds the same against transformers. */
#include "hf_dir.h"

static const HfExtra end_0 = {.max_positions = 256, .bos = -1, .pad = -1, .eos = {0}, .n_eos = 1};

static StrBuf config_of(const char *path, const HfExtra *extra, int vocab, const char *warning) {
    StrBuf text = {0};
    expect_output(2, warning, assert_status_ok(hf_tokenizer_config(path, extra, vocab, &text)));
    return text;
}

/* A file of `dir` instead of one that exists. */
static StrBuf config_of_text(const char *name, const char *text, const HfExtra *extra, int vocab,
                             const char *warning) {
    char *path = mem_printf("%s/%s", dir, name);
    write_file(dir, name, text, strlen(text));
    StrBuf config = config_of(path, extra, vocab, warning);
    free(path);
    return config;
}

static void the_sample_tokenizer_gets_its_class_and_its_end(void **state) {
    (void)state;
    StrBuf text = config_of("data/tokenizer.json", &end_0, 4096, NULL);
    assert_string_equal(text.text, "{\n"
                                   "  \"clean_up_tokenization_spaces\": false,\n"
                                   "  \"eos_token\": \"<|endoftext|>\",\n"
                                   "  \"model_input_names\": [\n"
                                   "    \"input_ids\",\n"
                                   "    \"attention_mask\"\n"
                                   "  ],\n"
                                   "  \"model_max_length\": 256,\n"
                                   "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n"
                                   "}\n");
    strbuf_free(&text);
}

static void ends_are_found_where_tokenizers_keep_them(void **state) {
    (void)state;
    static const char added[] = "\"added_tokens\": [{\"id\": 1, \"content\": \"<a \\\"1\\\">\"}, "
                                "{\"content\": \"\\u00e9\", \"special\": true, \"id\": 2}]";
    static const char bpe[] = "\"model\": {\"type\": \"BPE\", \"vocab\": {\"<x>\": 1, \"x\": 2, "
                              "\"</s>\": 3, \"y\": 4, \"[EOS]\": 5}, \"merges\": []}";
    static const char unigram[] =
        "\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"<unk>\", 0.0], [\"<s>\", -1, 7], [], "
        "[\"</s>\", 0], [\"a\", -1.5], [\"[EOS]\", 0]]}";
    static const struct {
        const char *first, *second;
        int64_t eos;
        const char *line, *warning;
    } cases[] = {
        {added, bpe, 1, "\"eos_token\": \"<a \\\"1\\\">\",", NULL},
        {bpe, added, 1, "\"eos_token\": \"<a \\\"1\\\">\",", NULL},
        {bpe, added, 2, "\"eos_token\": \"\xc3\xa9\",", NULL},
        {bpe, added, 3, "\"eos_token\": \"</s>\",", NULL},
        {bpe, added, 5, "\"eos_token\": \"[EOS]\",", NULL},
        {bpe, added, 4, NULL, "id 4, which ends texts of this model (data.eod), is a piece"},
        {bpe, added, 9, NULL, "has no id 9, which ends texts of this model (data.eod)"},
        {unigram, "\"added_tokens\": null", 3, "\"eos_token\": \"</s>\",", NULL},
        {unigram, "\"a\": [[[{}]]]", 5, "\"eos_token\": \"[EOS]\",", NULL},
        {unigram, "\"a\": 1", 4, NULL, "is a piece of text"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const HfExtra extra = {.bos = 1, .pad = -1, .eos = {cases[i].eos, 1}, .n_eos = 2};
        char *json = mem_printf("{%s, %s}", cases[i].first, cases[i].second);
        StrBuf text = config_of_text("tokenizer.json", json, &extra, 100, cases[i].warning);
        if (cases[i].line == NULL ? strstr(text.text, "eos_token") != NULL
                                  : strstr(text.text, cases[i].line) == NULL)
            fail_msg("case %d: %s", (int)i, text.text);
        assert_non_null(strstr(text.text, "\"bos_token\": \"<"));
        assert_non_null(strstr(text.text, "\"tokenizer_class\": \"PreTrainedTokenizerFast\""));
        strbuf_free(&text);
        free(json);
    }
}

static void a_tokenizer_of_another_model_is_noticed(void **state) {
    (void)state;
    StrBuf text = config_of("data/tokenizer.json", &end_0, 4095,
                            "data/tokenizer.json has ids up to 4095, but model.vocab is 4095");
    strbuf_free(&text);
    const HfExtra gpt2 = {.bos = -1, .pad = -1, .eos = {50256}, .n_eos = 1};
    text =
        config_of("data/tokenizer.json", &gpt2, 50257,
                  "has no id 50256, which ends texts of this model (data.eod): is it of another");
    strbuf_free(&text);
}

static void what_is_no_tokenizer_gets_no_config(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *warning;
    } cases[] = {
        {"tokenizer.json", "", "holds no vocabulary that cria understands (expected an object at"},
        {"tokenizer.json", "{\"a\": 1}", "holds no vocabulary that cria understands (none at"},
        {"tokenizer.json", "{\"model\": {\"vocab\": {\"a\": \"b\"}}}",
         "(expected a number at byte 26"},
        {"tokenizer.model", "\n\x0e\n\x05<unk>\x15",
         "is a SentencePiece model, which transformers"},
        {"tokenizer.model", "", "is a SentencePiece model"},
        {"tokenizer.model", "IQ== 0\nIg== 1\n", "has 2 ranks, that of Llama 3 has 128000"},
        {"tokenizer.model", "IQ== 0\nIg== 1", "has 2 ranks"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StrBuf text = config_of_text(cases[i].name, cases[i].text, &end_0, 4096, cases[i].warning);
        assert_int_equal(text.len, 0);
    }
}

/* It holds 128,000 ids, of which its reader knows the 256 that follow. */
static void llama_3s_tokenizer_model_gets_its_special_tokens(void **state) {
    (void)state;
    const HfExtra extra = {.bos = -1, .pad = -1, .eos = {128001}, .n_eos = 1};
    StrBuf file = {0};
    for (int i = 0; i < 128000; i++) strbuf_printf(&file, "YQ== %d\n", i);
    StrBuf text = config_of_text("tokenizer.model", file.text, &extra, 128256, NULL);
    static const char *const parts[] = {
        "{\n  \"added_tokens_decoder\": {\n    \"128000\": {\"content\": \"<|begin_of_text|>\", ",
        "\n    \"128001\": {\"content\": \"<|end_of_text|>\", ",
        "\n    \"128011\": {\"content\": \"<|image|>\", ",
        "\n    \"128012\": {\"content\": \"<|reserved_special_token_2|>\", ",
        "\n    \"128255\": {\"content\": \"<|reserved_special_token_245|>\", \"lstrip\": false, "
        "\"normalized\": false, \"rstrip\": false, \"single_word\": false, \"special\": true}\n  },"
        "\n  \"bos_token\": \"<|begin_of_text|>\",\n",
        "\"eos_token\": \"<|end_of_text|>\",\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(text.text, parts[i]) == NULL) fail_msg("no %s in %s", parts[i], text.text);
    strbuf_free(&file);
    strbuf_free(&text);
}

static void gpt_2s_two_files_get_its_class(void **state) {
    (void)state;
    const HfExtra extra = {.bos = -1, .pad = -1, .eos = {2}, .n_eos = 1};
    StrBuf text = config_of_text("vocab.json", "{\"a\": 0, \"<|endoftext|>\": 2}", &extra, 3, NULL);
    assert_non_null(strstr(text.text, "\"bos_token\": null,\n"));
    assert_non_null(strstr(text.text, "\"eos_token\": \"<|endoftext|>\",\n"));
    assert_non_null(strstr(text.text, "\"tokenizer_class\": \"GPT2Tokenizer\",\n"
                                      "  \"unk_token\": null\n}\n"));
    strbuf_free(&text);
}

/* ---- what is copied ---------------------------------------------------------------------------
 */

static Status export_with(const char *tokenizer) {
    const HfExportOptions o = {
        .dtype = DT_BF16, .shard_bytes = HF_SHARD_BYTES, .tokenizer = tokenizer};
    if (exists(out)) delete_tree(out);
    return hf_export(ckpt, out, &o);
}

static bool exported(const char *name) {
    char *path = mem_printf("%s/%s", out, name);
    bool found = exists(path);
    free(path);
    return found;
}

static void the_tokenizer_goes_along(void **state) {
    (void)state;
    static const char json[] = "{\"model\": {\"vocab\": {\"a\": 0, \"</s>\": 72}}}";
    char names[64][64], *file = mem_printf("%s/tokenizer.json", hf);
    char *other = mem_printf("%s/config.json", hf), *readme = mem_printf("%s/notes.md", hf);
    char *renamed = mem_printf("%s/bpe-73.json", hf);
    import_golden(0);
    assert_int_equal(mkdir(hf, 0777), 0);
    write_file(hf, "tokenizer.json", json, sizeof json - 1);
    write_file(hf, "merges.txt", "a b\n", 4);
    write_file(hf, "config.json", "not this one", 12);
    write_file(hf, "notes.md", "a b\n", 4);
    assert_status_ok(export_with(hf));
    assert_same_files(hf, out, "tokenizer.json");
    assert_same_files(hf, out, "merges");
    assert_int_equal(list(out, "", names), 6); /* and config, generation_config, model, below */
    StrBuf text = read_file(out, "tokenizer_config.json");
    assert_non_null(strstr(text.text, "\"eos_token\": \"</s>\""));
    assert_non_null(strstr(text.text, "\"model_max_length\": 128,"));
    strbuf_free(&text);
    assert_status_ok(export_with(file));
    assert_true(exported("tokenizer.json") && exported("tokenizer_config.json"));
    assert_int_equal(list(out, "", names), 5);
    assert_status_fails(export_with(readme), ERR_USER, "found no file of a tokenizer");
    expect_output(
        2, "holds no vocabulary that cria understands",
        assert_status_fails(export_with(other), ERR_USER, "found no file of a tokenizer"));
    assert_int_equal(rename(file, renamed), 0);
    assert_status_ok(export_with(renamed));
    assert_true(exported("tokenizer.json") && exported("tokenizer_config.json"));
    assert_int_equal(list(out, "", names), 5);
    delete_tree(out);
    assert_status_fails(export_with("/nonexistent"), ERR_USER, "cannot find the tokenizer");
    assert_int_equal(list(dir, "out", names), 0);
    free(file), free(other), free(readme), free(renamed);
}

static void settings_beside_the_tokenizer_are_kept(void **state) {
    (void)state;
    static const char json[] = "{\"model\": {\"vocab\": {\"a\": 0, \"</s>\": 72}}}";
    char *file = mem_printf("%s/tokenizer.json", hf);
    import_golden(0);
    assert_int_equal(mkdir(hf, 0777), 0);
    write_file(hf, "tokenizer.json", json, sizeof json - 1);
    write_file(hf, "tokenizer_config.json", "{\"own\": 1}", 10);
    write_file(hf, "special_tokens_map.json", "{}", 2);
    write_file(hf, "merges.txt", "a b\n", 4);
    for (int i = 0; i < 2; i++) {
        assert_status_ok(export_with(i == 0 ? file : hf));
        assert_same_files(hf, out, "tokenizer");
        assert_same_files(hf, out, "special_tokens_map");
        assert_int_equal(exported("merges.txt"), i == 1);
    }
    free(file);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_sample_tokenizer_gets_its_class_and_its_end),
        TEST(ends_are_found_where_tokenizers_keep_them),
        TEST(a_tokenizer_of_another_model_is_noticed),
        TEST(what_is_no_tokenizer_gets_no_config),
        TEST(llama_3s_tokenizer_model_gets_its_special_tokens),
        TEST(gpt_2s_two_files_get_its_class),
        TEST(the_tokenizer_goes_along),
        TEST(settings_beside_the_tokenizer_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
