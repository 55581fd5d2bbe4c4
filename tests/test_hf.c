/* Hugging Face directories: golden ones made by transformers are imported, computed with, and
 * exported to the same bytes; interruptions leave nothing. */
#include "test.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "ckpt/checkpoint.h"
#include "hf_dir.h"
#include "model_rig.h"

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

/* All of config.json but the version. */
static void an_export_says_what_the_imported_model_said(void **state) {
    (void)state;
    for (int i = 0; i < N_GOLDEN; i++) {
        char *from = mem_printf("tests/golden/%s", golden[i].name), *line;
        import_golden(i);
        assert_status_ok(export_as(out, golden[i].dtype, golden[i].shard_bytes));
        StrBuf a = read_file(from, "config.json"), b = read_file(out, "config.json");
        for (char *at = a.text; (line = strtok_r(NULL, "\n", &at)) != NULL;) {
            bool found = strstr(b.text, line) != NULL;
            if (!found && strstr(line, "transformers_version") == NULL)
                fail_msg("%s: no %s in %s", golden[i].name, line, b.text);
        }
        strbuf_free(&a);
        strbuf_free(&b);
        delete_tree(out);
        free(from);
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
    assert_status_fails(export_as(deep, DT_F32, HF_SHARD_BYTES), ERR_USER, "No such file");
    assert_status_fails(hf_import("tests/golden/hf_tied", deep), ERR_USER, "No such file");
    char *below = mem_printf("%s/out", ckpt);
    assert_status_fails(export_as(below, DT_F32, HF_SHARD_BYTES), ERR_USER, "Not a directory");
    assert_status_fails(hf_import("tests/golden/hf_tied", below), ERR_USER, "Not a directory");
    char *name = NEW(char, 300);
    memset(name, 'x', 299);
    char *longer = mem_printf("%s/%s", dir, name);
    assert_status_fails(export_as(longer, DT_F32, HF_SHARD_BYTES), ERR_USER, "name too long");
    assert_status_fails(hf_import("tests/golden/hf_tied", longer), ERR_USER, "name too long");
    name[252] = '\0'; /* DIR fits, DIR.tmp and CHECKPOINT.XXXXXX do not */
    char *almost = mem_printf("%s/%s", dir, name);
    assert_status_fails(export_as(almost, DT_F32, HF_SHARD_BYTES), ERR_USER, "name too long");
    assert_status_fails(hf_import("tests/golden/hf_tied", almost), ERR_USER, "name too long");
    free(below), free(name), free(longer), free(almost);
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
    for (int i = 0; i < 32; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            if (freopen("/dev/null", "w", stdout) == NULL) _exit(1);
            _exit(export_as(out, DT_BF16, 1) == OK ? 0 : 1);
        }
        while (!exists(tmp) && waitpid(child, NULL, WNOHANG) == 0) usleep(50);
        usleep((unsigned)(i % 8) * 300);
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
        TEST(an_export_says_what_the_imported_model_said),
        TEST(a_checkpoint_made_by_import_is_that_of_a_run_at_step_0),
        TEST(bf16_is_rounded_to_the_nearest_and_ties_to_even),
        TEST(nothing_that_exists_is_overwritten),
        TEST(what_is_no_checkpoint_of_cria_is_not_exported),
        TEST(an_export_that_fails_leaves_nothing),
        TEST(a_killed_export_leaves_no_directory_and_does_not_hinder_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
