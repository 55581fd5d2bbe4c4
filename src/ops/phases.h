/* phases.h: how long a stream spends in each part of a step. At any time a timed stream is in one
 * phase; phase_enter() marks a change with an event of the stream, so that on a GPU the time is
 * that of its work, and of its waiting. Nobody waits for these events: those of a step are read
 * while the next one runs. On a stream that is not timed (Stream.phases NULL) every call returns at
 * once. */
#ifndef CRIA_OPS_PHASES_H
#define CRIA_OPS_PHASES_H

#include "ops/ops.h"

#define PHASE_LIST(X)                                                                              \
    X(DATA, data) /* waiting for the loader */                                                     \
    X(FORWARD, forward)                                                                            \
    X(BACKWARD, backward)                                                                          \
    X(CP_EXPOSED, cp_exposed)   /* attention waits for transfers of context parallelism */         \
    X(GRAD_REDUCE, grad_reduce) /* of the gradients, as far as the backward does not hide it */    \
    X(OPTIMIZER, optimizer)     /* zeroing, norm of the gradient, update */                        \
    X(WEIGHT_GATHER, weight_gather)                                                                \
    X(WAIT, wait) /* for other ranks: agreement, sums */                                           \
    X(SAVE, save) /* training stands still for a checkpoint */                                     \
    X(EVAL, eval)                                                                                  \
    X(OTHER, other) /* guard, comparison of weights, records, generated texts */

typedef enum {
#define X(id, name) PHASE_##id,
    PHASE_LIST(X)
#undef X
        PHASES
} Phase;
typedef struct Phases Phases;
extern const char *const phase_names[PHASES];

/* Times `stream` from here on; it is in PHASE_OTHER. Free before the stream. */
Status phases_start(Stream *stream);
void phases_free(Stream *stream);

/* Returns the phase that this ends, for the caller to go back to. */
Phase phase_enter(Stream *stream, Phase phase);
/* The same, and until phase_release() no call changes it: for a part that runs what has phases of
 * its own, such as an evaluation. Does not nest. */
Phase phase_hold(Stream *stream, Phase phase);
void phase_release(Stream *stream, Phase before);

/* stream_sync(), and events that it has waited for are read by the next call. */
Status phases_sync(Stream *stream);
/* stream_sync(); ms[PHASES] get what was spent in each phase since the last call or the start. */
Status phases_take(Stream *stream, double *ms);

#endif
