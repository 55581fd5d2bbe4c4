#include "data/dataset_check.h"

#include <stdlib.h>

#include "base/log.h"

enum {
    LOOKED_AT = 4 << 20, /* tokens of a source: thousands of documents, 15 ms */
    ENOUGH = 64 << 10,   /* tokens in which a vocabulary shows its upper ids */
    TOO_MANY_EPOCHS = 1000
};

/* What the beginning of a source holds. */
typedef struct {
    int64_t tokens, eods;
    int32_t largest;
    bool all;          /* nothing of the source is left */
    bool has_index;    /* of every file looked at */
    int64_t documents; /* by the indices */
} Findings;

static Status look_at_file(Findings *f, const SourceFile *file, const DatasetUse *use,
                           int32_t *ids) {
    enum { STEP = 1 << 16 };
    const MegatronIndex *index = tokens_index(file->tokens);
    if (index == NULL)
        f->has_index = false;
    else
        f->documents += index->documents;
    for (int64_t at = file->begin; at < file->end && f->tokens < LOOKED_AT; at += STEP) {
        int64_t n = i64_min(STEP, file->end - at);
        CHECK(tokens_read(file->tokens, at, n, use->vocab, ids));
        for (int64_t i = 0; i < n; i++) {
            f->largest = ids[i] > f->largest ? ids[i] : f->largest;
            f->eods += ids[i] == use->eod;
        }
        f->tokens += n;
        f->all = at + n == file->end;
    }
    return OK;
}

static void warn_of_vocabulary(const Source *s, const DatasetUse *use, const Findings *f) {
    IdType type = tokens_id_type(s->files[0].tokens);
    if (use->vocab > id_type_largest(type) + 1)
        log_warn_once("model.vocab is %lld, but the ids of %s are %s, at most %lld: were they made "
                      "for this vocabulary?",
                      (long long)use->vocab, s->path, id_type_name(type),
                      (long long)id_type_largest(type));
    else if (f->tokens >= ENOUGH && f->largest < use->vocab / 4)
        log_warn_once("the largest id in the first %lld tokens of %s is %d, far below model.vocab "
                      "%lld: was the file made with another tokenizer?",
                      (long long)f->tokens, s->path, f->largest, (long long)use->vocab);
}

/* "data.mask document and data.eod_mask_loss" */
static void print_keys(const DatasetUse *use, bool documents, bool eod, StrBuf *out) {
    const char *const keys[] = {documents && use->document_mask ? "data.mask document" : NULL,
                                documents && use->reset_positions ? "data.reset_positions" : NULL,
                                eod && use->eod_mask_loss ? "data.eod_mask_loss" : NULL};
    for (int i = 0; i < 3; i++)
        if (keys[i] != NULL) strbuf_printf(out, "%s%s", out->len > 0 ? " and " : "", keys[i]);
}

static void warn_of_documents(const Source *s, const DatasetUse *use, const Findings *f) {
    StrBuf by_eod = {0}, by_index = {0};
    if (use->eod >= 0) print_keys(use, !f->has_index, true, &by_eod);
    print_keys(use, f->has_index, false, &by_index);
    if (by_eod.len > 0 && f->eods == 0)
        log_warn_once("data.eod %lld, needed for %s, does not occur in the %s%lld tokens of %s",
                      (long long)use->eod, by_eod.text, f->all ? "" : "first ",
                      (long long)f->tokens, s->path);
    if (by_eod.len > 0 && f->eods > f->tokens / 2)
        log_warn_once("%lld of the first %lld tokens of %s are data.eod %lld: is it the id that "
                      "ends documents?",
                      (long long)f->eods, (long long)f->tokens, s->path, (long long)use->eod);
    if (by_index.len > 0 && f->documents == 1 && f->tokens >= ENOUGH)
        log_warn_once("the index of %s holds a single document: is %s meant?", s->path,
                      by_index.text);
    strbuf_free(&by_eod);
    strbuf_free(&by_index);
}

static Status look_at_source(const Source *s, const DatasetUse *use, int32_t *ids) {
    Findings f = {.largest = -1, .has_index = true};
    int i = 0;
    for (; i < s->n_files && f.tokens < LOOKED_AT; i++)
        CHECK(look_at_file(&f, &s->files[i], use, ids));
    if (i < s->n_files) f.all = false;
    warn_of_vocabulary(s, use, &f);
    warn_of_documents(s, use, &f);
    return OK;
}

Status dataset_check(const Dataset *data, const DatasetUse *use) {
    enum { MOST = 64 }; /* sources; more would delay the start */
    int32_t *ids = NEW(int32_t, 1 << 16);
    int n;
    const Source *sources = dataset_sources(data, &n);
    Status st = OK;
    for (int i = 0; i < n && i < MOST && st == OK; i++) st = look_at_source(&sources[i], use, ids);
    free(ids);
    if (st == OK && use->epochs >= TOO_MANY_EPOCHS)
        log_warn_once(
            "the run is %.0f epochs of %s, whose files hold %lld tokens: is that all of it?",
            use->epochs, use->name, (long long)dataset_tokens(data));
    return st;
}
