/* train.c: the loop of `cria train`. */
#include "train/train.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/progress.h"
#include "health/agree.h"
#include "health/guard.h"
#include "ops/nvtx.h"
#include "ops/phases.h"
#include "optim/schedule.h"
#include "session/step.h"
#include "train/fp8_record.h"
#include "train/run.h"
#include "train/stop.h"

/* What ranks add up in every step, beside loss and count. */
enum { STOP = SUM_OWN, TIME_IS_UP, SAVE, WRITTEN, LR, SUMS };

typedef struct {
    StepNumbers numbers;
    double lr;
    bool stop, save; /* asked for by any rank */
    bool time_is_up; /* and stop for this reason: a rank's clock may be ahead of another's */
    bool written;    /* every rank's saver has something done */
} StepResult;

static Status next_batch(void *run, int64_t j, const MicroBatch **mb) {
    (void)j; /* the loader knows */
    TrainRun *r = run;
    CHECK(loader_next(r->loader, mb, &r->throughput.data_seconds));
    r->throughput.area += (*mb)->cp_batch->area * r->s.dp;
    return OK;
}

static void set_own_sums(const TrainRun *r, double *sums) {
    const Config *c = r->s.config;
    sums[STOP] = stop_requested();
    sums[TIME_IS_UP] = stop_time_is_up();
    sums[SAVE] = stop_take_save_request();
    sums[WRITTEN] = saver_ready(r->saver);
    /* rank 0's, to the last bit: cos() of another CPU type may differ there, and so would the
     * weights */
    if (r->s.rank == 0) sums[LR] = schedule_lr(&c->optim, c->run.steps, r->state.step + 1);
}

static Status guard(TrainRun *r, StepNumbers *n, bool *update) {
    GuardRecord record;
    Status st = guard_step(&r->state.guard, &r->s, r->state.step, n, &record);
    if (record.outcome != GUARD_PASSED) r->sink->guard(r->sink, &record);
    *update = record.outcome != GUARD_SKIPPED;
    free(record.message);
    return st;
}

static Status step(TrainRun *r, StepResult *result) {
    Session *s = &r->s;
    const int64_t number = r->state.step + 1;
    double sums[SUMS] = {0};
    StepNumbers n;
    bool update;

    /* accumulate loss and gradients over the micro-batches; the last one reduces the gradients */
    const MicroBatches batches = {.n = s->micro_steps,
                                  .train = true,
                                  .reduce = true,
                                  .step = number,
                                  .phase = "forward and backward",
                                  .read = next_batch,
                                  .reader = r};
    phase_enter(s->stream, PHASE_OPTIMIZER);
    llama_zero_gradients(s->llama, s->stream);
    CHECK(session_accumulate(s, &batches, &sums[SUM_COUNT]));

    /* sum loss, count and requests over the ranks; take the norm of the gradient */
    progress_beat(number, "gradient norm");
    set_own_sums(r, sums);
    CHECK(session_sum(s, sums, SUMS, &n));
    CHECK(session_grad_norm(s, &n));

    /* check the numbers: a bad step is run again; one that stays bad is left out or ends the run */
    phase_enter(s->stream, PHASE_OTHER);
    CHECK(guard(r, &n, &update));

    /* clip the gradients and update the weights, once a save has its copy of the old ones */
    phase_enter(s->stream, PHASE_SAVE);
    CHECK(saver_release(r->saver));
    progress_beat(number, "optimizer");
    if (update) CHECK(session_update(s, number - r->state.guard.skipped, sums[LR], &n));
    phase_enter(s->stream, PHASE_OTHER);

    r->state.step = number;
    r->state.samples += s->config->batch.global;
    r->state.tokens += s->step_tokens;
    *result = (StepResult){.numbers = n,
                           .lr = sums[LR],
                           .stop = sums[STOP] + sums[TIME_IS_UP] > 0,
                           .time_is_up = sums[TIME_IS_UP] > 0,
                           .save = sums[SAVE] > 0,
                           .written = sums[WRITTEN] == s->world};
    return OK;
}

static Status report_step(TrainRun *r, const StepResult *result) {
    Session *s = &r->s;
    StepRecord record = {.step = r->state.step,
                         .loss = result->numbers.loss,
                         .grad_norm = result->numbers.grad_norm,
                         .lr = result->lr,
                         .tokens = r->state.tokens,
                         .has_z_loss = s->config->optim.z_loss > 0,
                         .z_loss = result->numbers.z_loss,
                         .has_grad_norms = s->config->log.grad_norms,
                         .has_crc = s->config->run.deterministic};
    CHECK(phase_log_take(&r->phases, s));
    throughput_fill(&r->throughput, s, &record);
    CHECK(phase_log_fill(&r->phases, s, &record));
    if (record.has_grad_norms) /* the gradients stay until the next step */
        CHECK(optimizer_class_norms(s->optimizer, s->comm.host, record.grad_norms, s->stream));
    for (int k = 0; k < PARAM_CLASSES && record.has_grad_norms; k++)
        record.grad_norms[k] /= result->numbers.count;
    if (record.has_crc)
        CHECK(optimizer_weights_crc(s->optimizer, s->comm.host, s->stream, &record.weights_crc));
    Fp8Record fp8;
    if (s->config->precision == PRECISION_FP8) {
        CHECK(fp8_record_fill(s, &fp8));
        record.fp8 = &fp8;
    }
    r->sink->step(r->sink, &record);
    phase_log_warn(&r->phases, r->state.step, r->sink);
    return OK;
}

static Status evaluate(TrainRun *r) {
    EvalRecord record;
    nvtx_push("evaluation", r->state.step);
    Phase before = phase_hold(r->s.stream, PHASE_EVAL);
    CHECK(eval_run(&r->evaluator, &r->s, r->state.step, &record));
    phase_release(r->s.stream, before);
    nvtx_pop();
    if (record.all.tokens > 0)
        r->sink->eval(r->sink, &record);
    else if (!r->warned_of_eval)
        log_warn_once("the evaluation data have no target: data.eod_mask_loss leaves out the token "
                      "after each data.eod, and they hold nothing else; there is no evaluation");
    r->warned_of_eval |= record.all.tokens == 0;
    return OK;
}

static Status advance_save(TrainRun *r) {
    Phase before = phase_enter(r->s.stream, PHASE_SAVE);
    CHECK(saver_advance(r->saver));
    phase_enter(r->s.stream, before);
    return OK;
}

/* The text's ops have the phases of no step. */
static Status sample_text(TrainRun *r) {
    Phase before = phase_hold(r->s.stream, PHASE_OTHER);
    CHECK(text_sampler_run(&r->sampler, &r->s, r->state.step, r->sink));
    phase_release(r->s.stream, before);
    return OK;
}

static Status compare_weights(TrainRun *r) {
    progress_beat(r->state.step, "comparing the ranks' weights");
    return agree_weights(&r->s, &r->state);
}

static Status save(TrainRun *r, bool wait) {
    if (r->saved_step == r->state.step) return OK;
    r->saved_step = r->state.step;
    nvtx_push("save", r->state.step);
    Phase before = phase_hold(r->s.stream, PHASE_SAVE);
    CHECK(saver_save(r->saver, &r->state, wait));
    phase_release(r->s.stream, before);
    nvtx_pop();
    return OK;
}

/* Is `step` a multiple of `every`? 0 means never. */
static bool due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

/* Before step n, and behind the last: begins and ends what a profiler records. */
static Status profile(const TrainRun *r, int64_t n) {
    const Config *c = r->s.config;
    if (c->run.profile_from == 0) return OK;
    if (n == c->run.profile_from) nvtx_profiler_start();
    if (n != c->run.profile_from + c->run.profile_steps) return OK;
    CHECK(r->s.ops->stream_sync(r->s.stream));
    nvtx_profiler_stop();
    return OK;
}

/* Of the step that is about to begin. */
static Status enter_stage(TrainRun *r) {
    int before = r->s.stage;
    CHECK(run_enter_stage(r));
    if (r->s.stage != before) throughput_start(&r->throughput, &r->s, r->state.step);
    return OK;
}

static Status loop(TrainRun *r) {
    const Config *c = r->s.run_config; /* run.* is the same in all stages */
    bool evaluates = r->s.val.n > 0;
    if (evaluates && r->state.step == 0 && eval_due(c, 0)) CHECK(evaluate(r));
    throughput_start(&r->throughput, &r->s, r->state.step);
    while (r->state.step < c->run.steps) {
        StepResult result;
        CHECK(enter_stage(r));
        CHECK(profile(r, r->state.step + 1));
        nvtx_push("step", r->state.step + 1);
        CHECK(step(r, &result));
        nvtx_pop();
        if (result.written) CHECK(advance_save(r));
        hook_poll(r->hook);

        int64_t n = r->state.step;
        bool last = n == c->run.steps, ends = last || result.stop;
        bool logs = ends || n == 1 || due(n, c->run.log_every);
        bool evals = evaluates && eval_due(c, n);
        bool samples = r->s.decoder != NULL && (last || due(n, c->run.sample_every));
        bool saves = ends || result.save || due(n, c->run.save_every);
        bool compares = c->run.check_every > 0 && (saves || due(n, c->run.check_every));
        if (logs) CHECK(report_step(r, &result));
        if (evals) CHECK(evaluate(r));
        if (samples) CHECK(sample_text(r));
        if (compares) CHECK(compare_weights(r)); /* nothing else is saved */
        if (saves) CHECK(save(r, ends));
        if (logs || evals || samples || saves) throughput_start(&r->throughput, &r->s, n);

        if (result.stop && !last)
            return status_fail(
                ERR_STOPPED, "stopped after step %lld as asked (%s); --resume auto continues",
                (long long)n, result.time_is_up ? "run.time_limit_minutes" : "signal");
    }
    return profile(r, r->state.step + 1);
}

Status train_run(const Config *config, const TrainOptions *options) {
    TrainRun r;
    bool done = false;
    Status st = run_open(&r, config, options, &done);
    if (st == OK && !done) st = loop(&r);
    run_close(&r, st);
    return st;
}
