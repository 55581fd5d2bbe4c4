/* guard.h: what becomes of a step whose numbers are not to be trusted: a loss or gradient that is not
 * finite, or a spike of either. The decision falls before any weight is touched and is the same on
 * every rank. */
#ifndef CRIA_TRAIN_GUARD_H
#define CRIA_TRAIN_GUARD_H

#include "session/session.h"
#include "metrics/sink.h"

enum { GUARD_WINDOW = 100 };

/* Kept in checkpoints, so that a resumed run decides as an uninterrupted one. */
typedef struct {
    int64_t skipped, in_a_row;   /* updates left out so far, and those just before this step */
    int64_t seen;                /* steps, of which the last GUARD_WINDOW are kept: */
    double losses[GUARD_WINDOW]; /* number i at i % GUARD_WINDOW */
    double norms[GUARD_WINDOW];  /* of gradients, likewise; 0 = not known (older checkpoints) */
} GuardState;

/* One line, and back. ERR_USER when it is not one. */
void guard_print(const GuardState *g, StrBuf *out);
Status guard_parse(GuardState *g, const char *text);

/* Of the global batch of a step. */
typedef struct {
    double loss, grad_norm, count; /* count: weights of the tokens, that the gradient is still to be
                                      divided by */
} StepNumbers;

/* For step number `step` (updates and skips before it), whose reduced gradients the optimizer holds.
 * Nothing to find fault with: *update is true and record->kind NULL. Else run.on_nonfinite or
 * run.on_spike say what to do, and the record what was done:
 *   "spike"  only told
 *   "redo"   the step was run again and the second time was right: *n and the gradients are those now
 *   "skip"   it was wrong again: *update is false
 *   "stop"   ERR_ENV, agreed, with the sentence
 * Collective; free the record's sentence. */
Status guard_step(GuardState *g, Session *s, int64_t step, StepNumbers *n, bool *update,
                  GuardRecord *record);

#endif
