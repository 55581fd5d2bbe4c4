#include "data/documents.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- progress -------------------------------------------------------------------------------- */

void progress_start(Progress *p, int64_t total) {
    *p = (Progress){.total = total, .begin = time_now()};
}

static void progress_step(Progress *p, int64_t tokens) {
    double now = time_now();
    p->done += tokens;
    if (now - p->shown < 0.5 || !isatty(STDERR_FILENO)) return;
    double seconds = now - p->begin, share = (double)p->done / (double)i64_max(1, p->total);
    p->shown = now;
    fprintf(stderr, "\r%5.1f %%  %.0f of %.0f M tokens, %.0f M/s, %.0f s left ", 100 * share,
            (double)p->done / 1e6, (double)p->total / 1e6, (double)p->done / 1e6 / seconds,
            seconds / share * (1 - share));
}

void progress_end(Progress *p) {
    if (p->shown > 0) fprintf(stderr, "\r%*s\r", 76, "");
}

/* ---- documents ------------------------------------------------------------------------------- */

enum { CHUNK = 1 << 20 };

struct DocumentReader {
    const TokenFile *file;
    int64_t eod, vocab;
    Progress *progress;
    int32_t *ids, *bounds; /* a chunk, and where in it documents begin */
    int64_t at, n;         /* the chunk: its first token in the file, its length */
    int64_t n_bounds, bound, taken;
    bool inside; /* the next piece goes on with a document */
};

DocumentReader *documents_open(const TokenFile *file, int64_t eod, int64_t vocab,
                               Progress *progress) {
    DocumentReader *r = NEW(DocumentReader, 1);
    *r = (DocumentReader){.file = file,
                          .eod = eod,
                          .vocab = vocab,
                          .progress = progress,
                          .ids = NEW(int32_t, CHUNK + 1),
                          .bounds = NEW(int32_t, CHUNK)};
    return r;
}

void documents_close(DocumentReader *r) {
    if (r == NULL) return;
    free(r->ids);
    free(r->bounds);
    free(r);
}

static Status read_chunk(DocumentReader *r) {
    int64_t count = tokens_count(r->file);
    r->at += r->n;
    r->n = i64_min(CHUNK, count - r->at);
    r->taken = r->bound = r->n_bounds = 0;
    if (r->n == 0) return OK;
    CHECK(tokens_read(r->file, r->at, i64_min(r->n + 1, count - r->at), r->vocab, r->ids));
    r->n_bounds = tokens_boundaries(r->file, r->at, r->n, r->eod, r->ids, r->bounds);
    progress_step(r->progress, r->n);
    return OK;
}

bool documents_next(DocumentReader *r, Piece *piece, Status *st) {
    *st = r->taken == r->n ? read_chunk(r) : OK;
    if (*st != OK || r->n == 0) return false;
    int64_t end = r->bound < r->n_bounds ? r->bounds[r->bound++] : r->n;
    bool last = r->at + r->n == tokens_count(r->file) && end == r->n;
    bool ends = last || (r->bound > 0 && r->bounds[r->bound - 1] == end);
    *piece = (Piece){r->ids + r->taken, end - r->taken, !r->inside, ends};
    r->inside = !ends;
    r->taken = end;
    return true;
}
