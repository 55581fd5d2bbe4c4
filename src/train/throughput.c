#include "train/throughput.h"

#include "model/flops.h"

static int64_t bytes_sent(const Session *s, int kind) {
    return s->comm.world->bytes_sent[kind] + s->comm.cp->bytes_sent[kind];
}

void throughput_start(Throughput *t, const Session *s, int64_t step) {
    *t = (Throughput){.begin = time_now(), .begin_step = step};
    for (int k = 0; k < COMM_KINDS; k++) t->begin_bytes[k] = bytes_sent(s, k);
}

/* Tokens of the steps to come. */
static double tokens_left(const Session *s, int64_t step) {
    const Config *c = s->run_config;
    double tokens = 0;
    for (int k = s->stage; k < config_n_stages(c); k++) {
        const Config *stage = config_of_stage(c, k);
        int64_t steps = config_stage_end(c, k) - i64_max(step, config_stage_from(c, k));
        tokens += (double)steps * (double)stage->batch.global * (double)stage->model.seq_len;
    }
    return tokens;
}

void throughput_fill(const Throughput *t, const Session *s, StepRecord *r) {
    const Config *c = s->config;
    double seconds = time_now() - t->begin, n = (double)(r->step - t->begin_step);
    double tokens = s->step_tokens * n, peak = flops_peak(s->ops->device_name);
    double flops = flops_train(&c->model, s->table, tokens, t->area) / seconds / s->world;
    r->steps = c->run.steps;
    r->ms = 1000 * seconds / n;
    r->tok_s = tokens / seconds;
    r->tok_s_gpu = r->tok_s / s->world;
    r->tflops_gpu = flops / 1e12;
    r->mfu = peak > 0 ? flops / peak : 0;
    r->mem_gib = (double)s->ops->mem_peak() / (1 << 30);
    r->data_ms = 1000 * t->data_seconds / n;
    r->eta_seconds = tokens_left(s, r->step) / r->tok_s;
    for (int k = 0; k < COMM_KINDS; k++)
        r->comm_bytes[k] = (bytes_sent(s, k) - t->begin_bytes[k]) / (int64_t)n;
}
