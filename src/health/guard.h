/* guard.h: what becomes of a step whose numbers are not to be trusted: a loss or gradient that is
 * not finite, or a spike of either. The decision falls before any weight is touched and is the same
 * on every rank. */
#ifndef CRIA_HEALTH_GUARD_H
#define CRIA_HEALTH_GUARD_H

#include "metrics/sink.h"
#include "session/guard_state.h"
#include "session/step.h"

/* For step number `step` (updates and skips before it), whose reduced gradients the optimizer
 * holds. Nothing to find fault with: *update is true and record->kind NULL. Else run.on_nonfinite
 * or run.on_spike say what to do, and the record what was done: "spike"  only told "redo"   the
 * step was run again and the second time was right: *n and the gradients are those now "skip"   it
 * was wrong again: *update is false "stop"   ERR_ENV, agreed, with the message Collective; free
 * the record's message. */
Status guard_step(GuardState *g, Session *s, int64_t step, StepNumbers *n, bool *update,
                  GuardRecord *record);

#endif
