/* train_state.h: the state of a run beside its tensors, and how both are saved to a checkpoint and
 * loaded from it, on any number of ranks. */
#ifndef CRIA_SESSION_TRAIN_STATE_H
#define CRIA_SESSION_TRAIN_STATE_H

#include "ckpt/checkpoint.h"
#include "ckpt/run_layout.h"
#include "session/guard_state.h"
#include "session/session.h"

typedef struct {
    int64_t step;    /* updates done; the next global batch is number `step` */
    int64_t samples; /* seen of the present data order: the next batch begins with this number */
    double tokens;   /* seen so far */
    GuardState guard;
} TrainState;

/* Begins run.dir/step_%08d.safetensors, to which each rank then writes its state_pieces(). The
 * caller ends *file and frees *path. Collective. */
Status state_begin_save(Session *s, const TrainState *state, CkptSave **file, char **path);
/* This rank's part of weights and moments, in pieces of at most `most` elements. Their data are the
 * optimizer's, in device memory; the caller frees the list. */
CkptPiece *state_pieces(Session *s, int64_t most, int *n);

/* Its tensors; CkptPiece.tensor counts in their order. */
RunLayout state_layout(const Session *s);

/* Parses the entries cria.step, cria.tokens and cria.guard (NULL: absent) of a checkpoint. ERR_USER
 * when they are malformed or contradict each other. */
Status state_parse(TrainState *state, const char *step, const char *tokens, const char *guard);
/* Loads weights and moments from an open checkpoint that has the right tensors (collective), and
 * compares the CRC-32 of every byte that a rank has read with those in the file. ERR_USER: the file
 * is damaged. ERR_ENV: it cannot be read, or what a rank has is not what the file holds; names the
 * rank and the tensor. *weights_crc is of the weights in memory. */
Status state_load(Session *s, Checkpoint *ck, uint32_t *weights_crc);

#endif
