#include "train/eval.h"

#include <math.h>
#include <stdlib.h>

#include "cp/batch.h"
#include "session/step.h"
#include "text/tokenizer.h"

bool eval_due(const Config *c, int64_t step) {
    return c->run.eval_every > 0 && (step % c->run.eval_every == 0 || step == c->run.steps);
}

/* Megatron-LM evaluates at multiples of its eval_interval and after the last step, not at step 0,
 * each time on the next eval_iters global batches. A function of the step, so that checkpoints need
 * not store a position. */
void eval_samples(const Config *c, const Dataset *val, int64_t step, int64_t *first, int64_t *n) {
    *first = 0;
    *n = c->run.eval_sequences;
    if (c->data.order != ORDER_MEGATRON) {
        int64_t all = dataset_epoch_samples(val);
        *n = *n > 0 ? i64_min(*n, all) : all;
    } else if (step > 0 && c->run.eval_every > 0) {
        int64_t before = (step - (step % c->run.eval_every == 0)) / c->run.eval_every;
        *first = before * round_up(c->run.eval_sequences, c->batch.global);
    }
}

/* ---- bytes of ids ---------------------------------------------------------------------------- */

static Status read_bytes(const Config *c, int32_t *bytes) {
    Tokenizer *t = NULL;
    CHECK(tokenizer_load(&t, c->data.tokenizer));
    for (int32_t id = 0; id < c->model.vocab; id++) bytes[id] = (int32_t)tokenizer_bytes(t, id);
    tokenizer_free(t);
    return OK;
}

Status eval_open(Evaluator *e, const Session *s) {
    const Config *c = s->config;
    if (s->val.n == 0) return OK;
    e->sets = NEW(EvalNumbers, s->val.n);
    if (c->data.tokenizer[0] == '\0') return OK;
    e->bytes = NEW(int32_t, c->model.vocab);
    CHECK(comm_agree(s->comm.host, s->rank == 0 ? read_bytes(c, e->bytes) : OK));
    return comm_broadcast(s->comm.host, e->bytes, c->model.vocab, DT_I32, 0, NULL);
}

void eval_close(Evaluator *e) {
    free(e->bytes);
    free(e->losses);
    free(e->sets);
    *e = (Evaluator){0};
}

/* ---- sums over tokens ------------------------------------------------------------------------ */

/* Of a set, over all ranks in the end; from SUM_OWN on as session_sum() wants them. */
enum {
    TEXT_LOSS = SUM_OWN, /* of labels that have bytes */
    TEXT_BYTES,
    POSITION_LOSS,
    POSITION_TOKENS = POSITION_LOSS + EVAL_POSITIONS_MAX,
    SUMS = POSITION_TOKENS + EVAL_POSITIONS_MAX
};

/* Powers of two, so that runs with sequences of other lengths can be compared: below 16 tokens of
 * context, below 32, 64, ... */
enum { FIRST_END = 16 };
static int position_of(int64_t context) {
    int i = 0;
    for (int64_t end = FIRST_END; context >= end; end *= 2) i++;
    return i;
}

/* The last of the n ascending begins that is not behind `token`; begins[0] is 0. */
static int64_t begin_of(const int32_t *begins, int32_t n, int64_t token) {
    int32_t low = 0;
    while (n > 1) {
        int32_t half = n / 2;
        bool behind = begins[low + half] > token;
        low = behind ? low : low + half;
        n = behind ? half : n - half;
    }
    return begins[low];
}

typedef struct {
    Evaluator *e;
    Session *s;
    double *sums;
} SetSums;

/* Adds the rows of a micro-batch, which are in the order of its dispatch. */
static Status add_rows(void *set, const MicroBatch *mb) {
    const SetSums *a = set;
    const CpBatch *b = mb->cp_batch;
    Evaluator *e = a->e;
    if (b->S > e->n_losses) {
        e->losses = mem_grow(e->losses, b->S, sizeof *e->losses);
        e->n_losses = b->S;
    }
    CHECK(llama_losses(a->s->llama, b->S, e->losses, a->s->stream));
    for (int32_t row = 0; row < b->S; row++) {
        if (b->weights[row] == 0) continue;
        double loss = (double)e->losses[row];
        int64_t token = dispatch_token_of(&b->plan.dispatch, a->s->cp_options.rank, row);
        int at = position_of(token - begin_of(mb->doc_begin, mb->n_docs, token));
        a->sums[POSITION_LOSS + at] += loss;
        a->sums[POSITION_TOKENS + at] += (double)b->weights[row];
        int32_t bytes = e->bytes != NULL ? e->bytes[b->labels[row]] : 0;
        if (bytes > 0) a->sums[TEXT_LOSS] += loss;
        a->sums[TEXT_BYTES] += bytes;
    }
    return OK;
}

static EvalNumbers numbers_of(const char *name, const double *sums, int64_t seq_len) {
    EvalNumbers n = {.name = name,
                     .loss = sums[SUM_LOSSES + LLAMA_CE] / sums[SUM_COUNT],
                     .tokens = sums[SUM_COUNT],
                     .bits_per_byte = sums[TEXT_LOSS] / M_LN2 / sums[TEXT_BYTES],
                     .n_positions = position_of(seq_len - 1) + 1};
    for (int i = 0; i < n.n_positions; i++)
        n.positions[i] = (EvalPosition){.end = i64_min((int64_t)FIRST_END << i, seq_len),
                                        .loss = sums[POSITION_LOSS + i] / sums[POSITION_TOKENS + i],
                                        .tokens = sums[POSITION_TOKENS + i]};
    return n;
}

static Status eval_set(Evaluator *e, Session *s, Dataset *data, int64_t step, double *sums) {
    const Config *c = s->config;
    SetSums set = {e, s, sums};
    int64_t begin, n;
    eval_samples(c, data, step, &begin, &n);
    LoaderOptions o = s->loader;
    o.global = round_up(c->run.eval_sequences > 0 ? c->run.eval_sequences : n, c->batch.global);
    o.sample_shift = 0;
    o.samples_end = begin + n; /* the last micro-batches may reach past it */
    const MicroBatches batches = {.n = ceil_div(n, o.micro * s->dp),
                                  .step = step,
                                  .phase = "evaluation",
                                  .data = data,
                                  .options = &o,
                                  .batch = begin / o.global,
                                  .inspect = add_rows,
                                  .inspector = &set};
    CHECK(session_accumulate(s, &batches, &sums[SUM_COUNT]));
    StepNumbers numbers;
    return session_sum(s, sums, SUMS, &numbers);
}

Status eval_run(Evaluator *e, Session *s, int64_t step, EvalRecord *record) {
    int64_t seq_len = s->config->model.seq_len;
    double all[SUMS] = {0};
    for (int i = 0; i < s->val.n; i++) {
        double sums[SUMS] = {0};
        CHECK(eval_set(e, s, s->val.sets[i].data, step, sums));
        e->sets[i] = numbers_of(s->val.sets[i].name, sums, seq_len);
        for (int k = 0; k < SUMS; k++) all[k] += sums[k];
    }
    bool named = s->val.n > 0 && s->val.sets[0].name != NULL;
    *record = (EvalRecord){.step = step,
                           .all = numbers_of(NULL, all, seq_len),
                           .sets = e->sets,
                           .n_sets = named ? s->val.n : 0};
    return OK;
}
