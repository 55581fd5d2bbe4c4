#include "train/saver.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "train/host_memory.h"
#include "base/progress.h"

enum {
    PIECE_BYTES = 32 << 20, /* written between two signs of life; file.c cuts it for its threads */
    SMALL_BYTES = 2 * PIECE_BYTES, /* of the copy, where it is not of the whole state */
    MAX_THREADS = 8,               /* of a rank, beside training: more than a disk keeps up with */
    POLL_NS = 1000 * 1000,
    POLLS = 20 /* while waiting, before ranks tell each other how far they are */
};

/* The same on every rank. COPYING: the copies are queued; the thread starts when they are made. */
typedef enum { IDLE, COPYING, WRITING, PUBLISHING } Phase;

struct Saver {
    Session *s;
    Sink *sink;
    CkptPiece *pieces; /* of this rank, where the optimizer has them */
    int n_pieces;
    int64_t bytes;  /* of them */
    Stream *stream; /* copies run here */
    Event *updated; /* the state is that of the step */
    char *copy;
    int64_t capacity;    /* of the copy */
    bool whole, refused; /* has every rank a copy of all it holds; was there no memory for it */

    /* the checkpoint that is being written */
    Phase phase;
    CkptSave *file;
    char *path;
    SaveRecord record;
    double begin;
    bool waits;      /* training does, until it is on disk */
    int first, next; /* the copy holds pieces [first, next) */

    /* shared with the thread while it runs */
    pthread_t thread;
    bool running;
    int threads;
    atomic_bool done;
    atomic_llong written; /* bytes, of all checkpoints: a sign of life */
    Status status;        /* of what it did */
    bool prune_failed;
    char *message;
};

/* ---- the copy -------------------------------------------------------------------------------- */

/* Asking for more than the host can give, page-locked at that, would not fail but have the kernel
 * end this job or another. A quarter stays for the page cache that checkpoints are written through.
 */
static Status check_memory(const Saver *v) {
    int64_t wanted = v->bytes * comm_local_size(), have = host_memory_available("") / 4 * 3;
    if (wanted <= have) return OK;
    return status_fail(ERR_ENV,
                       "a copy of the state takes %.1f GiB of this host's memory, which has "
                       "%.1f GiB to spare",
                       (double)wanted / 0x1p30, (double)have / 0x1p30);
}

static Status alloc_copy(Saver *v, int64_t bytes) {
    const Ops *ops = v->s->ops;
    ops->host_free(v->copy);
    v->copy = NULL;
    v->capacity = bytes;
    CHECK(ops->host_alloc((void **)&v->copy, i64_max(bytes, 1),
                          "the copy of the state that checkpoints are written from"));
    /* What is not page-locked comes page by page when it is touched: now, not in the first save. */
    if (ops->host_memory) memset(v->copy, 0, (size_t)bytes);
    return OK;
}

/* A copy of everything if wanted and possible, else a small one, which must be. */
static Status prepare_copy(Saver *v, bool whole) {
    Comm *host = v->s->comm.host;
    if (v->whole || (v->copy != NULL && (!whole || v->refused))) return OK;
    if (whole && !v->refused) {
        /* No rank takes its share before all have seen what there is. */
        Status st = comm_agree(host, check_memory(v));
        if (st == OK) st = comm_agree(host, alloc_copy(v, v->bytes));
        v->whole = st == OK;
        if (v->whole) return OK;
        if (!status_is_agreed()) return st;
        if (v->s->rank == 0)
            log_warn("training will wait while checkpoints are written: %s", status_message());
        status_ignore(st);
        v->refused = true;
    }
    return comm_agree(host, alloc_copy(v, i64_min(v->bytes, SMALL_BYTES)));
}

/* As many pieces as the copy takes. */
static void copy_pieces(Saver *v) {
    int64_t at = 0;
    for (v->first = v->next; v->next < v->n_pieces; v->next++) {
        const CkptPiece *p = &v->pieces[v->next];
        int64_t bytes = p->count * (int64_t)sizeof(float);
        if (at + bytes > v->capacity) break;
        v->s->ops->mem_copy(v->copy + at, p->data, bytes, v->stream);
        at += bytes;
    }
    v->phase = COPYING;
}

/* ---- what the thread does -------------------------------------------------------------------- */

static Status write_pieces(Saver *v) {
    const char *from = v->copy;
    for (int i = v->first; i < v->next; i++) {
        CkptPiece p = v->pieces[i];
        int64_t bytes = p.count * (int64_t)sizeof(float);
        p.data = from;
        from += bytes;
        CHECK(checkpoint_write(v->file, &p));
        atomic_fetch_add(&v->written, bytes);
    }
    return v->next == v->n_pieces ? checkpoint_flush(v->file) : OK;
}

/* That an old file cannot be deleted costs space and no training: it is said, once. */
static void prune(Saver *v, int64_t keep, const char *current) {
    Status st = checkpoint_prune(v->s->config->run.dir, keep, current);
    if (st != OK && !v->prune_failed)
        log_warn("%s; old checkpoints may fill the disk", status_message());
    v->prune_failed |= st != OK;
    status_ignore(st);
}

static Status publish(Saver *v) {
    const Config *c = v->s->config;
    CHECK(checkpoint_publish(v->file));
    v->record.seconds = time_now() - v->begin;
    prune(v, c->run.keep_last, v->path);
    return OK;
}

static void *work(void *arg) {
    Saver *v = arg;
    omp_set_num_threads(v->threads);
    v->status = v->phase == WRITING ? write_pieces(v) : publish(v);
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

/* On CPUs training has work for every core. */
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
    CHECK(prepare_copy(v, s->config->run.save_async && !wait));
    CHECK(state_begin_save(s, state, &v->file, &v->path));
    v->record =
        (SaveRecord){.step = state->step, .path = v->path, .bytes = checkpoint_size(v->file)};
    v->begin = begin;
    v->waits = wait || !s->config->run.save_async || !v->whole;
    v->threads = choose_threads(v);
    v->next = 0;
    s->ops->event_record(v->updated, s->stream);
    s->ops->event_wait(v->updated, v->stream);
    copy_pieces(v);
    v->record.snapshot_seconds = time_now() - begin;
    return v->waits ? saver_join(v) : OK;
}

Status saver_release(Saver *v) {
    if (v->phase != COPYING) return OK;
    double begin = time_now();
    CHECK(v->s->ops->stream_sync(v->stream));
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
}

/* Pieces are written, on every rank: are there more, on any? */
static Status go_on(Saver *v) {
    Comm *host = v->s->comm.host;
    int32_t more = v->next < v->n_pieces;
    CHECK(comm_all_reduce(host, &more, 1, DT_I32, COMM_MAX, COMM_KIND_OTHER, NULL));
    if (more != 0) {
        copy_pieces(v);
        return OK;
    }
    CHECK(checkpoint_gather(v->file, host));
    v->phase = PUBLISHING;
    if (v->s->rank == 0) start_thread(v);
    return OK;
}

Status saver_advance(Saver *v) {
    bool published = v->phase == PUBLISHING;
    Status st = take_result(v);
    if (published && st == OK) report(v);
    st = comm_agree(v->s->comm.host, st);
    if (st == OK && !published) st = go_on(v);
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

/* ---- the saver ------------------------------------------------------------------------------- */

static Status start_alone(Saver *v) {
    const Ops *ops = v->s->ops;
    CHECK(ops->stream_create(&v->stream));
    CHECK(ops->event_create(&v->updated));
    if (v->s->rank == 0) prune(v, 0, NULL); /* .tmp files that a killed run left */
    return OK;
}

Status saver_create(Saver **saver, Session *s, Sink *sink) {
    const Config *c = s->config;
    Saver *v = *saver = NEW(Saver, 1);
    v->s = s;
    v->sink = sink;
    v->pieces = state_pieces(s, PIECE_BYTES / (int64_t)sizeof(float), &v->n_pieces);
    for (int i = 0; i < v->n_pieces; i++) v->bytes += v->pieces[i].count * (int64_t)sizeof(float);
    CHECK(comm_agree(s->comm.host, start_alone(v)));
    bool planned = c->run.save_every > 0 && c->run.save_every < c->run.steps;
    return c->run.save_async && planned ? prepare_copy(v, true) : OK;
}

void saver_free(Saver *v) {
    if (v == NULL) return;
    const Ops *ops = v->s->ops;
    if (v->stream != NULL) ops->stream_free(v->stream);
    if (v->updated != NULL) ops->event_free(v->updated);
    ops->host_free(v->copy);
    free(v->pieces);
    free(v);
}
