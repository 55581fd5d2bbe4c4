#include "data/megatron_dataset.h"

#include <stdlib.h>

#include "data/order.h"

struct MegatronDataset {
    const SourceFile **files;
    Order **orders;
    int n;
    int64_t seq_len;
    Blend *blend; /* NULL: one file, not blended */
    int64_t size;
};

static Status take_files(MegatronDataset *m, const Source *sources, const DatasetOptions *o,
                         double *weights) {
    for (int i = 0; i < o->n_sources; i++) {
        const Source *s = &sources[i];
        if (s->n_files > 1 && o->sources[i].weight != 0)
            return status_fail(ERR_USER,
                               "%s matches %d files, but data.order megatron blends single files: "
                               "give each a path and a weight, or none a weight",
                               s->path, s->n_files);
        for (int f = 0; f < s->n_files; f++) {
            if (tokens_index(s->files[f].tokens) == NULL)
                return status_fail(
                    ERR_USER,
                    "data.order megatron needs the document index of a Megatron "
                    ".bin/.idx pair, and %s has none; use data.order cria, or convert "
                    "it: cria data pack --to megatron",
                    tokens_path(s->files[f].tokens));
            weights[m->n] = o->sources[i].weight;
            m->files[m->n++] = &s->files[f];
        }
    }
    return OK;
}

static Status open_order(MegatronDataset *m, int i, const DatasetOptions *o, int64_t samples) {
    const SourceFile *f = m->files[i];
    char *name = mem_printf("%s (%lld bytes, %08x)", tokens_path(f->tokens),
                            (long long)tokens_bytes(f->tokens), tokens_fingerprint(f->tokens));
    OrderOptions order = {.index = tokens_index(f->tokens),
                          .name = name,
                          .first = f->first_sequence,
                          .end = f->end_sequence,
                          .seq_len = o->seq_len,
                          .samples = samples,
                          .seed = (uint32_t)o->seed};
    Status st = order_open(&m->orders[i], &order);
    free(name);
    return st;
}

/* blended_megatron_dataset_builder.py, cases 2 (a), 3 (a) and 3 (c) of its build(). */
static Status open_orders(MegatronDataset *m, const DatasetOptions *o, double *weights) {
    bool weighted = weights[0] != 0, split = o->split != NULL && o->split[0] != '\0';
    if (m->n == 1 && !(weighted && split)) {
        CHECK(open_order(m, 0, o, o->samples));
        m->size = order_samples(m->orders[0]);
        return OK;
    }
    if (weighted) blend_normalize(m->n, weights);
    for (int i = 0; i < m->n; i++) {
        CHECK(open_order(m, i, o, weighted ? blend_request(o->samples, weights[i], 0.5) : -1));
        m->size +=
            weighted ? blend_request(o->samples, weights[i], 0) : order_samples(m->orders[i]);
        if (!weighted) weights[i] = (double)order_samples(m->orders[i]);
    }
    if (!weighted && o->part == SPLIT_TRAIN && o->samples > m->size)
        return status_fail(
            ERR_USER,
            "data.order megatron shows several files without weights once, %lld "
            "samples, but the run asks for %lld (run.steps x batch.global); give each "
            "file a weight, or use data.order cria",
            (long long)m->size, (long long)o->samples);
    if (!weighted) m->size = i64_min(m->size, o->samples);
    blend_normalize(m->n, weights);
    return blend_open(&m->blend, m->n, weights, m->size);
}

Status megatron_dataset_open(MegatronDataset **out, const Source *sources,
                             const DatasetOptions *o) {
    REQUIRE(o->samples >= 1 && o->seed <= UINT32_MAX);
    int64_t n = 0;
    for (int i = 0; i < o->n_sources; i++) n += sources[i].n_files;
    MegatronDataset *m = NEW(MegatronDataset, 1);
    *m = (MegatronDataset){
        .files = NEW(const SourceFile *, n), .orders = NEW(Order *, n), .seq_len = o->seq_len};
    double *weights = NEW(double, n);
    Status st = take_files(m, sources, o, weights);
    if (st == OK) st = open_orders(m, o, weights);
    free(weights);
    if (st != OK) {
        megatron_dataset_close(m);
        m = NULL;
    }
    *out = m;
    return st;
}

void megatron_dataset_close(MegatronDataset *m) {
    if (m == NULL) return;
    for (int i = 0; i < m->n; i++) order_close(m->orders[i]);
    blend_close(m->blend);
    free(m->orders);
    free(m->files);
    free(m);
}

/* The sequences that a sample consists of, one after the other. */
typedef struct {
    const Order *order;
    const TokenFile *file;
    int64_t position, offset; /* of the next piece, see order_find */
    int64_t left;             /* tokens that are still to come */
} Walk;

static Walk walk_sample(const MegatronDataset *m, int64_t n) {
    int which = 0;
    int64_t k = n % m->size; /* Megatron itself stops at the end */
    if (m->blend != NULL) which = blend_find(m->blend, k, &k);
    Walk w = {.order = m->orders[which], .file = m->files[which]->tokens, .left = m->seq_len + 1};
    order_find(w.order, k % order_samples(w.order), &w.position, &w.offset);
    return w;
}

static bool walk_next(Walk *w, SamplePiece *piece) {
    const MegatronIndex *x = tokens_index(w->file);
    while (w->left > 0) {
        int64_t sequence = order_sequence(w->order, w->position++);
        int64_t begin = megatron_start(x, sequence) + w->offset;
        int64_t tokens = i64_min(megatron_start(x, sequence + 1) - begin, w->left);
        w->offset = 0;
        w->left -= tokens;
        *piece = (SamplePiece){w->file, begin, tokens};
        if (tokens > 0) return true; /* else an empty document */
    }
    return false;
}

Status megatron_dataset_sample(const MegatronDataset *m, int64_t n, int64_t vocab, int32_t *tokens,
                               int32_t *begins, int32_t *n_begins) {
    Walk w = walk_sample(m, n);
    SamplePiece p;
    int32_t found = 0;
    for (int64_t have = 0; walk_next(&w, &p); have += p.tokens) {
        CHECK(tokens_read(p.file, p.begin, p.tokens, vocab, tokens + have));
        if (begins != NULL && have < m->seq_len) begins[found++] = (int32_t)have;
    }
    if (begins != NULL) *n_begins = found;
    return OK;
}

int64_t megatron_dataset_pieces(const MegatronDataset *m, int64_t n, SamplePiece **pieces) {
    Walk w = walk_sample(m, n);
    int64_t found = 0;
    *pieces = NEW(SamplePiece, m->seq_len + 1);
    while (walk_next(&w, &(*pieces)[found])) found++;
    return found;
}
