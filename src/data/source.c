#include "data/source.h"

#include <errno.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/dataset.h"
#include "base/file.h"
#include "base/text.h"

/* ---- names --------------------------------------------------------------------------------- */

/* What lies beside token files and is not one. */
static bool is_companion(const char *path) {
    static const char *const ends[] = {".idx", ".idx.gz", ".gz.index", ".tmp"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (text_ends_with(path, ends[i])) return true;
    return false;
}

static int glob_error; /* errno of a folder that could not be read; of the main thread */

/* 0: goes on without this folder. */
static int note_error(const char *folder, int error) {
    (void)folder;
    if (file_open_status(error) == ERR_ENV) glob_error = error;
    return glob_error;
}

static Status match(const char *pattern, char ***paths, int *n) {
    glob_t found = {0};
    glob_error = 0;
    int rc = glob(pattern, 0, note_error, &found);
    if (glob_error != 0) {
        globfree(&found);
        return status_fail(ERR_ENV, "cannot look for token files %s: %s", pattern,
                           strerror(glob_error));
    }
    *paths = NEW(char *, (int64_t)found.gl_pathc);
    *n = 0;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc; i++)
        if (!is_companion(found.gl_pathv[i])) (*paths)[(*n)++] = mem_strdup(found.gl_pathv[i]);
    globfree(&found);
    if (*n > 0) return OK;
    free(*paths);
    *paths = NULL;
    return status_fail(ERR_USER, "no token file matches the pattern %s", pattern);
}

Status source_expand(const char *path, char ***paths, int *n) {
    *paths = NULL;
    *n = 0;
    bool is_missing = access(path, F_OK) != 0 && file_open_status(errno) == ERR_USER;
    if (strpbrk(path, "*?[") != NULL && is_missing) return match(path, paths, n);
    *paths = NEW(char *, 1);
    (*paths)[0] = mem_strdup(path);
    *n = 1;
    return OK;
}

/* ---- parts --------------------------------------------------------------------------------- */

void split_range(const char *split, int part, int64_t n, int64_t *begin, int64_t *end) {
    *begin = 0;
    *end = n;
    if (split[0] == '\0') return;
    double share[SPLIT_PARTS] = {0}, border[SPLIT_PARTS + 1] = {0};
    char *next = (char *)(uintptr_t)split;
    for (int i = 0; i < SPLIT_PARTS && *next != '\0'; i++) {
        share[i] = strtod(next, &next);
        next += strspn(next, " ,");
    }
    double sum = share[0] + share[1] + share[2];
    for (int i = 0; i < SPLIT_PARTS; i++) border[i + 1] = border[i] + share[i] / sum;
    *begin = (int64_t)nearbyint(border[part] * (double)n);
    *end = (int64_t)nearbyint(border[part + 1] * (double)n);
}

static Status cut(SourceFile *f, const SourceOptions *o) {
    const MegatronIndex *x = tokens_index(f->tokens);
    if (x != NULL) { /* Megatron's GPT datasets are split by sequence */
        split_range(o->split, o->part, x->sequences, &f->first_sequence, &f->end_sequence);
        f->begin = megatron_start(x, f->first_sequence);
        f->end = megatron_start(x, f->end_sequence);
        return OK;
    }
    split_range(o->split, o->part, tokens_count(f->tokens), &f->begin, &f->end);
    if (o->split[0] == '\0') return OK;
    if (o->eod < 0)
        return status_fail(ERR_USER,
                           "data.split cuts between documents, but %s has no index that says where "
                           "they are; set data.eod to the id that ends a document",
                           tokens_path(f->tokens));
    CHECK(tokens_document_from(f->tokens, f->begin, o->eod, &f->begin));
    return tokens_document_from(f->tokens, f->end, o->eod, &f->end);
}

static Status too_short(const Source *s, const SourceOptions *o) {
    static const char *const parts[] = {"training", "validation", "test"};
    int64_t most = 0;
    for (int i = 0; i < s->n_files; i++) most = i64_max(most, s->files[i].end - s->files[i].begin);
    StrBuf part = {0};
    if (o->split[0] != '\0')
        strbuf_printf(&part, "the %s part (data.split %s) of ", parts[o->part], o->split);
    status_fail(ERR_USER,
                "%s%s %s has %s%lld tokens, but one sample of model.seq_len %lld needs "
                "%lld; use a longer file or a shorter seq_len",
                strbuf_text(&part), s->n_files > 1 ? "every file of" : "token file", o->path,
                s->n_files > 1 ? "at most " : "", (long long)most, (long long)o->seq_len,
                (long long)o->seq_len + 1);
    strbuf_free(&part);
    return ERR_USER;
}

Status source_open(Source *s, const SourceOptions *o) {
    char **paths = NULL;
    int n = 0;
    *s = (Source){.path = mem_strdup(o->path)};
    Status st = source_expand(o->path, &paths, &n);
    s->files = NEW(SourceFile, n);
    for (int i = 0; i < n && st == OK; i++) {
        SourceFile *f = &s->files[s->n_files++];
        st = tokens_open(&f->tokens, paths[i], o->format);
        if (st == OK) st = cut(f, o);
        if (st != OK) break;
        f->samples = i64_max(0, f->end - f->begin - 1) / o->seq_len;
        f->samples_before = s->samples;
        s->samples += f->samples;
    }
    for (int i = 0; i < n; i++) free(paths[i]);
    free(paths);
    if (st == OK && s->samples == 0) st = too_short(s, o);
    return st;
}

void source_close(Source *s) {
    for (int i = 0; i < s->n_files; i++) tokens_close(s->files[i].tokens);
    free(s->files);
    free(s->path);
    *s = (Source){0};
}

const SourceFile *source_find(const Source *s, int64_t *k) {
    int low = 0, high = s->n_files;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (s->files[middle].samples_before <= *k)
            low = middle;
        else
            high = middle;
    }
    *k -= s->files[low].samples_before;
    return &s->files[low];
}
