#include "train/saver.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/progress.h"
#include "train/snapshot.h"

enum {
    MAX_THREADS = 8, /* per rank while training continues: more than a disk keeps up with */
    POLL_NS = 1000 * 1000,
    POLLS = 20 /* between two exchanges of progress with the other ranks */
};

/* The same on every rank:
 *
 *     IDLE -> COPYING     copies are queued              saver_save()
 *          -> WRITING     each rank's thread writes      saver_release()
 *          -> COPYING     while pieces are left, or      saver_advance()
 *          -> PUBLISHING  rank 0's thread completes      saver_advance()
 *          -> IDLE        on disk and reported           saver_advance() */
typedef enum { IDLE, COPYING, WRITING, PUBLISHING } SavePhase;

struct Saver {
    Session *s;
    Sink *sink;
    Hook *hook;
    Snapshot snapshot;

    /* the checkpoint that is being written */
    SavePhase phase;
    CkptSave *file;
    char *path;
    SaveRecord record;
    double begin;
    bool waits;                     /* training waits until it is on disk */
    int64_t in_use[1 + HOOK_STEPS]; /* steps of checkpoints that stay: it, and the hook's */
    int n_in_use;

    /* shared with the thread while it runs */
    pthread_t thread;
    bool running;
    int threads;
    atomic_bool done;
    atomic_llong written; /* bytes so far: progress, for the watchdog */
    Status status;        /* of its work */
    bool prune_failed;
    char *message;
};

/* ---- the thread ------------------------------------------------------------------------------ */

/* Old checkpoints that cannot be deleted cost space, not the run: one warning. */
static void prune(Saver *v, int64_t keep) {
    Status st = checkpoint_prune(v->s->config->run.dir, keep, v->in_use, v->n_in_use);
    if (st != OK && !v->prune_failed)
        log_warn("%s; old checkpoints may fill the disk", status_message());
    v->prune_failed |= st != OK;
    status_ignore(st);
}

static Status publish(Saver *v) {
    const Config *c = v->s->config;
    CHECK(checkpoint_publish(v->file));
    v->record.seconds = time_now() - v->begin;
    prune(v, c->run.keep_last);
    return OK;
}

static void *work(void *arg) {
    Saver *v = arg;
    omp_set_num_threads(v->threads);
    v->status =
        v->phase == WRITING ? snapshot_write(&v->snapshot, v->file, &v->written) : publish(v);
    if (v->status != OK) v->message = mem_strdup(status_message());
    atomic_store(&v->done, true);
    return NULL;
}

static void start_thread(Saver *v) {
    atomic_store(&v->done, false);
    int error = pthread_create(&v->thread, NULL, work, v);
    v->running = error == 0;
    if (v->running) return;
    v->status = ERR_ENV;
    v->message = mem_printf("cannot start the thread that writes %s: %s", v->path, strerror(error));
    atomic_store(&v->done, true);
}

static Status take_result(Saver *v) {
    if (v->running) pthread_join(v->thread, NULL);
    v->running = false;
    Status st = v->status;
    if (st != OK) status_fail(st, "%s", v->message);
    free(v->message);
    v->message = NULL;
    v->status = OK;
    return st;
}

/* ---- a checkpoint ---------------------------------------------------------------------------- */

/* On a CPU backend training uses every core. */
static int choose_threads(const Saver *v) {
    int cores = (int)i64_min(omp_get_max_threads(), comm_local_cores());
    if (v->waits) return cores;
    return v->s->ops->host_memory ? 1 : (int)i64_max(1, i64_min(cores / 2, MAX_THREADS));
}

static void end_checkpoint(Saver *v) {
    checkpoint_end(v->file);
    free(v->path);
    v->file = NULL;
    v->path = NULL;
    v->phase = IDLE;
}

Status saver_save(Saver *v, const TrainState *state, bool wait) {
    Session *s = v->s;
    double begin = time_now();
    if (v->phase != IDLE) {
        log_info("the checkpoint of step %lld waits until that of step %lld is written",
                 (long long)state->step, (long long)v->record.step);
        CHECK(saver_join(v));
    }
    progress_beat(state->step, "checkpoint");
    CHECK(snapshot_reserve(&v->snapshot, s->config->run.save_async && !wait));
    CHECK(state_begin_save(s, state, &v->file, &v->path));
    v->record =
        (SaveRecord){.step = state->step, .path = v->path, .bytes = checkpoint_size(v->file)};
    v->begin = begin;
    v->waits = wait || !s->config->run.save_async || !v->snapshot.all_ranks_copied;
    v->threads = choose_threads(v);
    snapshot_begin(&v->snapshot);
    v->phase = COPYING;
    v->record.snapshot_seconds = time_now() - begin;
    return v->waits ? saver_join(v) : OK;
}

Status saver_release(Saver *v) {
    if (v->phase != COPYING) return OK;
    double begin = time_now();
    CHECK(v->s->ops->stream_sync(v->snapshot.stream));
    v->record.snapshot_seconds += time_now() - begin;
    v->phase = WRITING;
    start_thread(v);
    if (!v->waits) v->sink->snapshot(v->sink, &v->record);
    return OK;
}

bool saver_ready(const Saver *v) {
    return (v->phase == WRITING || v->phase == PUBLISHING) && atomic_load(&v->done);
}

static void report(Saver *v) {
    if (v->waits) v->record.snapshot_seconds = v->record.seconds;
    v->record.weights_crc = checkpoint_weights_crc(v->file);
    v->sink->save(v->sink, &v->record);
    hook_saved(v->hook, v->record.step, v->path);
}

/* After every rank has written its pieces: copies more, or completes the file. */
static Status continue_checkpoint(Saver *v) {
    Comm *host = v->s->comm.host;
    int32_t more = !snapshot_is_last(&v->snapshot);
    CHECK(comm_all_reduce(host, &more, 1, DT_I32, COMM_MAX, COMM_KIND_OTHER, NULL));
    if (more != 0) {
        snapshot_next(&v->snapshot);
        v->phase = COPYING;
        return OK;
    }
    CHECK(checkpoint_gather(v->file, host));
    v->phase = PUBLISHING;
    v->in_use[0] = v->record.step;
    v->n_in_use = 1 + hook_steps(v->hook, v->in_use + 1);
    if (v->s->rank == 0) start_thread(v);
    return OK;
}

Status saver_advance(Saver *v) {
    bool published = v->phase == PUBLISHING;
    Status st = take_result(v);
    if (published && st == OK) report(v);
    st = comm_agree(v->s->comm.host, st);
    if (st == OK && !published) st = continue_checkpoint(v);
    if (st != OK || published) end_checkpoint(v);
    return st;
}

Status saver_join(Saver *v) {
    if (v == NULL) return OK;
    int64_t seen = -1;
    while (v->phase != IDLE) {
        CHECK(saver_release(v));
        for (int i = 0; i < POLLS && !saver_ready(v); i++)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        int64_t sums[] = {saver_ready(v), atomic_load(&v->written)};
        CHECK(comm_all_reduce(v->s->comm.host, sums, 2, DT_I64, COMM_SUM, COMM_KIND_OTHER, NULL));
        if (sums[1] != seen) progress_beat(v->record.step, "checkpoint");
        seen = sums[1];
        if (sums[0] == v->s->world) CHECK(saver_advance(v));
    }
    return OK;
}

/* ---- create and free ------------------------------------------------------------------------- */

Status saver_create(Saver **saver, Session *s, Sink *sink) {
    const Config *c = s->config;
    Saver *v = *saver = NEW(Saver, 1);
    v->s = s;
    v->sink = sink;
    CHECK(comm_agree(s->comm.host, snapshot_create(&v->snapshot, s)));
    if (s->rank == 0) prune(v, 0); /* .tmp files that a killed run left */
    bool planned = c->run.save_every > 0 && c->run.save_every < c->run.steps;
    return c->run.save_async && planned ? snapshot_reserve(&v->snapshot, true) : OK;
}

void saver_set_hook(Saver *v, Hook *hook) {
    v->hook = hook;
}

void saver_free(Saver *v) {
    if (v == NULL) return;
    snapshot_free(&v->snapshot);
    free(v);
}
