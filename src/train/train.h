/* train.h: `cria train`. */
#ifndef CRIA_TRAIN_TRAIN_H
#define CRIA_TRAIN_TRAIN_H

#include "config/config.h"

typedef struct {
    const char *resume; /* NULL, "auto" or a checkpoint's path */
    bool dry_run;
} TrainOptions;

/* Runs to run.steps and returns OK, or ERR_STOPPED after a save that a signal or the time limit
 * asked for. Collective: the Status is the same on every rank; rank 0 has the message. */
Status train_run(const Config *config, const TrainOptions *options);

#endif
