/* guard_state.h: what the guard against bad steps remembers of earlier ones, as checkpoints keep
 * it. */
#ifndef CRIA_SESSION_GUARD_STATE_H
#define CRIA_SESSION_GUARD_STATE_H

#include "base/base.h"

enum { GUARD_WINDOW = 100 };

/* Kept in checkpoints, so that a resumed run decides as an uninterrupted one. */
typedef struct {
    int64_t skipped, in_a_row;   /* updates left out so far, and those just before this step */
    int64_t seen;                /* steps, of which the last GUARD_WINDOW are kept: */
    double losses[GUARD_WINDOW]; /* number i at i % GUARD_WINDOW */
    double norms[GUARD_WINDOW];  /* of gradients, likewise; 0 = not known (older checkpoints) */
} GuardState;

/* How many of the steps seen have their loss and norm in the arrays. */
static inline int64_t guard_steps_kept(const GuardState *g) {
    return i64_min(g->seen, GUARD_WINDOW);
}

/* One line, and back. ERR_USER when it is not one. */
void guard_print(const GuardState *g, StrBuf *out);
Status guard_parse(GuardState *g, const char *text);

#endif
