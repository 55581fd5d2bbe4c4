/* Hugging Face directories: golden ones made by transformers (tests/golden/make_hf.py) are imported,
 * computed with, exported to the same bytes; broken ones are refused; interruptions leave nothing. */
#include "model_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "ckpt/hf.h"

/* ---- a fresh directory per test ------------------------------------------------------------- */

static char dir[64], ckpt[96], hf[96], out[96];

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_hf.XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(ckpt, sizeof ckpt, "%s/step_00000000.safetensors", dir);
    snprintf(hf, sizeof hf, "%s/hf", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    status_clear();
    return 0;
}

static int delete_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static void delete_tree(const char *path) {
    assert_int_equal(nftw(path, delete_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static int tear_down(void **state) {
    (void)state;
    delete_tree(dir);
    return 0;
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static StrBuf read_file(const char *where, const char *name) {
    char *path = mem_printf("%s/%s", where, name), part[4096];
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("cannot open %s", path);
    StrBuf text = {0};
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_append(&text, part, n);
    fclose(f);
    free(path);
    return text;
}

static void write_file(const char *where, const char *name, const void *bytes, size_t n) {
    char *path = mem_printf("%s/%s", where, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

/* The names in a directory that begin with `start`, and their number. */
static int list(const char *where, const char *start, char names[64][64]) {
    DIR *d = opendir(where);
    if (d == NULL) fail_msg("cannot list %s", where);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.' && strncmp(e->d_name, start, strlen(start)) == 0)
            snprintf(names[n++], 64, "%.63s", e->d_name);
    closedir(d);
    return n;
}

/* A copy that can be broken. */
static void copy_golden(const char *name) {
    char *from = mem_printf("tests/golden/%s", name), names[64][64];
    if (exists(hf)) delete_tree(hf);
    assert_int_equal(mkdir(hf, 0777), 0);
    for (int i = list(from, "", names) - 1; i >= 0; i--) {
        StrBuf text = read_file(from, names[i]);
        write_file(hf, names[i], text.text, text.len);
        strbuf_free(&text);
    }
    free(from);
}

/* Both directories hold the same files that begin with `start`, at least one. */
static void assert_same_files(const char *a, const char *b, const char *start) {
    char names[64][64], others[64][64];
    int n = list(a, start, names);
    assert_true(n > 0);
    assert_int_equal(list(b, start, others), n);
    for (int i = 0; i < n; i++) {
        StrBuf x = read_file(a, names[i]), y = read_file(b, names[i]);
        if (x.len != y.len || memcmp(x.text, y.text, x.len) != 0)
            fail_msg("%s differs in %s and %s", names[i], a, b);
        strbuf_free(&x);
        strbuf_free(&y);
    }
}

static Status export_as(const char *to, Dtype dtype, int64_t shard_bytes) {
    const HfExportOptions o = {.dtype = dtype, .shard_bytes = shard_bytes};
    return hf_export(ckpt, to, &o);
}

/* The options under which the golden directories were made. */
static const struct {
    const char *name;
    Dtype dtype;
    int64_t shard_bytes;
} golden[] = {{"hf_untied", DT_F32, HF_SHARD_BYTES}, {"hf_tied", DT_BF16, 12000}};
enum { N_GOLDEN = sizeof golden / sizeof *golden };

static void import_golden(int i) {
    char *from = mem_printf("tests/golden/%s", golden[i].name);
    if (exists(ckpt)) assert_int_equal(unlink(ckpt), 0);
    assert_status_ok(hf_import(from, ckpt));
    free(from);
}

/* ---- what is computed ----------------------------------------------------------------------- */

static const float *find_logits(const Rig *r) {
    for (int i = 0; i < r->arena.n; i++)
        if (strcmp(r->arena.buffers[i].name, "logits") == 0) return *r->arena.buffers[i].slot;
    fail_msg("the model has no logits");
    return NULL;
}

static void *read_all(Checkpoint *ck, const char *name, int64_t *n) {
    const SafeTensor *t = safetensors_find(checkpoint_file(ck), name);
    if (t == NULL) fail_msg("no tensor %s", name);
    *n = safetensors_count(t);
    void *data = mem_new(*n, (size_t)dtype_bytes(t->dtype));
    assert_status_ok(checkpoint_read(ck, name, 0, *n, data));
    return data;
}

/* The weights of `ckpt` in a model for one sequence of T tokens. */
static void open_model(Rig *r, int64_t T) {
    Checkpoint *ck;
    Config config;
    assert_status_ok(checkpoint_open(&ck, ckpt));
    assert_status_ok(checkpoint_verify(ck));
    const char *text = checkpoint_entry(ck, "cria.config");
    assert_status_ok(config_parse(&config, ckpt, text, strlen(text), 0, NULL));
    *r = (Rig){.model = config.model, .optim = config.optim};
    rig_open(r, 1, T, RECOMPUTE_NONE, T);
    for (int i = 0; i < r->table->n_params; i++) {
        const Param *p = &r->table->params[i];
        int64_t n;
        float *w = read_all(ck, p->name, &n);
        assert_int_equal(n, p->rows * p->cols);
        memcpy(r->weights + p->offset, w, (size_t)n * sizeof *w);
        free(w);
    }
    config_free(&config);
    checkpoint_close(ck);
}

static int32_t best(const float *logits, int V) {
    int at = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[at]) at = v;
    return at;
}

static void compute(int which) {
    Checkpoint *ck;
    int64_t n, T;
    import_golden(which);
    char *path = mem_printf("tests/golden/%s/expected.safetensors", golden[which].name);
    assert_status_ok(checkpoint_open(&ck, path));
    float *expected = read_all(ck, "logits", &n);
    int32_t *text = read_all(ck, "greedy", &T);
    Rig r;
    open_model(&r, T);
    int64_t V = r.model.vocab, Vp = r.table->vocab_padded, prompt = n / V;
    assert_int_equal(n, prompt * V);
    /* What is behind a position does not show in its logits. */
    for (int64_t t = prompt; t < T; t++) r.mb.tokens[t] = 0;
    memcpy(r.mb.tokens, text, (size_t)prompt * sizeof *text);
    const float *logits = find_logits(&r);
    for (int64_t at = prompt; at < T; at++) {
        rig_run(&r, false);
        for (int64_t i = 0; i < n && at == prompt; i++)
            if (!(fabsf(logits[i / V * Vp + i % V] - expected[i]) <= 1e-4f))
                fail_msg("token %d, logit %d is %g, expected %g", (int)(i / V), (int)(i % V),
                         (double)logits[i / V * Vp + i % V], (double)expected[i]);
        r.mb.tokens[at] = best(logits + (at - 1) * Vp, (int)V);
        assert_int_equal(r.mb.tokens[at], text[at]);
    }
    rig_close(&r);
    checkpoint_close(ck);
    free(expected), free(text), free(path);
}

static void an_imported_untied_model_computes_what_transformers_does(void **state) {
    (void)state;
    compute(0);
}

static void an_imported_tied_model_computes_what_transformers_does(void **state) {
    (void)state;
    compute(1);
}

/* ---- there and back ------------------------------------------------------------------------- */

static void weights_are_exported_to_the_bytes_that_transformers_wrote(void **state) {
    (void)state;
    for (int i = 0; i < N_GOLDEN; i++) {
        char *from = mem_printf("tests/golden/%s", golden[i].name);
        import_golden(i);
        assert_status_ok(export_as(out, golden[i].dtype, golden[i].shard_bytes));
        assert_same_files(from, out, "model");
        delete_tree(out);
        free(from);
    }
}

static void export_import_and_export_again_gives_equal_directories(void **state) {
    (void)state;
    static const int64_t shards[] = {1, 5000, 40000, HF_SHARD_BYTES};
    for (int i = 0; i < 2 * N_GOLDEN * 4; i++) {
        Dtype dtype = i % 2 == 0 ? DT_F32 : DT_BF16;
        import_golden(i / 2 % N_GOLDEN);
        assert_status_ok(export_as(hf, dtype, shards[i / 4]));
        assert_int_equal(unlink(ckpt), 0);
        assert_status_ok(hf_import(hf, ckpt));
        assert_status_ok(export_as(out, dtype, shards[i / 4]));
        assert_same_files(hf, out, "");
        delete_tree(hf);
        delete_tree(out);
    }
}

static void a_checkpoint_made_by_import_is_that_of_a_run_at_step_0(void **state) {
    (void)state;
    import_golden(0);
    Checkpoint *ck;
    assert_status_ok(checkpoint_open(&ck, ckpt));
    assert_status_ok(checkpoint_verify(ck));
    assert_string_equal(checkpoint_entry(ck, "cria.step"), "0");
    assert_string_equal(checkpoint_entry(ck, "cria.tokens"), "0");
    const SafeFile *f = checkpoint_file(ck);
    int moments = 0;
    for (int i = 0; i < f->n_tensors; i++) {
        if (strncmp(f->tensors[i].name, "optim.", 6) != 0) continue;
        int64_t n;
        float *x = read_all(ck, f->tensors[i].name, &n);
        for (int64_t k = 0; k < n; k++) assert_true(x[k] == 0);
        free(x);
        moments++;
    }
    assert_int_equal(3 * moments, 2 * f->n_tensors);
    assert_non_null(safetensors_find(f, "optim.v.model.layers.1.mlp.down_proj.weight"));
    checkpoint_close(ck);
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void bf16_is_rounded_to_the_nearest_and_ties_to_even(void **state) {
    (void)state;
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = {{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81},
                 {0x3f818000, 0x3f82}, {0x3f817fff, 0x3f81}, {0xbf808001, 0xbf81},
                 {0x80000000, 0x8000}, {0x00000001, 0x0000}, {0x00018000, 0x0002},
                 {0x7f7fffff, 0x7f80}, {0xff800000, 0xff80}, {0x7fffffff, 0x7fc0},
                 {0x7f800001, 0x7fc0}};
    enum { N = sizeof cases / sizeof *cases };
    copy_golden("hf_untied");
    Checkpoint *ck;
    char *path = mem_printf("%s/model.safetensors", hf);
    assert_status_ok(checkpoint_open(&ck, path));
    const SafeFile *f = checkpoint_file(ck);
    int64_t at = f->data_start + safetensors_find(f, "model.norm.weight")->begin;
    checkpoint_close(ck);
    StrBuf file = read_file(hf, "model.safetensors");
    for (int i = 0; i < N; i++) {
        float x = float_of(cases[i].from);
        memcpy(file.text + at + 4 * i, &x, 4);
    }
    write_file(hf, "model.safetensors", file.text, file.len);
    assert_status_ok(hf_import(hf, ckpt));
    assert_status_ok(export_as(out, DT_BF16, HF_SHARD_BYTES));
    char *exported = mem_printf("%s/model.safetensors", out);
    uint16_t found[N];
    assert_status_ok(checkpoint_open(&ck, exported));
    assert_status_ok(checkpoint_read(ck, "model.norm.weight", 0, N, found));
    checkpoint_close(ck);
    for (int i = 0; i < N; i++)
        if (found[i] != cases[i].to)
            fail_msg("%08x became %04x, expected %04x", cases[i].from, found[i], cases[i].to);
    strbuf_free(&file);
    free(path), free(exported);
}

/* ---- config.json ---------------------------------------------------------------------------- */

#define DIMENSIONS                                                                                 \
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "                  \
    "\"num_attention_heads\": 4, \"intermediate_size\": 128, \"vocab_size\": 256"
#define LLAMA3                                                                                     \
    "\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, "                      \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192"

static Status parse(Config *c, const char *text) {
    return hf_config_parse(c, "config.json", text, (int64_t)strlen(text));
}

static void the_forms_of_transformers_4_and_5_say_the_same(void **state) {
    (void)state;
    static const char *const texts[] = {
        DIMENSIONS ", \"rope_theta\": 500000.0, \"rope_scaling\": {" LLAMA3 "}, \"torch_dtype\": \"x\"}",
        DIMENSIONS ", \"rope_parameters\": {\"rope_theta\": 500000.0, " LLAMA3 "}, \"dtype\": \"x\"}"};
    StrBuf printed[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        Config c;
        assert_status_ok(parse(&c, texts[i]));
        assert_true(c.model.rope_theta == 500000 && c.model.rope_scaling.factor == 32);
        assert_true(c.model.rope_scaling.low == 1 && c.model.rope_scaling.high == 4);
        assert_int_equal(c.model.rope_scaling.original, 8192);
        hf_config_print(&c, DT_BF16, &printed[i]);
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

static void numbers_are_written_as_python_writes_them(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{500000, "500000.0"}, {1e-5, "1e-05"},       {0.02, "0.02"},
                 {12345.678, "12345.678"}, {1e-6, "1e-06"}, {0.0001, "0.0001"},
                 {1.0 / 3, "0.3333333333333333"}, {1, "1.0"}, {1.5e-7, "1.5e-07"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Config c = {.model = {.rope_theta = cases[i].value}};
        StrBuf b = {0};
        char *line = mem_printf("\"rope_theta\": %s,", cases[i].text);
        hf_config_print(&c, DT_F32, &b);
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
        {"{\"weight_map\": {\"a\": \"a.safetensors\", \"a\": \"b.safetensors\"}}", "'a' appears twice"},
    };
    HfIndex index;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_status_fails(
            hf_index_parse(&index, "index", cases[i].text, (int64_t)strlen(cases[i].text)), ERR_USER,
            cases[i].message);
}

/* ---- directories that do not fit together ---------------------------------------------------- */

/* Replaces every `from` in a file of `hf` by `to`. */
static void replace(const char *name, const char *from, const char *to) {
    StrBuf text = read_file(hf, name), changed = {0};
    int n = 0;
    for (size_t i = 0; i < text.len;) {
        bool here = text.len - i >= strlen(from) && memcmp(text.text + i, from, strlen(from)) == 0;
        strbuf_append(&changed, here ? to : text.text + i, here ? strlen(to) : 1);
        i += here ? strlen(from) : 1;
        n += here;
    }
    if (n == 0) fail_msg("%s holds no %s", name, from);
    write_file(hf, name, changed.text, changed.len);
    strbuf_free(&text);
    strbuf_free(&changed);
}

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
         "have tensor 'lm_head.weight', for which config.json does not call (tie_word_embeddings is "
         "true)"},
        {"hf_tied", config, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
         "lack tensor lm_head.weight, for which config.json calls (tie_word_embeddings is not true)"},
        {"hf_untied", single, "model.norm.weight", "model.nor_.weight", "lack tensor model.norm.weight"},
        {"hf_untied", single, "\"F32\"", "\"I32\"", "of type I32, expected F32 or BF16"},
        {"hf_untied", single, "\"F32\"", "\"F16\"", "dtype 'F16', known are"},
        {"hf_tied", part, "model.norm.weight", "model.nor_.weight", "which the index does not have"},
        {"hf_tied", index, "model.norm.weight", "zodel.norm.weight", "'model.norm.weight', which the"},
        {"hf_tied", index, "model.norm.weight", "aodel.norm.weight", "which does not hold it"},
        {"hf_tied", index, "00001-of", "00003-of", "which does not hold it"},
        {"hf_tied", index, "\"model.norm.weight\": \"model-00009", "\"model.norm.weight\": \"model-00003",
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
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, "is not a file of at most");
    assert_int_equal(unlink(config), 0);
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, "cannot open");
    free(path), free(config);
}

/* ---- the file system ------------------------------------------------------------------------- */

static void nothing_that_exists_is_overwritten(void **state) {
    (void)state;
    import_golden(0);
    assert_status_fails(hf_import("tests/golden/hf_tied", ckpt), ERR_USER, "exists");
    char *slashes = mem_printf("%s//", out);
    assert_int_equal(mkdir(out, 0777), 0); /* an empty one will do */
    assert_status_ok(export_as(slashes, DT_F32, HF_SHARD_BYTES));
    assert_status_fails(export_as(out, DT_F32, HF_SHARD_BYTES), ERR_USER, "it is not empty");
    assert_status_fails(export_as(ckpt, DT_F32, HF_SHARD_BYTES), ERR_USER, "Not a directory");
    char *deep = mem_printf("%s/missing/out", dir);
    assert_status_fails(export_as(deep, DT_F32, HF_SHARD_BYTES), ERR_ENV, "No such file");
    free(slashes), free(deep);
}

static void what_is_no_checkpoint_of_cria_is_not_exported(void **state) {
    (void)state;
    const HfExportOptions o = {.dtype = DT_F32, .shard_bytes = HF_SHARD_BYTES};
    assert_status_fails(hf_export("tests/golden/hf_untied/model.safetensors", out, &o), ERR_USER,
                        "holds no configuration");
    import_golden(0);
    StrBuf file = read_file(dir, "step_00000000.safetensors");
    file.text[file.len / 2] ^= 1;
    write_file(dir, "step_00000000.safetensors", file.text, file.len);
    assert_status_fails(export_as(out, DT_F32, HF_SHARD_BYTES), ERR_USER, "is damaged");
    assert_false(exists(out));
    strbuf_free(&file);
}

static void the_tokenizer_goes_along(void **state) {
    (void)state;
    import_golden(0);
    assert_int_equal(mkdir(hf, 0777), 0);
    write_file(hf, "tokenizer.json", "{\"a\": 1}", 8);
    write_file(hf, "merges.txt", "a b\n", 4);
    write_file(hf, "config.json", "not this one", 12);
    HfExportOptions o = {.dtype = DT_BF16, .shard_bytes = HF_SHARD_BYTES, .tokenizer = hf};
    assert_status_ok(hf_export(ckpt, out, &o));
    assert_same_files(hf, out, "tokenizer");
    assert_same_files(hf, out, "merges");
    char names[64][64];
    assert_int_equal(list(out, "", names), 5);
    delete_tree(out);
    char *file = mem_printf("%s/tokenizer.json", hf), *other = mem_printf("%s/config.json", hf);
    o.tokenizer = file;
    assert_status_ok(hf_export(ckpt, out, &o));
    assert_int_equal(list(out, "", names), 4);
    delete_tree(out);
    o.tokenizer = other;
    assert_status_fails(hf_export(ckpt, out, &o), ERR_USER, "found no file of a tokenizer");
    o.tokenizer = "/nonexistent";
    assert_status_fails(hf_export(ckpt, out, &o), ERR_USER, "cannot find the tokenizer");
    assert_int_equal(list(dir, "out", names), 0);
    free(file), free(other);
}

/* A limit on the size of a file is what a full disk is, to a process. */
static void an_export_that_fails_leaves_nothing(void **state) {
    (void)state;
    struct rlimit old, low = {.rlim_cur = 50000};
    import_golden(0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    Status exported = export_as(out, DT_F32, HF_SHARD_BYTES);
    char *sentence = mem_strdup(status_message());
    status_clear();
    assert_int_equal(unlink(ckpt), 0);
    Status imported = hf_import("tests/golden/hf_tied", ckpt);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    status_clear();
    assert_int_equal(exported, ERR_ENV);
    assert_int_equal(imported, ERR_ENV);
    assert_non_null(strstr(sentence, "model.safetensors: File too large"));
    char names[64][64];
    assert_int_equal(list(dir, "", names), 0);
    free(sentence);
}

static void a_killed_export_leaves_no_directory_and_does_not_hinder_the_next(void **state) {
    (void)state;
    char *tmp = mem_printf("%s.tmp", out), names[64][64];
    import_golden(1);
    assert_status_ok(export_as(hf, DT_BF16, 1)); /* many small files, each synced */
    int killed = 0;
    for (int delay = 0; delay < 20; delay++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            if (freopen("/dev/null", "w", stdout) == NULL) _exit(1);
            _exit(export_as(out, DT_BF16, 1) == OK ? 0 : 1);
        }
        while (!exists(tmp) && waitpid(child, NULL, WNOHANG) == 0) usleep(50);
        usleep((unsigned)delay * 300);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        if (exists(out)) {
            assert_same_files(hf, out, "");
            delete_tree(out);
        } else {
            killed += exists(tmp);
        }
    }
    assert_true(killed > 0);
    assert_status_ok(export_as(out, DT_BF16, 1));
    assert_same_files(hf, out, "");
    assert_int_equal(list(dir, "out", names), 1);
    free(tmp);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_imported_untied_model_computes_what_transformers_does),
        TEST(an_imported_tied_model_computes_what_transformers_does),
        TEST(weights_are_exported_to_the_bytes_that_transformers_wrote),
        TEST(export_import_and_export_again_gives_equal_directories),
        TEST(a_checkpoint_made_by_import_is_that_of_a_run_at_step_0),
        TEST(bf16_is_rounded_to_the_nearest_and_ties_to_even),
        TEST(the_forms_of_transformers_4_and_5_say_the_same),
        TEST(what_is_missing_has_the_defaults_of_transformers),
        TEST(numbers_are_written_as_python_writes_them),
        TEST(a_config_of_another_model_is_refused),
        TEST(an_index_that_is_none_is_refused),
        TEST(a_config_that_does_not_match_the_weights_is_refused),
        TEST(a_damaged_directory_is_refused),
        TEST(nothing_that_exists_is_overwritten),
        TEST(what_is_no_checkpoint_of_cria_is_not_exported),
        TEST(the_tokenizer_goes_along),
        TEST(an_export_that_fails_leaves_nothing),
        TEST(a_killed_export_leaves_no_directory_and_does_not_hinder_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
