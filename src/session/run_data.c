#include "session/run_data.h"

#include <stdlib.h>
#include <string.h>

#include "comm/agree.h"
#include "comm/work.h"
#include "data/dataset_check.h"
#include "data/share.h"

static DatasetOptions train_options(const Config *c) {
    return (DatasetOptions){.sources = c->data.train,
                            .n_sources = c->data.n_train,
                            .format = c->data.format,
                            .seq_len = c->model.seq_len,
                            .vocab = c->model.vocab,
                            .seed = (uint64_t)c->run.seed,
                            .shuffle = true,
                            .split = c->data.split,
                            .eod = c->data.eod,
                            .order = c->data.order,
                            .samples = c->run.steps * c->batch.global};
}

/* Has data.split a share for validation? */
static bool splits_validation(const Config *c) {
    const char *second = strchr(c->data.split, ',');
    return second != NULL && strtod(second + 1, NULL) > 0;
}

/* As Megatron-LM counts them: its validation order depends on the number of samples. */
static int64_t validation_samples(const Config *c) {
    int64_t times = c->run.steps / c->run.eval_every + 1;
    return times * round_up(c->run.eval_sequences, c->batch.global);
}

Status run_data_open_train(const Config *c, Dataset **train) {
    const DatasetOptions o = train_options(c);
    return dataset_open(train, &o);
}

static Status open_set(ValSets *val, const char *name, const DatasetOptions *o) {
    val->sets = mem_grow(val->sets, val->n + 1, sizeof *val->sets);
    val->sets[val->n] = (ValSet){.name = name};
    return dataset_open(&val->sets[val->n++].data, o);
}

Status run_data_open(const Config *c, Dataset **train, ValSets *val) {
    DatasetOptions o = train_options(c);
    CHECK(run_data_open_train(c, train));
    if (c->run.eval_every == 0) return OK;
    o.part = SPLIT_VAL;
    o.samples = validation_samples(c);
    o.shuffle = false; /* the same sequences at every evaluation */
    if (c->data.n_val == 0) return splits_validation(c) ? open_set(val, NULL, &o) : OK;
    for (int i = 0, end; i < c->data.n_val; i = end) {
        end = config_set_end(c->data.val, c->data.n_val, i);
        o.sources = &c->data.val[i];
        o.n_sources = end - i;
        CHECK(open_set(val, c->data.val[i].set, &o));
    }
    return OK;
}

void val_sets_close(ValSets *val) {
    for (int i = 0; i < val->n; i++) dataset_close(val->sets[i].data);
    free(val->sets);
    *val = (ValSets){0};
}

/* ---- on all ranks ---------------------------------------------------------------------------- */

typedef struct {
    const Config *config;
    Dataset **train;
    ValSets *val;
} RunData;

static Status open_data(void *run_data) {
    const RunData *d = run_data;
    return run_data_open(d->config, d->train, d->val);
}

/* All ranks must see the same dataset files. */
static Status agree_data(const RunData *d, Comm *host) {
    StrBuf text = {0};
    dataset_describe(*d->train, &text);
    for (int i = 0; i < d->val->n; i++) dataset_describe(d->val->sets[i].data, &text);
    Status st = agree_text(host, "what is used", strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

static DatasetUse data_use(const Config *c, const char *name) {
    return (DatasetUse){.name = name,
                        .vocab = c->model.vocab,
                        .eod = c->data.eod,
                        .document_mask = c->data.mask == MASK_DOCUMENT,
                        .reset_positions = c->data.reset_positions,
                        .eod_mask_loss = c->data.eod_mask_loss};
}

/* All ranks have the same data: rank 0 checks them. */
static Status check_data(void *run_data) {
    const RunData *d = run_data;
    const Config *c = d->config;
    if (comm_world_rank() != 0) return OK;
    DatasetUse train = data_use(c, "data.train");
    train.epochs =
        (double)c->run.steps * (double)c->batch.global / (double)dataset_epoch_samples(*d->train);
    CHECK(dataset_check(*d->train, &train));
    Status st = OK;
    for (int i = 0; i < d->val->n && c->data.n_val > 0 && st == OK; i++) {
        const ValSet *set = &d->val->sets[i];
        bool named = set->name != NULL;
        char *name = mem_printf("data.val%s%s", named ? ": " : "", named ? set->name : "");
        const DatasetUse use = data_use(c, name);
        st = dataset_check(set->data, &use);
        free(name);
    }
    return st;
}

Status run_data_open_agreed(const Config *c, Comm *host, Dataset **train, ValSets *val) {
    RunData d = {.config = c, .train = train, .val = val};
    /* May take minutes: a compressed file is read to its end once. */
    CHECK(comm_agree_on_work(host, "opening data", open_data, &d));
    CHECK(agree_data(&d, host));
    share_unlink_all(); /* every rank has them open */
    return comm_agree_on_work(host, "looking into the data", check_data, &d);
}
