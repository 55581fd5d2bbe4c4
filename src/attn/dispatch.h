/* dispatch.h: which rank holds which tokens. The stream is cut into chunks of equal size; every
 * rank holds the same number of chunks, in ascending order, so every rank has the same number of
 * rows.
 *
 * Padding: when S is no multiple of chunk * P the stream is lengthened to n_chunks * chunk. Padding
 * tokens come last, belong to no band (o = 0, no gradient), and the caller gives them weight 0.
 * The grid (chunk, n_chunks, rows) depends on sizes and options alone, never on the mask: buffers
 * keep their shape when documents change from step to step.
 *
 * A chunk size of a few tokens on a long stream gives more chunks than can be tried one by one:
 * then blocks of neighbouring chunks are assigned. */
#ifndef CRIA_ATTN_DISPATCH_H
#define CRIA_ATTN_DISPATCH_H

#include "attn/mask.h"

#define DISPATCH_LIST(X)                                                                           \
    X(AUTO, "auto")                 /* contiguous for full and window masks and where that is      \
                                       balanced; zigzag for causal; two_level with > 1 node;       \
                                       else local_search */                                        \
    X(CONTIGUOUS, "contiguous")     /* rank r holds the r-th P-th of the stream */                 \
    X(ZIGZAG, "zigzag")             /* of 2P pieces of each sequence, r and 2P - 1 - r */          \
    X(MIN_HEAP, "min_heap")         /* heaviest chunk first, to the least loaded rank */           \
    X(LOCAL_SEARCH, "local_search") /* swaps of chunks: balance first, then rows to move */        \
    X(TWO_LEVEL, "two_level")       /* local_search over nodes, then inside each node */

typedef enum {
#define X(name, text) DISPATCH_##name,
    DISPATCH_LIST(X)
#undef X
        DISPATCH_KINDS
} DispatchKind;
extern const char *const dispatch_kind_names[DISPATCH_KINDS];

typedef struct {
    int P;
    DispatchKind kind;
    int64_t T;           /* tokens of a sequence; 0 = S. Aligns the grid and zigzag to sequences */
    int64_t chunk;       /* tokens; 0 = chosen: see dispatch_grid */
    int chunks_per_rank; /* aimed at when chunk is 0; 0 = 8 */
    int ranks_per_node;  /* 0 or P: one node. Divides P */
    double slack;        /* imbalance that local search may leave, e.g. 0.05; 0 = 0.04 */
    int64_t trials;      /* swaps that local search tries; 0 = chosen, -1 = none */
} DispatchOptions;

typedef struct {
    int P;
    DispatchKind kind; /* the one used; never AUTO */
    int64_t S, padded; /* tokens; tokens with padding = n_chunks * chunk = P * rows */
    int32_t chunk, n_chunks, chunks_per_rank, rows;
    int32_t *owner;  /* [n_chunks] rank that holds a chunk */
    int32_t *slot;   /* [n_chunks] its place among that rank's chunks */
    int32_t *chunks; /* [P * chunks_per_rank] chunks of rank 0, of rank 1, ...; ascending */
} Dispatch;

/* The grid for these options: chunk size and number of chunks. Rule for chunk = 0: about
 * S / (chunks_per_rank * P) tokens, a multiple of 128 (of a smaller power of two for short
 * streams), an even number of chunks per rank, with the least padding. P = 1: one chunk. ERR_USER
 * when the sizes are out of bounds or the given chunk leaves ranks without a chunk. */
Status dispatch_grid(int64_t S, const DispatchOptions *o, int32_t *chunk, int32_t *n_chunks);

Status dispatch_build(Dispatch *out, const Mask *mask, const DispatchOptions *o);
void dispatch_free(Dispatch *d);

/* Maps between stream positions [0, padded) and (rank, row). */
static inline int dispatch_rank_of(const Dispatch *d, int64_t token) {
    return d->owner[token / d->chunk];
}
static inline int32_t dispatch_row_of(const Dispatch *d, int64_t token) {
    return d->slot[token / d->chunk] * d->chunk + (int32_t)(token % d->chunk);
}
static inline int64_t dispatch_token_of(const Dispatch *d, int rank, int32_t row) {
    int64_t chunk = d->chunks[(int64_t)rank * d->chunks_per_rank + row / d->chunk];
    return chunk * d->chunk + row % d->chunk;
}
/* The tokens of a rank as a normal list (neighbouring chunks joined, padding included). */
void dispatch_runs(const Dispatch *d, int rank, RangeList *out);

#endif
