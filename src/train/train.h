/* train.h: `cria train`. */
#ifndef CRIA_TRAIN_TRAIN_H
#define CRIA_TRAIN_TRAIN_H

#include "config/config.h"

typedef struct {
    const char *resume; /* NULL, "auto", or the path of a checkpoint or of a folder of them */
    const char *from;   /* NULL, or such a path: the run is a branch of another one */
    bool dry_run;
} TrainOptions;

/* Runs to run.steps and returns OK, or ERR_STOPPED after a save that a signal or the time limit
 * asked for. Collective: the Status is the same on every rank; rank 0 has the message. */
Status train_run(const Config *config, const TrainOptions *options);

#endif
