#include "train/eval.h"

#include "session/step.h"

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
        *n = i64_min(*n, dataset_epoch_samples(val));
    } else if (step > 0 && c->run.eval_every > 0) {
        int64_t before = (step - (step % c->run.eval_every == 0)) / c->run.eval_every;
        *first = before * round_up(c->run.eval_sequences, c->batch.global);
    }
}

Status eval_run(Session *s, int64_t step, double *loss, double *tokens) {
    int64_t begin, n;
    eval_samples(s->config, s->val_data, step, &begin, &n);
    LoaderOptions o = s->loader;
    o.global = round_up(s->config->run.eval_sequences, s->config->batch.global);
    o.sample_shift = 0;
    o.samples_end = begin + n; /* the last micro-batches may reach past it */
    const MicroBatches batches = {.n = ceil_div(n, o.micro * s->dp),
                                  .step = step,
                                  .phase = "evaluation",
                                  .data = s->val_data,
                                  .options = &o,
                                  .batch = begin / o.global};
    double sums[SUM_OWN] = {0};
    CHECK(session_accumulate(s, &batches, &sums[SUM_COUNT]));
    StepNumbers numbers;
    CHECK(session_sum(s, sums, SUM_OWN, &numbers));
    *loss = numbers.loss;
    *tokens = sums[SUM_COUNT];
    return OK;
}
