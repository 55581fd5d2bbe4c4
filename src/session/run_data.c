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
    Status st = dataset_open(&val->sets[val->n++].data, o);
    if (st != OK && name != NULL) status_prefix("data.val: %s", name);
    return st;
}

static Status open_val(const Config *c, ValSets *val) {
    DatasetOptions o = train_options(c);
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

/* ---- one order of samples after the other ---------------------------------------------------- */

static bool same_order(const Config *a, const Config *b) {
    if (a->model.seq_len != b->model.seq_len || a->data.n_train != b->data.n_train) return false;
    for (int i = 0; i < a->data.n_train; i++)
        if (strcmp(a->data.train[i].path, b->data.train[i].path) != 0 ||
            a->data.train[i].weight != b->data.train[i].weight)
            return false;
    return true;
}

/* How many of the sources before number i have its path. */
static int occurrence(const Config *c, int i) {
    int n = 0;
    for (int j = 0; j < i; j++) n += strcmp(c->data.train[j].path, c->data.train[i].path) == 0;
    return n;
}

/* Where source i of stage k was when the last order that had it ended; false: none had it. */
static bool find_end(const RunData *d, int k, int i, SourceStart *start) {
    const Config *c = d->stages[k].config;
    for (int e = k - 1; e >= 0; e--) {
        const Config *was = d->stages[e].config;
        if (!d->stages[e].begins_order || was->model.seq_len != c->model.seq_len) continue;
        for (int j = 0; j < was->data.n_train; j++)
            if (strcmp(was->data.train[j].path, c->data.train[i].path) == 0 &&
                occurrence(was, j) == occurrence(c, i)) {
                *start = d->stages[e].ends[j];
                return true;
            }
    }
    return false;
}

/* Sources that no order had are numbered on, so that each has a shuffle of its own. */
static int next_number(const RunData *d, int k) {
    int next = 0;
    for (int e = 0; e < k; e++)
        for (int j = 0; d->stages[e].begins_order && j < d->stages[e].config->data.n_train; j++)
            if (d->stages[e].ends[j].number >= next) next = d->stages[e].ends[j].number + 1;
    return next;
}

/* Of the stages from k on that go on in its order. */
static int64_t samples_of_order(const Config *c, int k) {
    int64_t samples = 0;
    const Config *first = config_of_stage(c, k);
    for (; k < config_n_stages(c) && same_order(first, config_of_stage(c, k)); k++)
        samples += config_steps(config_of_stage(c, k)) * config_of_stage(c, k)->batch.global;
    return samples;
}

static Status begin_order(const Config *c, RunData *d, int k) {
    StageData *stage = &d->stages[k];
    const Config *own = stage->config;
    int n = own->data.n_train, number = next_number(d, k);
    DatasetOptions o = train_options(own);
    SourceStart *starts = NEW(SourceStart, n);
    for (int i = 0; i < n; i++)
        if (!find_end(d, k, i, &starts[i])) starts[i].number = number++;
    o.starts = starts;
    stage->begins_order = true;
    stage->ends = starts;
    CHECK(dataset_open(&stage->train, &o));
    int64_t *counts = NEW(int64_t, n);
    if (config_n_stages(c) > 1 && own->data.order == ORDER_CRIA)
        dataset_count(stage->train, samples_of_order(c, k), counts);
    for (int i = 0; i < n; i++) starts[i].samples += counts[i];
    free(counts);
    return OK;
}

static Status open_stage(const Config *c, RunData *d, int k) {
    StageData *stage = &d->stages[k], *before = k > 0 ? stage - 1 : NULL;
    stage->config = config_of_stage(c, k);
    if (before != NULL && same_order(before->config, stage->config)) {
        stage->train = before->train;
        stage->first_sample =
            before->first_sample + config_steps(before->config) * before->config->batch.global;
    } else {
        CHECK(begin_order(c, d, k));
    }
    int e = 0;
    while (d->stages[e].config->model.seq_len != stage->config->model.seq_len) e++;
    stage->owns_val = e == k;
    if (e == k) return open_val(stage->config, &stage->val);
    stage->val = d->stages[e].val;
    return OK;
}

Status run_data_open(const Config *c, RunData *d) {
    *d = (RunData){.stages = NEW(StageData, config_n_stages(c)), .n = config_n_stages(c)};
    for (int k = 0; k < d->n; k++) {
        Status st = open_stage(c, d, k);
        if (st != OK && k > 0) status_prefix("%s", c->timeline[k].name);
        CHECK(st);
    }
    return OK;
}

static void val_sets_close(ValSets *val) {
    for (int i = 0; i < val->n; i++) dataset_close(val->sets[i].data);
    free(val->sets);
}

void run_data_close(RunData *d) {
    for (int k = 0; k < d->n; k++) {
        StageData *stage = &d->stages[k];
        if (stage->begins_order) dataset_close(stage->train);
        if (stage->owns_val) val_sets_close(&stage->val);
        free(stage->ends);
    }
    free(d->stages);
    *d = (RunData){0};
}

int64_t run_data_sample(const RunData *d, const Config *c, int k, int64_t step) {
    return d->stages[k].first_sample +
           (step - config_stage_from(c, k)) * d->stages[k].config->batch.global;
}

void run_data_describe(const RunData *d, int k, StrBuf *out) {
    for (int i = 0; i <= k; i++)
        if (d->stages[i].begins_order) dataset_describe(d->stages[i].train, out);
}

/* ---- on all ranks ---------------------------------------------------------------------------- */

typedef struct {
    const Config *config;
    RunData *data;
} Opening;

static Status open_data(void *opening) {
    const Opening *o = opening;
    return run_data_open(o->config, o->data);
}

/* All ranks must see the same dataset files. */
static Status agree_data(const RunData *d, Comm *host) {
    StrBuf text = {0};
    run_data_describe(d, d->n - 1, &text);
    for (int k = 0; k < d->n; k++)
        for (int i = 0; i < d->stages[k].val.n && d->stages[k].owns_val; i++)
            dataset_describe(d->stages[k].val.sets[i].data, &text);
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

static Status check_train(const StageData *stage, double samples) {
    DatasetUse train = data_use(stage->config, "data.train");
    train.epochs = samples / (double)dataset_epoch_samples(stage->train);
    return dataset_check(stage->train, &train);
}

static Status check_val(const StageData *stage) {
    const Config *c = stage->config;
    Status st = OK;
    for (int i = 0; i < stage->val.n && c->data.n_val > 0 && st == OK; i++) {
        const ValSet *set = &stage->val.sets[i];
        bool named = set->name != NULL;
        char *name = mem_printf("data.val%s%s", named ? ": " : "", named ? set->name : "");
        const DatasetUse use = data_use(c, name);
        st = dataset_check(set->data, &use);
        free(name);
    }
    return st;
}

/* All ranks have the same data: rank 0 checks them. */
static Status check_data(void *opening) {
    const Opening *o = opening;
    if (comm_world_rank() != 0) return OK;
    for (int k = 0; k < o->data->n; k++) {
        const StageData *stage = &o->data->stages[k];
        bool other_mask = k > 0 && stage->config->data.mask != stage[-1].config->data.mask;
        Status st = OK;
        if (stage->begins_order || other_mask)
            st = check_train(stage, (double)samples_of_order(o->config, k));
        if (st == OK && stage->owns_val) st = check_val(stage);
        if (st != OK && k > 0) status_prefix("%s", o->config->timeline[k].name);
        CHECK(st);
    }
    return OK;
}

Status run_data_open_agreed(const Config *c, Comm *host, RunData *data) {
    Opening o = {.config = c, .data = data};
    /* May take minutes: a compressed file is read to its end once. */
    CHECK(comm_agree_on_work(host, "opening data", open_data, &o));
    CHECK(agree_data(data, host));
    share_unlink_all(); /* every rank has them open */
    return comm_agree_on_work(host, "looking into the data", check_data, &o);
}
