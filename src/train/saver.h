/* saver.h: asynchronous checkpoints. A save copies the state to page-locked host memory
 * (snapshot.h); then training continues, while a thread of each rank writes that rank's part of the
 * file, and afterwards a thread of rank 0 completes the file and deletes what exceeds
 * run.keep_last.
 *
 * These threads do not communicate. Collective work is done by the training threads between two
 * steps: the loop sums saver_ready() over the ranks in the reduction of each step, and calls
 * saver_advance() when all are ready. One checkpoint is written at a time.
 *
 * Training waits until a save is on disk if run.save_async is false, or if the host lacks memory
 * for a copy of everything: then the state is written through a small one. */
#ifndef CRIA_TRAIN_SAVER_H
#define CRIA_TRAIN_SAVER_H

#include "metrics/sink.h"
#include "session/train_state.h"
#include "train/hook.h"

typedef struct Saver Saver;

/* From here on each checkpoint is told to this hook (NULL: none), which is borrowed; those that it
 * uses are not deleted. */
void saver_set_hook(Saver *v, Hook *hook);

/* Removes .tmp files of interrupted saves from run.dir and, when checkpoints are planned, allocates
 * the copy, which can take seconds. Session and sink are borrowed. Collective. */
Status saver_create(Saver **saver, Session *s, Sink *sink);
void saver_free(Saver *v); /* while nothing is being written; NULL is allowed */

/* Begins a checkpoint of the current state, after an earlier one is on disk. With `wait` it is on
 * disk on return. ERR_ENV, here and below, when it cannot be written: its .tmp is removed, earlier
 * checkpoints are untouched. Collective. */
Status saver_save(Saver *v, const TrainState *state, bool wait);
/* Call before the state changes: waits until it has been copied. Local. */
Status saver_release(Saver *v);
/* Whether this rank's thread has finished its work. Local. */
bool saver_ready(const Saver *v);
/* Call when all ranks are ready: starts the next phase, or reports the checkpoint, now on disk, to
 * the sink. Collective. */
Status saver_advance(Saver *v);
/* Waits until nothing is being written; NULL is allowed. Reports progress to the watchdog, however
 * slow the disk is. Collective. */
Status saver_join(Saver *v);

#endif
