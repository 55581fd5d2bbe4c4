/* rundir.h: the folder of a run: made if missing, locked against a second job, config.yaml written. */
#ifndef CRIA_TRAIN_RUNDIR_H
#define CRIA_TRAIN_RUNDIR_H

#include "config.h"

typedef struct {
    int lock; /* file descriptor, -1: none */
} RunDir;

/* For rank 0. ERR_USER when another job holds the folder, or when it already holds a run and resume is
 * NULL (so that nothing is overwritten by mistake); ERR_ENV when it cannot be written. */
Status rundir_open(RunDir *d, const char *dir, const char *resume);
/* For rank 0: config.yaml, once it is known that the run can start. */
Status rundir_write_config(const Config *config);
void rundir_close(RunDir *d);

#endif
