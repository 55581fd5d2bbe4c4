/* run_data.h: the datasets of a run. */
#ifndef CRIA_SESSION_RUN_DATA_H
#define CRIA_SESSION_RUN_DATA_H

#include "comm/comm.h"
#include "config/config.h"
#include "data/dataset.h"

/* Opens data.train, and data.val or the second share of data.split (*val stays NULL: there is
 * none). Needs no MPI and no device. */
Status run_data_open(const Config *c, Dataset **train, Dataset **val);
Status run_data_open_train(const Config *c, Dataset **train);
/* Opens them on all ranks, which must see the same files, and checks that they fit the
 * configuration (data/dataset_check.h). Collective. */
Status run_data_open_agreed(const Config *c, Comm *host, Dataset **train, Dataset **val);

#endif
