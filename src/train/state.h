/* state.h: all of a run that is not a tensor, and how it and the tensors go into a checkpoint and come
 * back, whatever the number of ranks. */
#ifndef CRIA_TRAIN_STATE_H
#define CRIA_TRAIN_STATE_H

#include "ckpt/checkpoint.h"
#include "train/guard.h"
#include "train/session.h"

typedef struct {
    int64_t step;  /* updates done; the next global batch is number `step` */
    double tokens; /* seen so far */
    GuardState guard;
} TrainState;

/* Begins run.dir/step_%08d.safetensors (collective), which state_pieces() of all ranks fill. Both
 * *file and *path are the caller's to end and to free. */
Status state_begin_save(Session *s, const TrainState *state, CkptSave **file, char **path);
/* This rank's part of weights and moments, in pieces of at most `most` elements, which the caller
 * frees; their data are where the optimizer has them, in device memory. */
CkptPiece *state_pieces(Session *s, int64_t most, int *n);

/* Finds the checkpoint that `resume` names: a path, or "auto" for the newest valid one of run.dir
 * (*path NULL when there is none). Verified by rank 0, agreed by all. *path is the caller's to free. */
Status state_find(const Config *c, Comm *host, const char *resume, char **path);

/* The state as a checkpoint's entries cria.step, cria.tokens and cria.guard (NULL: it has none) tell
 * it. ERR_USER when they do not or contradict each other. */
Status state_parse(TrainState *state, const char *step, const char *tokens, const char *guard);
/* Loads weights, moments and state (collective). ERR_USER when the file is of another model. */
Status state_load(Session *s, const char *path, TrainState *state);

#endif
