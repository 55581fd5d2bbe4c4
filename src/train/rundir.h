/* rundir.h: the folder of a run: made if missing, locked against a second job, config.yaml written.
 */
#ifndef CRIA_TRAIN_RUNDIR_H
#define CRIA_TRAIN_RUNDIR_H

#include "config/config.h"

typedef struct {
    int lock; /* file descriptor, -1: none */
} RunDir;

/* For rank 0. Locks run.dir. Where a job of this host that is known to run holds the lock: ERR_USER
 * at once. A lock held by anyone else, such as what is left of a job that was killed or a host that
 * is gone, is waited for, a tenth of run.watchdog_seconds, then ERR_ENV. ERR_USER when run.dir
 * already holds a run and resume is NULL, so that nothing is overwritten by mistake; ERR_ENV when
 * it cannot be written. */
Status rundir_open(RunDir *d, const Config *config, const char *resume);
/* For rank 0: makes run.dir/NAME this text, or leaves what was there (ERR_ENV). */
Status rundir_write(const Config *config, const char *name, const char *text);
/* For rank 0: config.yaml, once it is known that the run can start. */
Status rundir_write_config(const Config *config);
void rundir_close(RunDir *d);

#endif
