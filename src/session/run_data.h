/* run_data.h: the datasets of a run. */
#ifndef CRIA_SESSION_RUN_DATA_H
#define CRIA_SESSION_RUN_DATA_H

#include "comm/comm.h"
#include "config/config.h"
#include "data/dataset.h"

/* What is evaluated: a set of data.val, or the second share of data.split. */
typedef struct {
    const char *name; /* the configuration's; NULL: it has none, and is the only set */
    Dataset *data;
} ValSet;
typedef struct {
    ValSet *sets;
    int n; /* 0: no evaluation */
} ValSets;

/* Opens data.train, and what is evaluated. Needs no MPI and no device. On failure, too, what is
 * open is the caller's to close. */
Status run_data_open(const Config *c, Dataset **train, ValSets *val);
Status run_data_open_train(const Config *c, Dataset **train);
/* Opens them on all ranks, which must see the same files, and checks that they fit the
 * configuration (data/dataset_check.h). Collective. */
Status run_data_open_agreed(const Config *c, Comm *host, Dataset **train, ValSets *val);
void val_sets_close(ValSets *val);

#endif
