/* loader.h: what a rank trains on. Global batch i of a run is a pure function of (seed, i); the
 * ranks of a data-parallel group take disjoint parts of it, the ranks of a context-parallel group
 * the same. A thread prepares micro-batches ahead. */
#ifndef CRIA_DATA_LOADER_H
#define CRIA_DATA_LOADER_H

#include "data/dataset.h"

/* One rank's part of a micro-batch: cp/cp.h. */
typedef struct CpBatch CpBatch;

/* B sequences of T tokens as one stream of B*T tokens. Host memory, owned by the loader. */
typedef struct {
    int64_t step, micro; /* which micro-batch of which step (0-based) */
    int64_t B, T;
    int32_t *tokens, *labels, *positions; /* [B*T]; labels[s] is the token after tokens[s] */
    float *weights;                       /* [B*T]: 1, or 0 where a label does not count */
    int64_t *samples;                     /* [B] dataset sample numbers, for messages */
    /* [n_docs] stream positions where an attention block starts: 0, every sequence, and with mask
     * document every document */
    int32_t *doc_begin;
    int32_t n_docs;
    int32_t *begins;   /* [T] scratch: where documents begin in one sequence */
    CpBatch *cp_batch; /* what LoaderOptions.prepare made of it; NULL: nothing did */
} MicroBatch;

typedef struct {
    int64_t global, micro; /* sequences */
    /* Step i takes the samples from sample_shift + i * global on. Not 0 after a resume with another
     * batch.global, which goes on where the samples were. */
    int64_t sample_shift;
    int64_t samples_end; /* samples from this number on count with weight 0; 0: all count */
    int dp_rank, dp_size;
    int64_t seq_len, eod; /* eod -1: none */
    bool documents;       /* break attention blocks at documents */
    bool reset_positions, eod_mask_loss;
    int depth; /* micro-batches prepared ahead; 0 = 4 */
    /* Runs on the loader's thread for each micro-batch: attention's plan and this rank's tokens. */
    CpBatch *(*prepare)(void *ctx, const MicroBatch *mb);
    void (*release)(CpBatch *batch); /* on either thread, never both at once */
    void *ctx;                       /* of prepare */
} LoaderOptions;

typedef struct Loader Loader;

/* Starts with the first micro-batch of first_step. The dataset is borrowed. */
Status loader_create(Loader **loader, Dataset *data, const LoaderOptions *options,
                     int64_t first_step);
/* The next micro-batch, in order (step, micro); valid until the following call. Waits if it is not
 * ready (seconds waited are added to *waited unless NULL). ERR_USER for an id outside the
 * vocabulary: file, offset, id. */
Status loader_next(Loader *loader, const MicroBatch **mb, double *waited);
void loader_free(Loader *loader);

/* The same content without a thread: micro-batch `micro` of `step` into mb (loader_batch_free).
 * Used by evaluation, by the search for a bad sample, and as the definition in tests. */
Status loader_batch(MicroBatch *mb, Dataset *data, const LoaderOptions *options, int64_t step,
                    int64_t micro);
void loader_batch_free(MicroBatch *mb, const LoaderOptions *options);

#endif
