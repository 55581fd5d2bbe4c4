/* branch.h: where the checkpoints of run.dir come from. A run that goes on from a checkpoint is a
 * branch: what run.dir holds of later steps is abandoned, and a checkpoint from elsewhere is
 * remembered until run.dir has one of its own. */
#ifndef CRIA_TRAIN_BRANCH_H
#define CRIA_TRAIN_BRANCH_H

#include "config/config.h"

/* Does the path name a checkpoint of run.dir, under the name that saves give it? */
bool branch_has(const Config *c, const char *path);
/* The checkpoint from elsewhere that the run began with; *path NULL: it began at step 0, or not
 * yet. */
Status branch_read_origin(const Config *c, char **path);
/* Is the checkpoint `origin`, as branch_read_origin() gives it (NULL: none), the one that `from`
 * names, or one of the folder `from`? */
bool branch_is_of(const char *origin, const char *from);
/* *again: run.dir has no checkpoint, and is what a run from `from` left that ended before its first
 * save. */
Status branch_begins_again(const Config *c, const char *from, bool *again);
/* On rank 0, before anything is saved: the run goes on from `path` (NULL: from nothing) of `step`,
 * so that --resume auto follows it. names gets a line with each new name of a later checkpoint. */
Status branch_take(const Config *c, const char *path, int64_t step, StrBuf *names);

#endif
