/* guard.h: what becomes of a step whose numbers are not to be trusted: a loss or gradient that is
 * not finite, or a spike of either. The decision falls before any weight is touched and is the same
 * on every rank. */
#ifndef CRIA_HEALTH_GUARD_H
#define CRIA_HEALTH_GUARD_H

#include "metrics/sink.h"
#include "session/guard_state.h"
#include "session/step.h"

/* Judges step number `step` (updates and skips before it), whose reduced gradients the optimizer
 * holds, by its numbers and those of earlier steps. If they are not to be trusted, run.on_nonfinite
 * or run.on_spike decides, and *r says what was done and why:
 *
 *     GUARD_PASSED      nothing was found
 *     GUARD_WARNED      a spike: reported, nothing else
 *     GUARD_RECOMPUTED  run again, the step was right: *n and the gradients are those of now
 *     GUARD_SKIPPED     it was wrong again: the update must be left out
 *     GUARD_STOPPED     returns ERR_ENV with the message, agreed
 *
 * Collective. The caller frees r->message. */
Status guard_step(GuardState *g, Session *s, int64_t step, StepNumbers *n, GuardRecord *r);

#endif
