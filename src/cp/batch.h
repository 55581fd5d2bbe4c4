/* batch.h: a micro-batch as one rank of a context-parallel group sees it: its mask, the plan under
 * that mask, and this rank's tokens in the order that the plan fixes. Pure host work, done on the
 * loader's thread. */
#ifndef CRIA_CP_BATCH_H
#define CRIA_CP_BATCH_H

#include "attn/plan.h"
#include "data/loader.h"

typedef struct {
    CpBackend backend;
    int rank, size;     /* place in the context-parallel group */
    int ranks_per_node; /* of the group; 0 = all on one */
    int64_t chunk_size; /* 0 = chosen */
    int overlap_degree; /* -1 = chosen */
    RingAccum ring_accum;
    int64_t tokens, seq_len; /* of a micro-batch over the whole group (B * T); of a sequence (T) */
    MaskSpec mask;
    int H, K, D;
} CpOptions;

/* One rank's part of a micro-batch, in host memory: what the loader's thread prepares. */
struct CpBatch {
    AttnPlan plan;
    RankPlan mine; /* this rank's tables */
    uint64_t hash; /* of the plan: equal hashes, equal work */
    int64_t S;     /* local tokens, padding included; the same for every micro-batch */
    int32_t *tokens, *labels, *positions; /* [S] */
    float *weights;                       /* [S]; 0 on padding */
    double weight_sum;                    /* over this rank's tokens */
    double area;                          /* allowed pairs of the whole micro-batch */
};

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

#endif
