/* saver.h: checkpoints written beside training. A save copies the state to page-locked host memory;
 * from then on training goes on, while a thread of every rank writes that rank's part of the file
 * and rank 0's then completes it and deletes what run.keep_last no longer wants.
 *
 * The threads do not communicate. What takes all ranks is done by the training threads between two
 * steps: the loop adds saver_ready() up over the ranks in the reduction that it does anyway, and
 * calls saver_advance() where the sum is the number of ranks. One checkpoint is written at a time.
 *
 * Training waits for the whole of a save where run.save_async is false or the host lacks memory for
 * the copy: then the state is written through a small one. */
#ifndef CRIA_TRAIN_SAVER_H
#define CRIA_TRAIN_SAVER_H

#include "metrics/sink.h"
#include "session/train_state.h"

typedef struct Saver Saver;

/* Removes what an interrupted save left in run.dir and, when checkpoints are planned, allocates the
 * copy, which takes seconds where it is large. Session and sink are borrowed. Collective. */
Status saver_create(Saver **saver, Session *s, Sink *sink);
void saver_free(Saver *v); /* nothing is being written; NULL is fine */

/* Begins a checkpoint of the state as it is (collective); joins an earlier one first. With `wait`
 * it is on disk when this returns. ERR_ENV, here and below, when it cannot be written: its .tmp is
 * removed, earlier checkpoints are untouched. */
Status saver_save(Saver *v, const TrainState *state, bool wait);
/* Before anything changes the state: waits until it is copied. Local. */
Status saver_release(Saver *v);
/* Is this rank's thread done with what it was given? */
bool saver_ready(const Saver *v);
/* When saver_ready() holds on every rank (collective). Reports the checkpoint to the sinks when it
 * is on disk. */
Status saver_advance(Saver *v);
/* Waits until nothing is being written (collective); NULL is fine. However slow a disk is, the
 * watchdog sees it move. */
Status saver_join(Saver *v);

#endif
