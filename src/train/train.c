#include "train/train.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/flops.h"
#include "optim/schedule.h"
#include "health/agree.h"
#include "health/guard.h"
#include "report/run_report.h"
#include "train/eval.h"
#include "train/resume.h"
#include "train/rundir.h"
#include "train/saver.h"
#include "metrics/sink.h"
#include "train/stop.h"
#include "health/watchdog.h"
#include "base/version.h"

typedef struct {
    Session s;
    TrainState state;
    Loader *loader;
    Sink **sinks;
    int n_sinks;
    Saver *saver;
    bool finished;      /* the checkpoint that it resumed is of the last step */
    int64_t saved_step; /* of the newest checkpoint this run began or resumed */
    double peak_flops;
    /* since the last step record */
    double since, waited, area;
    int64_t since_step, since_bytes[COMM_KINDS];
    bool warned_of_eval;
} Train;

typedef struct {
    double loss, grad_norm, lr;
    bool stop, save; /* asked for by any rank */
    bool time_is_up; /* and stop for this reason: a rank's clock may be ahead of another's */
    bool written;    /* every rank's saver has something done */
} StepResult;

static Status next_batch(void *train, int64_t j, const MicroBatch **mb) {
    (void)j; /* the loader goes on where it is */
    Train *t = train;
    CHECK(loader_next(t->loader, mb, &t->waited));
    t->area += (*mb)->cp_batch->area * t->s.dp;
    return OK;
}

static Status guard(Train *t, StepNumbers *n, bool *update) {
    GuardRecord record;
    Status st = guard_step(&t->state.guard, &t->s, t->state.step, n, update, &record);
    for (int i = 0; i < t->n_sinks && record.kind != NULL; i++)
        t->sinks[i]->guard(t->sinks[i], &record);
    free(record.message);
    return st;
}

/* What ranks tell each other in every step, beside loss and count. */
enum { STOP = SUM_OWN, TIME_IS_UP, SAVE, WRITTEN, LR, SUMS };

static void set_own_sums(const Train *t, double *sums) {
    const Config *c = t->s.config;
    sums[STOP] = stop_requested();
    sums[TIME_IS_UP] = stop_time_is_up();
    sums[SAVE] = stop_take_save_request();
    sums[WRITTEN] = saver_ready(t->saver);
    /* rank 0's, to the last bit: cos() of another CPU type may differ there, and so would the
     * weights */
    if (t->s.rank == 0) sums[LR] = schedule_lr(&c->optim, c->run.steps, t->state.step + 1);
}

/* One update of the weights, unless the guard leaves it out. */
static Status step(Train *t, StepResult *r) {
    Session *s = &t->s;
    const int64_t number = t->state.step + 1;
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
                                  .reader = t};
    llama_zero_gradients(s->llama, s->stream);
    CHECK(session_accumulate(s, &batches, &sums[SUM_COUNT]));

    /* sum loss, count and what ranks ask for over the ranks; take the norm of the gradient */
    watchdog_beat(number, "gradient norm");
    set_own_sums(t, sums);
    CHECK(session_sum(s, sums, SUMS, &n));
    CHECK(session_grad_norm(s, &n));

    /* check the numbers: a bad step is run again, and left out or the end if it stays bad */
    CHECK(guard(t, &n, &update));

    /* clip the gradients and update the weights, once a save has its copy of the old ones */
    CHECK(saver_release(t->saver));
    watchdog_beat(number, "optimizer");
    if (update) CHECK(session_update(s, number - t->state.guard.skipped, sums[LR], &n));

    *r = (StepResult){.loss = n.loss,
                      .grad_norm = n.grad_norm,
                      .lr = sums[LR],
                      .stop = sums[STOP] + sums[TIME_IS_UP] > 0,
                      .time_is_up = sums[TIME_IS_UP] > 0,
                      .save = sums[SAVE] > 0,
                      .written = sums[WRITTEN] == s->world};
    t->state.step = number;
    t->state.samples += s->config->batch.global;
    t->state.tokens += s->step_tokens;
    return OK;
}

static void reset_meter(Train *t) {
    t->since = time_now();
    t->waited = t->area = 0;
    t->since_step = t->state.step;
    for (int k = 0; k < COMM_KINDS; k++)
        t->since_bytes[k] = t->s.comm.world->bytes_sent[k] + t->s.comm.cp->bytes_sent[k];
}

static Status report_step(Train *t, const StepResult *r) {
    Session *s = &t->s;
    const Config *c = s->config;
    CHECK(s->ops->stream_sync(s->stream));
    double n = (double)(t->state.step - t->since_step), seconds = time_now() - t->since;
    int64_t bytes[COMM_KINDS];
    for (int k = 0; k < COMM_KINDS; k++)
        bytes[k] = (s->comm.world->bytes_sent[k] + s->comm.cp->bytes_sent[k] - t->since_bytes[k]) /
                   (int64_t)n;
    double tok_s = s->step_tokens * n / seconds;
    double flops =
        flops_train(&c->model, s->table, s->step_tokens * n, t->area) / seconds / s->world;
    StepRecord record = {.step = t->state.step,
                         .steps = c->run.steps,
                         .loss = r->loss,
                         .grad_norm = r->grad_norm,
                         .lr = r->lr,
                         .tokens = t->state.tokens,
                         .ms = 1000 * seconds / n,
                         .tok_s = tok_s,
                         .tok_s_gpu = tok_s / s->world,
                         .tflops_gpu = flops / 1e12,
                         .mfu = t->peak_flops > 0 ? flops / t->peak_flops : 0,
                         .mem_gib = (double)s->ops->mem_peak() / (1 << 30),
                         .data_ms = 1000 * t->waited / n,
                         .eta_seconds = seconds / n * (double)(c->run.steps - t->state.step),
                         .comm_bytes = bytes,
                         .has_crc = c->run.deterministic};
    if (c->run.deterministic)
        CHECK(optimizer_weights_crc(s->optimizer, s->comm.host, s->stream, &record.weights_crc));
    for (int i = 0; i < t->n_sinks; i++) t->sinks[i]->step(t->sinks[i], &record);
    return OK;
}

static Status evaluate(Train *t) {
    EvalRecord record = {.step = t->state.step};
    CHECK(eval_run(&t->s, t->state.step, &record.loss, &record.tokens));
    if (record.tokens == 0) {
        if (!t->warned_of_eval)
            log_warn_once(
                "the evaluation data have no target: data.eod_mask_loss leaves out the token "
                "after each data.eod, and they hold nothing else; there is no evaluation");
        t->warned_of_eval = true;
        return OK;
    }
    for (int i = 0; i < t->n_sinks; i++) t->sinks[i]->eval(t->sinks[i], &record);
    return OK;
}

static Status save(Train *t, bool wait) {
    if (t->saved_step == t->state.step) return OK;
    t->saved_step = t->state.step;
    return saver_save(t->saver, &t->state, wait);
}

/* True when `step` is a multiple of `every`; 0 means never. */
static bool due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

static Status loop(Train *t) {
    const Config *c = t->s.config;
    bool evaluates = t->s.val_data != NULL;
    if (evaluates && t->state.step == 0 && eval_due(c, 0)) CHECK(evaluate(t));
    reset_meter(t);
    while (t->state.step < c->run.steps) {
        StepResult r;
        CHECK(step(t, &r));
        if (r.written) CHECK(saver_advance(t->saver));
        bool last = t->state.step == c->run.steps;
        bool pause = false; /* time spent on evaluation and saving is not the step's */
        if (last || r.stop || t->state.step == 1 || due(t->state.step, c->run.log_every)) {
            CHECK(report_step(t, &r));
            pause = true;
        }
        if (evaluates && eval_due(c, t->state.step)) {
            CHECK(evaluate(t));
            pause = true;
        }
        bool saves = last || r.stop || r.save || due(t->state.step, c->run.save_every);
        if (c->run.check_every > 0 && (saves || due(t->state.step, c->run.check_every))) {
            watchdog_beat(t->state.step, "comparing the ranks' weights");
            CHECK(agree_weights(&t->s, &t->state)); /* nothing else is saved */
        }
        if (saves) {
            CHECK(save(t, last || r.stop));
            pause = true;
        }
        if (pause) reset_meter(t);
        if (r.stop && !last)
            return status_fail(ERR_STOPPED,
                               "stopped after step %lld as asked (%s); --resume auto "
                               "continues",
                               (long long)t->state.step,
                               r.time_is_up ? "run.time_limit_minutes" : "signal");
    }
    return OK;
}

static void head_text(StrBuf *b, const char *key, const char *text) {
    strbuf_printf(b, ",\"%s\":", key);
    if (text != NULL && text[0] != '\0')
        strbuf_json_string(b, text);
    else
        strbuf_printf(b, "null");
}

static void head_record(const Train *t, const Resume *resume, const char *abandoned, StrBuf *b) {
    const Session *s = &t->s;
    strbuf_printf(b, "{\"kind\":\"head\",\"version\":");
    strbuf_json_string(b, cria_version);
    strbuf_printf(b, ",\"device\":");
    strbuf_json_string(b, s->ops->device_name);
    strbuf_printf(b,
                  ",\"world\":%d,\"dp\":%d,\"cp\":%d,\"ranks_per_node\":%d,"
                  "\"parameters\":%lld,\"dataset\":\"%08x\","
                  "\"config_hash\":\"%08x\",\"step\":%lld",
                  s->world, s->dp, s->config->parallel.cp, comm_local_size(),
                  (long long)s->table->n_weights, dataset_fingerprint(s->train_data),
                  config_hash(s->config), (long long)t->state.step);
    head_text(b, "resumed", resume->path);
    head_text(b, "changed", resume->changes);
    head_text(b, "abandoned", abandoned);
    strbuf_printf(b, ",\"config\":");
    config_print_json(s->config, b);
    strbuf_printf(b, "}");
}

static void add_sink(Train *t, Sink *sink) {
    t->sinks = mem_grow(t->sinks, t->n_sinks + 1, sizeof(Sink *));
    t->sinks[t->n_sinks++] = sink;
}

static Status open_sinks(Train *t, const Resume *resume, const char *abandoned) {
    const Config *c = t->s.config;
    Sink *sink;
    add_sink(t, sink_console_create());
    if (c->log.jsonl) {
        StrBuf head = {0};
        head_record(t, resume, abandoned, &head);
        char *path = mem_printf("%s/log.jsonl", c->run.dir);
        Status st = sink_jsonl_create(&sink, path, strbuf_text(&head));
        free(path);
        strbuf_free(&head);
        CHECK(st);
        add_sink(t, sink);
    }
    if (c->log.tensorboard) {
        CHECK(sink_tensorboard_create(&sink, c->run.dir));
        add_sink(t, sink);
    }
    return OK;
}

/* Ids beyond the vocabulary mostly show here, while nothing is written yet. */
static Status check_first_batches(Session *s, int64_t step) {
    Dataset *data[] = {s->train_data, s->val_data};
    const int64_t first[] = {step, 0};
    for (int i = 0; i < 2 && data[i] != NULL; i++) {
        MicroBatch mb;
        CHECK(loader_batch(&mb, data[i], &s->loader, first[i], 0));
        loader_batch_free(&mb, &s->loader);
    }
    return OK;
}

/* What is written before the first step, by rank 0. */
static Status begin_writing(Train *t, const Resume *resume) {
    const Config *c = t->s.config;
    StrBuf abandoned = {0};
    Status st = resume_take_branch(c, resume, t->state.step, &abandoned);
    if (st == OK && abandoned.len > 0) {
        abandoned.text[--abandoned.len] = '\0'; /* the last line's end */
        for (char *end; (end = strchr(abandoned.text, '\n')) != NULL;) *end = ' ';
        log_info("abandoned checkpoints of later steps: %s", abandoned.text);
    }
    if (st == OK) st = rundir_write_config(c);
    if (st == OK) st = open_sinks(t, resume, strbuf_text(&abandoned));
    strbuf_free(&abandoned);
    return st;
}

static Status begin(Train *t, const TrainOptions *options) {
    Session *s = &t->s;
    Resume resume = {0};
    Status st = OK;
    t->saved_step = -1;
    if (options->resume != NULL)
        CHECK_GOTO(resume_load(s, options->resume, &t->state, &resume), done);
    if (resume.path == NULL)
        CHECK_GOTO(optimizer_init(s->optimizer, (uint64_t)s->config->run.seed, s->stream), done);
    else
        t->saved_step = t->state.step;
    t->finished = resume.path != NULL && resume_is_done(s->config, resume.path, t->state.step);
    if (t->finished) goto done;
    watchdog_beat(t->state.step, "reading the first batches");
    CHECK_GOTO(comm_agree(s->comm.host, check_first_batches(s, t->state.step)), done);
    stop_wait_for_loop();
    watchdog_beat(t->state.step, "opening logs and the copy for checkpoints");
    CHECK_GOTO(comm_agree(s->comm.host, s->rank == 0 ? begin_writing(t, &resume) : OK), done);
    CHECK_GOTO(saver_create(&t->saver, s, t->sinks, t->n_sinks), done);
    st = comm_agree(s->comm.host,
                    loader_create(&t->loader, s->train_data, &s->loader, t->state.step));
done:
    resume_free(&resume);
    return st;
}

static void end(Train *t) {
    watchdog_beat(t->state.step, "closing data, logs and devices");
    for (int i = t->n_sinks - 1; i >= 0; i--) t->sinks[i]->free(t->sinks[i]);
    free(t->sinks);
    loader_free(t->loader);
    saver_free(t->saver);
    session_close(&t->s);
}

/* Ends the job when this rank alone has failed, as the others wait for it. */
static void abort_alone(Status st) {
    if (st == OK || st == ERR_STOPPED || status_is_agreed()) return;
    log_error("%s", status_message());
    comm_abort(status_exit_code(st));
}

/* A run that fails on every rank still completes the checkpoint that it is writing. */
static void join_saver(Train *t, Status failure) {
    char *message = mem_strdup(status_message());
    status_clear();
    Status st = saver_join(t->saver);
    abort_alone(st);
    if (st != OK && t->s.rank == 0) log_warn("%s", status_message());
    status_ignore(st);
    status_fail(failure, "%s", message);
    free(message);
}

Status train_run(const Config *config, const TrainOptions *options) {
    Train t = {0};
    RunDir dir = {.lock = -1};
    Status st;
    watchdog_beat(0, "comparing how ranks were started");
    CHECK_GOTO(agree_start(config, options->resume, options->dry_run), done);
    watchdog_beat(0, "opening devices");
    CHECK_GOTO(session_open(&t.s, config, NULL), done);
    StrBuf text = {0};
    session_describe(&t.s, &text);
    log_info("%s", strbuf_text(&text));
    strbuf_free(&text);
    if (options->dry_run) goto done;

    bool finished = false;
    if (options->resume != NULL)
        CHECK_GOTO(resume_check_named(config, t.s.comm.host, options->resume, &finished), done);
    if (finished) goto done;
    watchdog_beat(0, "opening run.dir");
    if (t.s.rank == 0) st = rundir_open(&dir, config, options->resume);
    CHECK_GOTO(comm_agree(t.s.comm.host, st), done);
    watchdog_beat(0, "allocating memory");
    CHECK_GOTO(session_start(&t.s), done);
    watchdog_beat(0, "loading or initialising weights");
    t.peak_flops = flops_peak(t.s.ops->device_name);
    CHECK_GOTO(begin(&t, options), done);
    if (!t.finished) st = loop(&t);
done:
    abort_alone(st);
    if (st != OK) join_saver(&t, st);
    end(&t);
    rundir_close(&dir);
    return st;
}
