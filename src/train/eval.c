#include "train/eval.h"

#include "health/watchdog.h"

bool eval_due(const Config *c, int64_t step) {
    return c->run.eval_every > 0 && (step % c->run.eval_every == 0 || step == c->run.steps);
}

/* Megatron-LM evaluates at multiples of its eval_interval and after the last step, not at step 0,
 * each time on eval_iters global batches, and does not go back to the first one. A function of the
 * step, so that a resumed run needs to remember nothing. */
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
    double sums[2] = {0, 0};
    for (int64_t j = 0; j < ceil_div(n, o.micro * s->dp); j++) {
        watchdog_beat(step, "evaluation");
        MicroBatch mb;
        Status st = loader_batch(&mb, s->val_data, &o, begin / o.global, j);
        CHECK(comm_agree(s->comm.host, st));
        CpBatch *batch = mb.prepared;
        /* The last micro-batches may reach past the n sequences: those take part with weight 0. */
        int64_t first = (j * s->dp + s->dp_rank) * o.micro, T = o.seq_len;
        for (int64_t b = 0; b < o.micro; b++)
            for (int64_t k = 0; k < T && first + b >= n; k++) mb.weights[b * T + k] = 0;
        if (first + o.micro > n) {
            cp_batch_free(batch);
            mb.prepared = batch = cp_batch_create(&s->cp_options, &mb);
        }
        st = session_run_micro(s, &mb, false, NULL, NULL);
        sums[1] += batch->weight_sum;
        loader_batch_free(&mb, &o);
        CHECK(st);
    }
    CHECK(session_take_loss(s, &sums[0]));
    CHECK(comm_all_reduce(s->comm.host, sums, 2, DT_F64, COMM_SUM, COMM_KIND_OTHER, NULL));
    *loss = sums[1] > 0 ? sums[0] / sums[1] : 0;
    *tokens = sums[1];
    return OK;
}
