/* changes.h: can this run go on from a checkpoint, and what is different from there on? */
#ifndef CRIA_TRAIN_CHANGES_H
#define CRIA_TRAIN_CHANGES_H

#include "session/train_state.h"

/* Step, tokens and what else the header says of the run; not state->samples. ERR_USER when it is
 * not there. */
Status changes_read_state(const Checkpoint *ck, const char *path, TrainState *state);

/* Reads the state of the run from the header of a checkpoint and holds it against the session:
 * ERR_USER for another model, for other data or another order of them without
 * run.allow_data_change, and for a file that does not say what it is. Local, the same on every
 * rank.
 *
 * state->samples becomes where the data go on in this run's order, also with another batch.global
 * or model.seq_len. `warnings` gets a line for each change that needs a look, `notes` one of
 * others. */
Status changes_check(const Session *s, const Checkpoint *ck, const char *path, TrainState *state,
                     StrBuf *warnings, StrBuf *notes);

#endif
