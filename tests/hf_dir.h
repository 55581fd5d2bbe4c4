/* hf_dir.h: for tests of Hugging Face directories: a fresh directory per test, files in it, and the
 * golden directories that transformers wrote (tests/golden/make_hf.py). */
#ifndef CRIA_TESTS_HF_DIR_H
#define CRIA_TESTS_HF_DIR_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hf/hf.h"
#include "test.h"

static char dir[64], ckpt[96], hf[96], out[96];

static inline int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_hf.XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(ckpt, sizeof ckpt, "%s/step_00000000.safetensors", dir);
    snprintf(hf, sizeof hf, "%s/hf", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    status_clear();
    return 0;
}

static inline int delete_one(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static inline void delete_tree(const char *path) {
    assert_int_equal(nftw(path, delete_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static inline int tear_down(void **state) {
    (void)state;
    delete_tree(dir);
    return 0;
}

static inline bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static inline StrBuf read_file(const char *where, const char *name) {
    char *path = mem_printf("%s/%s", where, name), part[4096];
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("cannot open %s", path);
    StrBuf text = {0};
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_append(&text, part, n);
    fclose(f);
    free(path);
    return text;
}

static inline void write_file(const char *where, const char *name, const void *bytes, size_t n) {
    char *path = mem_printf("%s/%s", where, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

/* The names in a directory that begin with `start`, and their number. */
static inline int list(const char *where, const char *start, char names[64][64]) {
    DIR *d = opendir(where);
    if (d == NULL) fail_msg("cannot list %s", where);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.' && strncmp(e->d_name, start, strlen(start)) == 0)
            snprintf(names[n++], 64, "%.63s", e->d_name);
    closedir(d);
    return n;
}

/* What an expression writes to `stream` (1 or 2): expect_output(2, "warning", st = f()). NULL:
 * nothing. */
static inline int begin_output(int stream) {
    char *path = mem_printf("%s/output", dir);
    fflush(stdout);
    int saved = dup(stream), fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    assert_true(saved >= 0 && fd >= 0 && dup2(fd, stream) == stream);
    close(fd);
    free(path);
    return saved;
}
static inline void end_output(int stream, int saved, const char *expected) {
    fflush(stdout);
    assert_int_equal(dup2(saved, stream), stream);
    close(saved);
    StrBuf text = read_file(dir, "output");
    char *path = mem_printf("%s/output", dir);
    assert_int_equal(unlink(path), 0);
    free(path);
    if (expected == NULL ? text.len > 0 : strstr(strbuf_text(&text), expected) == NULL)
        fail_msg("printed \"%s\", expected \"%s\"", strbuf_text(&text),
                 expected != NULL ? expected : "nothing");
    strbuf_free(&text);
}
#define expect_output(stream, expected, expr)                                                      \
    do {                                                                                           \
        int saved_ = begin_output(stream);                                                         \
        expr;                                                                                      \
        end_output(stream, saved_, expected);                                                      \
    } while (0)

/* A copy that can be broken. */
static inline void copy_golden(const char *name) {
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
static inline void assert_same_files(const char *a, const char *b, const char *start) {
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

/* Replaces every `from` in a file of `hf` by `to`. */
static inline void replace(const char *name, const char *from, const char *to) {
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

static inline Status export_as(const char *to, Dtype dtype, int64_t shard_bytes) {
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

static inline void import_golden(int i) {
    char *from = mem_printf("tests/golden/%s", golden[i].name);
    if (exists(ckpt)) assert_int_equal(unlink(ckpt), 0);
    assert_status_ok(hf_import(from, ckpt));
    free(from);
}

#endif
