/* rundir.h: the folder of a run: created, locked against a second job, config.yaml written. */
#ifndef CRIA_TRAIN_RUNDIR_H
#define CRIA_TRAIN_RUNDIR_H

#include "config/config.h"

typedef struct {
    int lock; /* file descriptor, -1: none */
} RunDir;

/* For rank 0: creates and locks run.dir. ERR_USER at once if a running job of this host holds the
 * lock; for any other holder, such as what a killed job left or another host, waits a tenth of
 * run.watchdog_seconds, then ERR_ENV. ERR_USER if run.dir already holds a run that this one does
 * not go on with, so that nothing is overwritten by mistake; ERR_ENV if it cannot be written. */
Status rundir_open(RunDir *d, const Config *config, bool continues);
/* For rank 0: replaces run.dir/NAME by this text, or leaves it as it was (ERR_ENV). */
Status rundir_write(const Config *config, const char *name, const char *text);
/* For rank 0: writes config.yaml, when nothing else can keep the run from starting. */
Status rundir_write_config(const Config *config);
void rundir_close(RunDir *d);

#endif
