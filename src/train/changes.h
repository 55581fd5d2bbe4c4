/* changes.h: whether a run can continue from a checkpoint, and what its configuration changes. */
#ifndef CRIA_TRAIN_CHANGES_H
#define CRIA_TRAIN_CHANGES_H

#include "session/train_state.h"

/* Reads step, tokens and guard of the run from the header; not state->samples. ERR_USER when they
 * are missing. */
Status changes_read_state(const Checkpoint *ck, const char *path, TrainState *state);

/* Reads the state, and compares model and tensors with the session's. ERR_USER names the first that
 * differs. */
Status changes_check_model(const Session *s, const Checkpoint *ck, const char *path,
                           TrainState *state);

/* Reads the state of the run from the header of a checkpoint and compares its configuration with
 * the session's. ERR_USER for other stages in the steps done, for another model, for other data or
 * another order without run.allow_data_change, and for a file without the entries. Local, the same
 * on every rank.
 *
 * state->samples becomes the first sample of the next batch, also with another batch.global or
 * model.seq_len. Changes that the user should check are added to `warnings`, others to `notes`, a
 * line each. */
Status changes_check(const Session *s, const Checkpoint *ck, const char *path, TrainState *state,
                     StrBuf *warnings, StrBuf *notes);

#endif
