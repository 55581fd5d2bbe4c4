/* hook.h: run.on_save, a command that rank 0 starts beside training after each checkpoint, through
 * /bin/sh -c, in a process group of its own, with CRIA_CHECKPOINT, CRIA_STEP and CRIA_RUN_DIR. What
 * it prints goes to run.dir/on_save.log; how it ended goes to the sink.
 *
 * One runs at a time. While it does, the newest checkpoint waits for its turn, and an earlier one
 * that waited is left out. The checkpoints of both are not to be deleted. */
#ifndef CRIA_TRAIN_HOOK_H
#define CRIA_TRAIN_HOOK_H

#include "comm/comm.h"
#include "metrics/sink.h"

typedef struct Hook Hook;

/* NULL: there is no command. Config and sink are borrowed. On other ranks than 0 nothing is
 * started. Each function takes a NULL hook. */
Hook *hook_create(const Config *c, Sink *sink, int rank);
void hook_free(Hook *h); /* what still runs goes on */

/* The checkpoint is on disk. Never waits. After a request to stop nothing is started any more. */
void hook_saved(Hook *h, int64_t step, const char *path);
/* Reports a command that has ended, and starts the next. Never waits. */
void hook_poll(Hook *h);
/* The steps of the checkpoints that are in use; returns how many. */
enum { HOOK_STEPS = 2 };
int hook_steps(const Hook *h, int64_t steps[HOOK_STEPS]);

/* Waits until none runs or waits, at most run.on_save_minutes; if the run was stopped, or is while
 * this waits, 10 seconds, and starts nothing. What runs longer gets SIGTERM and, 5 seconds later,
 * SIGKILL, with its process group. Collective. */
Status hook_finish(Hook *h, Comm *host, bool stopped);

#endif
