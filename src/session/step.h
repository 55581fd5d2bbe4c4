/* step.h: the one loop over micro-batches, and what its sums become: mean loss, gradient norm,
 * scale of the update. Training, its guard, evaluation, the search for numbers that are not finite
 * and `cria bench step` all run it. */
#ifndef CRIA_SESSION_STEP_H
#define CRIA_SESSION_STEP_H

#include "session/session.h"

/* Micro-batches `first` to first + n - 1 of a global batch, and what to do with them. */
typedef struct {
    int64_t first, n;
    bool train;   /* forward and backward: gradients are added up. Else forward only. */
    bool reduce;  /* the last backward also reduces the gradients over the ranks */
    int64_t step; /* with `phase` (a literal) what the watchdog names when it hangs */
    const char *phase;
    /* Micro-batch j, valid until the next call. Its Status need not be agreed. */
    Status (*read)(void *reader, int64_t j, const MicroBatch **mb);
    void *reader;
    /* with read NULL: from global batch `batch` of `data`, without a thread (loader_batch) */
    Dataset *data;
    const LoaderOptions *options;
    int64_t batch;
    /* Called after each micro-batch has been queued on s->stream; NULL: nothing is. */
    Status (*inspect)(void *inspector, const MicroBatch *mb);
    void *inspector;
} MicroBatches;

/* Of the global batch of a step. */
typedef struct {
    double loss, z_loss, grad_norm; /* per token that counts; loss without z_loss */
    double count; /* such tokens; 1 if there are none: then loss and gradients are 0 */
} StepNumbers;

/* Numbers of a rank that become those of all ranks in one reduction. The caller's own ones begin at
 * SUM_OWN. */
enum { SUM_LOSSES, SUM_COUNT = SUM_LOSSES + LLAMA_SUMS, SUM_OWN };

/* Queues the micro-batches on s->stream; the losses are added up in s->losses, *count becomes the
 * sum of this rank's label weights. Collective. */
Status session_accumulate(Session *s, const MicroBatches *batches, double *count);
/* Waits for them: takes s->losses into sums[SUM_LOSSES]. Then n sums (sums[SUM_COUNT] and the
 * caller's own are set) become those over all ranks, and loss and count of *numbers follow.
 * Collective. */
Status session_sum(Session *s, double *sums, int n, StepNumbers *numbers);
/* The norm of the reduced gradients, per token of numbers->count. Collective. */
Status session_grad_norm(Session *s, StepNumbers *numbers);
/* Update number `update` (from 1 on) with the reduced gradients, clipped to optim.clip. */
Status session_update(Session *s, int64_t update, double lr, const StepNumbers *numbers);

/* Reads s->losses into sums and sets them to zero. Waits for the stream. */
Status session_take_losses(Session *s, double sums[LLAMA_SUMS]);

#endif
