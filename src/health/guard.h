/* guard.h: handles bad steps: a loss or gradient that is not finite, or a spike of either. It
 * decides before any weight changes, and alike on every rank. */
#ifndef CRIA_HEALTH_GUARD_H
#define CRIA_HEALTH_GUARD_H

#include "metrics/sink.h"
#include "session/guard_state.h"
#include "session/step.h"

/* Checks the numbers of step `step` (counted from 0), whose reduced gradients the optimizer holds,
 * against those of recent steps, and acts as run.on_nonfinite and run.on_spike say. *r records what
 * was done and why:
 *
 *     GUARD_PASSED      nothing is wrong
 *     GUARD_WARNED      a spike, only to be reported
 *     GUARD_RECOMPUTED  the second run was right: *n and the gradients are its own
 *     GUARD_SKIPPED     it was wrong again: the caller leaves out the update
 *     GUARD_STOPPED     ERR_ENV with r->message is returned on every rank
 *
 * The caller frees r->message. Collective. */
Status guard_step(GuardState *g, Session *s, int64_t step, StepNumbers *n, GuardRecord *r);

#endif
