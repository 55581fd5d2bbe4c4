#include "train/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/progress.h"
#include "base/version.h"
#include "health/agree.h"
#include "report/estimate.h"
#include "report/run_report.h"
#include "report/stages_report.h"
#include "session/hardware.h"
#include "session/peers.h"
#include "train/branch.h"
#include "train/resume.h"
#include "train/stop.h"

/* ---- logs ------------------------------------------------------------------------------------ */

static void head_text(StrBuf *b, const char *key, const char *text) {
    strbuf_printf(b, ",\"%s\":", key);
    if (text != NULL && text[0] != '\0')
        strbuf_json_string(b, text);
    else
        strbuf_printf(b, "null");
}

static void head_record(const TrainRun *r, const Resume *resume, const char *abandoned, StrBuf *b) {
    const Session *s = &r->s;
    strbuf_printf(b, "{\"kind\":\"head\",\"version\":");
    strbuf_json_string(b, cria_version);
    strbuf_printf(b, ",\"device\":");
    strbuf_json_string(b, s->ops->device_name);
    strbuf_printf(b,
                  ",\"world\":%d,\"dp\":%d,\"cp\":%d,\"ranks_per_node\":%d,"
                  "\"parameters\":%lld,\"dataset\":\"%08x\",\"config_hash\":\"%08x\",\"step\":%lld",
                  s->world, s->dp, s->config->parallel.cp, comm_local_size(),
                  (long long)s->table->n_weights, dataset_fingerprint(s->train_data),
                  config_hash(s->run_config), (long long)r->state.step);
    head_text(b, "resumed", resume->path);
    head_text(b, "changed", resume->changes);
    head_text(b, "abandoned", abandoned);
    strbuf_printf(b, ",\"lineage\":%s", s->lineage != NULL ? s->lineage : "null");
    strbuf_printf(b, ",\"config\":");
    config_print_json(s->run_config, b);
    strbuf_printf(b, "}");
}

static Status open_sinks(TrainRun *r, const Resume *resume, const char *abandoned) {
    StrBuf head = {0};
    head_record(r, resume, abandoned, &head);
    const SinkRun run = {
        .config = r->s.run_config, .head = strbuf_text(&head), .step = r->state.step};
    Status st = sink_open_all(&r->sink, &run);
    strbuf_free(&head);
    return st;
}

/* What rank 0 writes before the first step. */
static Status begin_writing(TrainRun *r, const Resume *resume) {
    const Config *c = r->s.run_config;
    StrBuf abandoned = {0};
    Status st = branch_take(c, resume->path, r->state.step, &abandoned);
    if (st == OK && abandoned.len > 0) {
        abandoned.text[--abandoned.len] = '\0'; /* the last line's end */
        for (char *end; (end = strchr(abandoned.text, '\n')) != NULL;) *end = ' ';
        log_info("abandoned checkpoints of later steps: %s", abandoned.text);
    }
    if (st == OK) st = rundir_write_config(c);
    if (st == OK) st = open_sinks(r, resume, strbuf_text(&abandoned));
    strbuf_free(&abandoned);
    return st;
}

/* ---- open ------------------------------------------------------------------------------------ */

/* Ids beyond the vocabulary mostly show here, while nothing is written yet. */
static Status check_first_batches(Session *s, int64_t step) {
    for (int i = -1; i < s->val.n; i++) {
        Dataset *data = i < 0 ? s->train_data : s->val.sets[i].data;
        LoaderOptions o = s->loader;
        MicroBatch mb;
        if (i >= 0) o.sample_shift = 0;
        CHECK(loader_batch(&mb, data, &o, i < 0 ? step : 0, 0));
        loader_batch_free(&mb, &o);
    }
    return OK;
}

/* In the stage of the next step: its position in the data. */
static void find_samples(TrainRun *r) {
    Session *s = &r->s;
    bool begins = r->state.step == config_stage_from(s->run_config, s->stage);
    if (begins && s->data.stages[s->stage].begins_order) r->state.samples = 0;
    s->loader.sample_shift = r->state.samples - r->state.step * s->config->batch.global;
}

static void report_stage(TrainRun *r) {
    const Session *s = &r->s;
    const ConfigStage *stage = &s->run_config->timeline[s->stage];
    const StageRecord record = {.step = r->state.step,
                                .stage = stage->name,
                                .changes = stage->changes,
                                .tokens = r->state.tokens,
                                .sample = r->state.samples};
    r->sink->stage(r->sink, &record);
}

Status run_enter_stage(TrainRun *r) {
    Session *s = &r->s;
    int k = config_stage_at(s->run_config, r->state.step + 1);
    bool begins = k > 0 && r->state.step == config_stage_from(s->run_config, k);
    if (k != s->stage) {
        progress_beat(r->state.step, "going on in the next stage");
        loader_free(r->loader);
        r->loader = NULL;
        CHECK(comm_agree(s->comm.host, session_enter(s, k)));
        find_samples(r);
        CHECK(comm_agree(s->comm.host,
                         loader_create(&r->loader, s->train_data, &s->loader, r->state.step)));
    }
    if (begins && r->reported_stage != k) report_stage(r);
    r->reported_stage = k;
    return OK;
}

static bool continues(const TrainOptions *o) {
    return o->resume != NULL || o->from != NULL;
}

/* On rank 0. */
static Status open_rundir(TrainRun *r, const Config *config, const TrainOptions *o) {
    bool again = o->resume != NULL;
    if (!again && o->from != NULL) CHECK(branch_begins_again(config, o->from, &again));
    return rundir_open(&r->dir, config, again);
}

static Status set_weights(TrainRun *r, const TrainOptions *o, Resume *resume) {
    Session *s = &r->s;
    progress_beat(0, "loading or initialising weights");
    if (continues(o)) CHECK(resume_load(s, o, &r->state, resume));
    if (resume->path != NULL)
        r->saved_step = r->state.step;
    else
        CHECK(optimizer_init(s->optimizer, (uint64_t)s->config->run.seed, s->stream));
    CHECK(session_enter(s, config_stage_at(s->run_config, r->state.step + 1)));
    find_samples(r);
    return OK;
}

static Status start_logs_and_data(TrainRun *r, const Resume *resume) {
    Session *s = &r->s;
    Comm *host = s->comm.host;
    progress_beat(r->state.step, "reading the first batches");
    CHECK(comm_agree(host, check_first_batches(s, r->state.step)));
    CHECK(text_sampler_open(&r->sampler, s));
    stop_wait_for_loop();
    progress_beat(r->state.step, "opening logs and the copy for checkpoints");
    CHECK(
        comm_agree(host, s->rank == 0 ? begin_writing(r, resume) : sink_open_all(&r->sink, NULL)));
    CHECK(saver_create(&r->saver, s, r->sink));
    r->hook = hook_create(s->config, r->sink, s->rank);
    saver_set_hook(r->saver, r->hook);
    CHECK(comm_agree(host, loader_create(&r->loader, s->train_data, &s->loader, r->state.step)));
    return phase_log_open(&r->phases, s, r->state.step);
}

/* In the gradients' memory, which every step begins by zeroing. */
static Status check_peers(Session *s) {
    progress_beat(0, "checking copies between ranks");
    return peers_check(s->ops, s->comm.cp, s->comm.host, llama_gradients(s->llama),
                       s->table->total * (int64_t)sizeof(float), s->stream);
}

static Status open_session(Session *s, const Config *config, const TrainOptions *options) {
    progress_beat(0, "comparing how ranks were started");
    CHECK(agree_start(config, options->resume, options->from, options->dry_run));
    progress_beat(0, "opening devices");
    CHECK(session_open(s, config, NULL));
    StrBuf text = {0};
    comm_describe(&text);
    session_describe(s, &text);
    Status st = OK;
    if (options->dry_run && s->rank == 0) {
        run_estimate_text(s, NULL, &text);
        st = stages_report_text(config, s->world, s->ops->host_memory, &text);
    }
    log_info("%s", strbuf_text(&text));
    strbuf_free(&text);
    if (!options->dry_run) comm_warn_oversubscribed();
    return comm_agree(s->comm.host, st);
}

Status run_open(TrainRun *r, const Config *config, const TrainOptions *options, bool *done) {
    *r = (TrainRun){.dir.lock = -1, .saved_step = -1};
    CHECK(open_session(&r->s, config, options));
    CHECK(eval_open(&r->evaluator, &r->s));
    *done = options->dry_run;
    if (!*done && continues(options))
        CHECK(resume_check_named(config, r->s.comm.host, options, done));
    if (*done) return OK;

    progress_beat(0, "checking the hardware");
    if (config->run.check_hardware) CHECK(hardware_check(r->s.ops, r->s.comm.host));
    if (config->run.profile_from > 0 && r->s.ops->host_memory && r->s.rank == 0)
        log_warn("run.profile_from is for GPUs: on the CPU nothing is profiled");

    progress_beat(0, "opening run.dir");
    bool first = r->s.rank == 0;
    CHECK(comm_agree(r->s.comm.host, first ? open_rundir(r, config, options) : OK));
    progress_beat(0, "allocating memory");
    CHECK(session_start(&r->s));
    if (config->run.check_hardware) CHECK(check_peers(&r->s));
    Resume resume = {0};
    Status st = set_weights(r, options, &resume);
    *done = st == OK && resume.path != NULL && resume_is_done(config, resume.path, r->state.step);
    if (st == OK && !*done) st = start_logs_and_data(r, &resume);
    resume_free(&resume);
    return st;
}

/* ---- close ----------------------------------------------------------------------------------- */

/* Ends the job when this rank alone has failed. */
static void abort_alone(Status st) {
    if (st == OK || st == ERR_STOPPED || status_is_agreed()) return;
    log_error("%s", status_message());
    comm_abort(status_exit_code(st));
}

/* Completes the checkpoint that is being written. */
static void join_saver(TrainRun *r, Status failure) {
    char *message = mem_strdup(status_message());
    status_clear();
    Status st = saver_join(r->saver);
    abort_alone(st);
    if (st != OK && r->s.rank == 0) log_warn("%s", status_message());
    status_ignore(st);
    status_fail(failure, "%s", message);
    free(message);
}

void run_close(TrainRun *r, Status st) {
    abort_alone(st);
    if (st != OK) join_saver(r, st);
    Status joined = hook_finish(r->hook, r->s.comm.host, st != OK);
    if (st == OK) abort_alone(joined);
    progress_beat(r->state.step, "closing data, logs and devices");
    if (r->sink != NULL) r->sink->free(r->sink);
    loader_free(r->loader);
    saver_free(r->saver);
    hook_free(r->hook);
    text_sampler_close(&r->sampler);
    eval_close(&r->evaluator);
    phase_log_close(&r->phases, &r->s);
    session_close(&r->s);
    rundir_close(&r->dir);
}
