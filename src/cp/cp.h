/* cp.h: seam 3, attention across the ranks of a context-parallel group. Rows: none, ring, magi,
 * allgather, ulysses. Whatever the runtime, a rank holds S tokens of the stream in an order that
 * the plan fixes (tokens, labels, positions and weights are dispatched alike), and attention over
 * the whole stream is one forward and one backward call per layer. */
#ifndef CRIA_CP_CP_H
#define CRIA_CP_CP_H

#include "ops/arena.h"
#include "attn/plan.h"
#include "comm/comm.h"
#include "data/loader.h"

typedef struct {
    CpBackend backend;
    int rank, size;     /* place in the context-parallel group */
    int ranks_per_node; /* of the group; 0 = all on one */
    int64_t chunk_size; /* 0 = chosen */
    int overlap_degree; /* -1 = chosen */
    RingAccum ring_accum;
    int64_t tokens, seq_len; /* of a micro-batch over the whole group (B * T); of a sequence (T) */
    MaskKind mask;
    int64_t window;
    int H, K, D;
} CpOptions;

/* One rank's part of a micro-batch, in host memory: what the loader's thread prepares. */
typedef struct {
    AttnPlan plan;
    RankPlan mine; /* this rank's tables */
    uint64_t hash; /* of the plan: equal hashes, equal work */
    int64_t S;     /* local tokens, padding included; the same for every micro-batch */
    int32_t *tokens, *labels, *positions; /* [S] */
    float *weights;                       /* [S]; 0 on padding */
    double weight_sum;                    /* over this rank's tokens */
    double area;                          /* allowed pairs of the whole micro-batch */
} CpBatch;

/* Pure host work: mask from the micro-batch's documents, plan, dispatch. The options must have
 * passed cp_create or cp_tokens. */
CpBatch *cp_batch_create(const CpOptions *o, const MicroBatch *mb);
/* The same under any mask over o->tokens tokens. */
CpBatch *cp_batch_from_mask(const CpOptions *o, const Mask *mask, const MicroBatch *mb);
void cp_batch_free(CpBatch *b);
/* The mask of a micro-batch whose blocks start at doc_begin, and the plan that a batch of these
 * options has under a mask. */
Status cp_mask(Mask *out, const CpOptions *o, const int32_t *doc_begin, int64_t n_docs);
Status cp_plan(AttnPlan *out, const CpOptions *o, const Mask *mask);
/* S of every batch of these options. ERR_USER when the sizes do not fit the backend. */
Status cp_tokens(const CpOptions *o, int64_t *S);

typedef struct CpRuntime CpRuntime;

/* Reserves the runtime's buffers in the arena (region "cp"); usable after arena_commit. ops and
 * comm are borrowed. ERR_USER when the runtime cannot do what the options ask. */
Status cp_create(CpRuntime **rt, const CpOptions *o, const Ops *ops, Comm *comm, Arena *arena);
void cp_free(CpRuntime *rt);

/* Makes `batch` the one the following calls work on (uploads its work lists). */
Status cp_begin(CpRuntime *rt, const CpBatch *batch, Stream *stream);

/* How many attention calls a layer makes per direction with the current batch. */
int cp_stages(const CpRuntime *rt);

/* Starts fetching what the first step of cp_backward needs, so that it hides under the work queued
 * in between. Optional; kv as it will be given to cp_backward. */
Status cp_prefetch(CpRuntime *rt, const void *kv, Stream *stream);

/* o[S,H,D] and lse from local q[S,H,D], kv[S,2,K,D]. lse is the runtime's own: H*S floats that go
 * back into cp_backward unread. */
Status cp_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                  Stream *stream);
/* fp32 dq[S,H,D] and dkv[S,2,K,D], written whole. */
Status cp_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                   const float *lse, const void *q, const void *kv, Stream *stream);

#endif
