/* state.h: all of a run that is not a tensor, and how it and the tensors go into a checkpoint and come
 * back, whatever the number of ranks. */
#ifndef CRIA_TRAIN_STATE_H
#define CRIA_TRAIN_STATE_H

#include "train/guard.h"
#include "train/session.h"

typedef struct {
    int64_t step;  /* updates done; the next global batch is number `step` */
    double tokens; /* seen so far */
    GuardState guard;
} TrainState;

/* Writes run.dir/step_%08d.safetensors (collective); *path is the caller's to free. */
Status state_save(Session *s, const TrainState *state, char **path, int64_t *bytes,
                  uint32_t *weights_crc);

/* Finds the checkpoint that `resume` names: a path, or "auto" for the newest valid one of run.dir
 * (*path NULL when there is none). Verified by rank 0, agreed by all. *path is the caller's to free. */
Status state_find(const Config *c, Comm *host, const char *resume, char **path);

/* Loads weights, moments and state (collective). ERR_USER when the file is of another model. */
Status state_load(Session *s, const char *path, TrainState *state);

#endif
