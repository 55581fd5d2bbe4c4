/* step.c: `cria bench step CONFIG`: training steps of the whole model on random tokens, which need
 * no data files: how fast, and where the time goes. Steps are timed first as they are; then as many
 * again under a meter (meter.h), whose events cost a little. */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "bench/bench.h"
#include "bench/step_report.h"
#include "data/synthetic.h"
#include "session/step.h"

enum { STEPS, MICRO_STEPS };
enum { WARM_STEPS = 2, MICRO_STEPS_MAX = 1 << 16 };

/* ---- input ----------------------------------------------------------------------------------- */

static void make_batch(StepBench *x, MicroBatch *mb, uint64_t which) {
    const Config *c = x->s.config;
    int64_t T = c->model.seq_len, S = c->batch.micro * T;
    *mb = (MicroBatch){.B = c->batch.micro, .T = T};
    mb->tokens = NEW(int32_t, S);
    mb->labels = NEW(int32_t, S);
    mb->positions = NEW(int32_t, S);
    mb->weights = NEW(float, S);
    mb->doc_begin = NEW(int32_t, S);
    for (int64_t s = 0; s < S; s++) {
        uint64_t draw = rng_u64(1, rng_stream(RNG_TEST, which), (uint64_t)s);
        mb->tokens[s] = (int32_t)(draw % (uint64_t)c->model.vocab);
        mb->labels[s] = (int32_t)((draw >> 32) % (uint64_t)c->model.vocab);
        mb->positions[s] = (int32_t)(s % T);
        mb->weights[s] = 1;
    }
    for (int64_t b = 0; b < mb->B; b++) {
        int32_t *begin = mb->doc_begin + mb->n_docs;
        int64_t n = 1;
        begin[0] = 0;
        if (c->data.mask == MASK_DOCUMENT)
            n = synthetic_documents((uint32_t)(which * (uint64_t)mb->B + (uint64_t)b), T, begin);
        for (int64_t i = 0; i < n; i++) begin[i] += (int32_t)(b * T);
        mb->n_docs += (int32_t)n;
    }
    mb->cp_batch = cp_batch_create(&x->s.cp_options, mb);
}

static Status make_batches(StepBench *x) {
    Session *s = &x->s;
    x->batches = NEW(MicroBatch, s->micro_steps);
    for (int64_t j = 0; j < s->micro_steps; j++) {
        make_batch(x, &x->batches[j], (uint64_t)(j * s->dp + s->dp_rank));
        const CpBatch *batch = x->batches[j].cp_batch;
        x->area += batch->area / s->config->parallel.cp;
        x->own_area += (double)batch->plan.ranks[s->cp_options.rank].area;
    }
    return comm_all_reduce(s->comm.host, &x->area, 1, DT_F64, COMM_SUM, COMM_KIND_OTHER, NULL);
}

static Status give_batch(void *bench, int64_t j, const MicroBatch **mb) {
    *mb = &((StepBench *)bench)->batches[j];
    return OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* A step of training, but for reading data, the guard and writing logs. */
static Status run_step(StepBench *x) {
    Session *s = &x->s;
    const MicroBatches all = {.n = s->micro_steps,
                              .train = true,
                              .reduce = true,
                              .step = x->updates + 1,
                              .phase = "forward and backward",
                              .read = give_batch,
                              .reader = x};
    double begin = time_now(), sums[SUM_OWN] = {0};
    StepNumbers n;
    llama_zero_gradients(s->llama, s->stream);
    CHECK(session_accumulate(s, &all, &sums[SUM_COUNT]));
    x->queued_ms = 1e3 * (time_now() - begin);
    CHECK(session_sum(s, sums, SUM_OWN, &n));
    CHECK(session_grad_norm(s, &n));
    if (!isfinite(n.loss) || !isfinite(n.grad_norm))
        return status_fail(ERR_ENV, "step %d: the loss is %g and the norm of the gradient %g",
                           (int)x->updates + 1, n.loss, n.grad_norm);
    return session_update(s, ++x->updates, s->config->optim.lr, &n);
}

static Status time_steps(StepBench *x, int64_t n) {
    Session *s = &x->s;
    CHECK(s->ops->stream_sync(s->stream));
    CHECK(comm_barrier(s->comm.host));
    double begin = time_now();
    for (int64_t i = 0; i < n; i++) {
        CHECK(run_step(x));
        x->ms.host += x->queued_ms / (double)n;
    }
    CHECK(s->ops->stream_sync(s->stream));
    x->ms.step = 1e3 * (time_now() - begin) / (double)n;
    return OK;
}

/* What queueing costs the host. Drivers hold a host back that is some 1000 launches ahead, so in a
 * whole step host_ms follows the device. A micro-batch queued after a synchronisation has hardly
 * more of them: the host waits for none but other ranks' hosts. Of a deeper model it may wait at
 * the end: then this is an upper bound. */
static Status time_micro_batches(StepBench *x, int64_t n) {
    Session *s = &x->s;
    MicroBatches one = {
        .n = 1, .train = true, .phase = "one micro-batch", .read = give_batch, .reader = x};
    llama_zero_gradients(s->llama, s->stream);
    for (int64_t i = 0; i < n; i++) {
        double losses[LLAMA_SUMS], count;
        one.first = i % s->micro_steps;
        CHECK(s->ops->stream_sync(s->stream));
        CHECK(comm_barrier(s->comm.host));
        double begin = time_now();
        CHECK(session_accumulate(s, &one, &count));
        x->ms.micro_host += 1e3 * (time_now() - begin) / (double)n;
        CHECK(session_take_losses(s, losses));
        x->ms.micro += 1e3 * (time_now() - begin) / (double)n;
    }
    return OK;
}

static Status meter_steps(StepBench *x, int64_t n) {
    Session *s = &x->s;
    for (int64_t i = -1; i < n; i++) { /* the first one makes the events */
        const MeterSpan *spans;
        CHECK(comm_barrier(s->comm.host));
        CHECK(meter_start(x->meter, s->stream));
        Status st = run_step(x);
        CHECK(meter_stop(x->meter));
        CHECK(st);
        if (i < 0) continue;
        x->metered.step += meter_ms(x->meter) / (double)n;
        for (MeterClass c = 0; c < METER_CLASSES; c++)
            x->metered.class[c] += meter_class_ms(x->meter, c) / (double)n;
        int64_t count = meter_spans(x->meter, &spans);
        for (int64_t k = 0; k < count; k++)
            if (spans[k].class != METER_TRANSFER) op_times_add(&x->ops, &spans[k], 1 / (double)n);
    }
    return OK;
}

/* Over ranks: the slowest rank's times, means of a step's parts. */
static Status gather(StepBench *x) {
    Comm *host = x->s.comm.host;
    const int64_t n_ms = sizeof x->ms / sizeof(double), n = sizeof x->metered / sizeof(double);
    CHECK(comm_all_reduce(host, &x->ms, n_ms, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL));
    CHECK(comm_all_reduce(host, &x->metered, n, DT_F64, COMM_SUM, COMM_KIND_OTHER, NULL));
    x->metered.step /= host->size;
    for (int c = 0; c < METER_CLASSES; c++) x->metered.class[c] /= host->size;
    return OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void wrap(void *ctx, const Ops **ops, CommSet *comm) {
    StepBench *x = ctx;
    x->meter = meter_create(*ops);
    *ops = meter_ops(x->meter);
    comm->world = meter_comm(x->meter, comm->world);
    comm->cp = meter_comm(x->meter, comm->cp);
}

/* A global batch may take minutes; its micro-batches are alike. */
static void set_micro_steps(Config *c, const Setting *s) {
    REQUIRE(c->parallel.cp > 0);
    int64_t dp = i64_max(1, comm_world_size() / c->parallel.cp), n = s->values[0].a;
    int64_t have = i64_max(1, c->batch.global / (c->batch.micro * dp));
    if (!s->given) n = i64_min(have, 4);
    c->batch.global = n * c->batch.micro * dp;
}

static Status run(StepBench *x, Config *config, int64_t steps, bool json) {
    const SessionOptions options = {.without_data = true, .wrap = wrap, .ctx = x};
    CHECK(session_open(&x->s, config, &options));
    CHECK(session_start(&x->s));
    CHECK(optimizer_init(x->s.optimizer, (uint64_t)config->run.seed, x->s.stream));
    CHECK(make_batches(x));
    CHECK(time_steps(x, WARM_STEPS));
    x->ms.host = 0;
    CHECK(time_steps(x, steps));
    CHECK(time_micro_batches(x, steps));
    CHECK(meter_steps(x, steps));
    CHECK(gather(x));
    return step_report(x, json);
}

static void close_step(StepBench *x) {
    int64_t n = x->batches != NULL ? x->s.micro_steps : 0;
    for (int64_t j = 0; j < n; j++) loader_batch_free(&x->batches[j], &x->s.loader);
    free(x->batches);
    session_close(&x->s);
    meter_free(x->meter);
}

static void list_settings(Setting *s) {
    s[STEPS] = SETTING("steps", COUNT, "5", "2", "Steps that are timed.", NULL);
    s[MICRO_STEPS] = SETTING("micro_steps", COUNT, NULL, NULL,
                             "Micro-batches a step. [batch.global's, at most 4]", NULL);
    s[MICRO_STEPS].most = MICRO_STEPS_MAX; /* times batch.micro and the ranks it fits in 64 bits */
    s[STEPS].single = s[MICRO_STEPS].single = true;
}

static Status measure(BenchArguments *a, Setting *s) {
    Config config = {0};
    StepBench x = {0};
    Status st;
    CHECK_GOTO(bench_agree(config_load(&config, a->config, a->n_overrides, a->overrides)), done);
    config_warn_notes(&config);
    config_take_stage(&config, 0);
    set_micro_steps(&config, &s[MICRO_STEPS]);
    bench_settings_fill(s, config.device != DEVICE_CPU);
    st = bench_finish(run(&x, &config, s[STEPS].values[0].a, a->json));
done:
    close_step(&x);
    config_free(&config);
    return st;
}

const Benchmark bench_step = {.name = "step",
                              .together = true,
                              .takes_config = true,
                              .list_settings = list_settings,
                              .run = measure};
