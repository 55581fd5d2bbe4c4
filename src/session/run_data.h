/* run_data.h: the datasets of a run, stage by stage. */
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

/* Stages with the same data.train and model.seq_len, one after the other, go on in one order of
 * samples. Another one begins with its sample 0; a source that an earlier order of the same
 * model.seq_len had goes on where that was in its own shuffle. */
typedef struct {
    const Config *config; /* of the stage */
    Dataset *train;       /* the same one for all stages of an order */
    bool begins_order;
    int64_t first_sample; /* of the order, that the stage's first step begins with */
    ValSets val;          /* shared by the stages of a sequence length */
    bool owns_val;
    SourceStart *ends; /* with begins_order: of each source, where the order ends */
} StageData;
typedef struct {
    StageData *stages; /* [n], as config_of_stage() counts them */
    int n;
} RunData;

/* Opens data.train of each stage, and what is evaluated. Needs no MPI and no device. On failure,
 * too, what is open is the caller's to close. */
Status run_data_open(const Config *c, RunData *data);
/* data.train alone, of one stage. */
Status run_data_open_train(const Config *c, Dataset **train);
/* Opens them on all ranks, which must see the same files, and checks that they fit the
 * configuration (data/dataset_check.h). Collective. */
Status run_data_open_agreed(const Config *c, Comm *host, RunData *data);
void run_data_close(RunData *data);

/* Sample of the order of stage k that update number `step` + 1, one of the stage, begins with. */
int64_t run_data_sample(const RunData *data, const Config *c, int k, int64_t step);
/* dataset_describe() of the training data of the stages 0 ... k, each order once. */
void run_data_describe(const RunData *data, int k, StrBuf *out);

#endif
