/* mpi.c: the row over MPI, in host memory.
 *
 * All traffic is batches of nonblocking operations that somebody tests until they are complete,
 * with pauses that give the core away: MPI's own blocking calls spin, which is ruinous when there
 * are more ranks than cores. A progress thread tests the batches of groups while the caller
 * computes, because most MPI libraries move data only inside MPI calls.
 *
 * Reductions are not left to MPI, whose order of summation may change with the size, the algorithm
 * and the library. Every rank is sent the others' contributions to its block and adds them in rank
 * order, which moves no more bytes than a ring. So sums are reproducible, and an all-reduce has the
 * bits of a reduce-scatter followed by an all-gather: ZeRO on or off gives the same run. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/mpi_world.h"

enum {
    MESSAGE_BYTES = 4 << 20, /* longer transfers are cut: MPI 3.1 counts with int */
    SCRATCH_BYTES = 4 << 20, /* contributions being reduced at a time */
    YIELDS = 200,            /* tests by a waiting caller before it starts to sleep between them */
    NAP_NS = 50 * 1000,      /* the waiter's sleep, and the progress thread's first */
    LONG_NAP_NS = 1000 * 1000,
    TAG = 0
};

typedef enum { RECEIVE, SEND, BROADCAST, BARRIER } MessageKind;

typedef struct {
    MessageKind kind;
    int peer, bytes;
    void *buf;
} Message;

typedef struct Batch {
    Message *messages;
    MPI_Request *requests;
    MPI_Status *statuses;
    int count, capacity;
    bool done;
    char *failure; /* the message, when done and failed: found by one thread, told by another */
    int64_t id;
    struct Batch *next;
} Batch;

typedef struct {
    MPI_Comm collectives, groups; /* apart, so that their messages cannot match each other */
    Batch work;                   /* of the collective that is running */
    Batch *open;                  /* the group between begin and end */
    char *scratch;                /* [size][piece] contributions */
    int64_t last_id;

    pthread_mutex_t lock; /* guards what follows, and the batches once they are posted */
    pthread_cond_t wake;
    pthread_t thread;
    bool has_thread, stop;
    int64_t nap_ns;
    Batch *posted; /* groups nobody has waited for yet */
} Mpi;

/* ---- errors --------------------------------------------------------------------------------- */

static void batch_fail(Batch *b, const Message *m, const char *text) {
    static const char *const names[] = {"receive from", "send to", "broadcast from", "barrier of"};
    b->done = true;
    b->failure =
        mem_printf("MPI %s rank %d of its communicator, %d bytes, failed on rank %d of %d: %s",
                   names[m->kind], m->peer, m->bytes, comm_world_rank(), comm_world_size(), text);
}

/* ---- batches -------------------------------------------------------------------------------- */

static void batch_push(Batch *b, Message m) {
    if (b->count == b->capacity) {
        b->capacity = b->capacity > 0 ? 2 * b->capacity : 16;
        b->messages = mem_grow(b->messages, b->capacity, sizeof(Message));
        b->requests = mem_grow(b->requests, b->capacity, sizeof(MPI_Request));
        b->statuses = mem_grow(b->statuses, b->capacity, sizeof(MPI_Status));
    }
    b->requests[b->count] = MPI_REQUEST_NULL;
    b->messages[b->count++] = m;
}

static void batch_add(Batch *b, MessageKind kind, const void *buf, int64_t bytes, int peer) {
    char *at = (char *)(uintptr_t)buf; /* MPI reads what it sends and writes what it receives */
    for (; bytes > 0; at += MESSAGE_BYTES, bytes -= MESSAGE_BYTES)
        batch_push(b, (Message){kind, peer, (int)i64_min(bytes, MESSAGE_BYTES), at});
}

static int message_start(const Message *m, MPI_Comm comm, MPI_Request *request) {
    switch (m->kind) {
    case RECEIVE:
        return MPI_Irecv(m->buf, m->bytes, MPI_BYTE, m->peer, TAG, comm, request);
    case SEND:
        return MPI_Isend(m->buf, m->bytes, MPI_BYTE, m->peer, TAG, comm, request);
    case BROADCAST:
        return MPI_Ibcast(m->buf, m->bytes, MPI_BYTE, m->peer, comm, request);
    case BARRIER:
        return MPI_Ibarrier(comm, request);
    }
    return MPI_ERR_ARG;
}

/* Receives first, so that what arrives is written where it belongs and not copied aside. */
static void batch_post(Batch *b, MPI_Comm comm) {
    char text[MPI_MAX_ERROR_STRING];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < b->count && !b->done; i++) {
            if ((b->messages[i].kind == RECEIVE) != (pass == 0)) continue;
            int code = message_start(&b->messages[i], comm, &b->requests[i]);
            if (code != MPI_SUCCESS) batch_fail(b, &b->messages[i], mpi_error_text(code, text));
        }
    }
}

static void batch_test(Batch *b) {
    if (b->done) return;
    int complete = 0;
    int code = MPI_Testall(b->count, b->requests, &complete, b->statuses);
    b->done = complete != 0 || code != MPI_SUCCESS;
    for (int i = 0; i < b->count && b->done && b->failure == NULL; i++) {
        const Message *m = &b->messages[i];
        char text[MPI_MAX_ERROR_STRING];
        int each = code == MPI_ERR_IN_STATUS ? b->statuses[i].MPI_ERROR : code;
        int got = m->bytes;
        if (each == MPI_ERR_PENDING) continue;
        if (each == MPI_SUCCESS && m->kind == RECEIVE)
            each = MPI_Get_count(&b->statuses[i], MPI_BYTE, &got);
        if (each != MPI_SUCCESS)
            batch_fail(b, m, mpi_error_text(each, text));
        else if (got != m->bytes)
            batch_fail(b, m, "a shorter message came, the ranks disagree about what to send");
    }
}

/* Tests until done. The first tests only yield the core, since most waits are short; then it
 * sleeps, so that ranks which share the core can compute. */
static void batch_wait(Mpi *mpi, Batch *b) {
    for (int tries = 0;; tries++) {
        pthread_mutex_lock(&mpi->lock);
        batch_test(b);
        bool done = b->done;
        pthread_mutex_unlock(&mpi->lock);
        if (done) break;
        if (tries < YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
}

/* How it went. Empties the batch, which no other thread may see any more. */
static Status batch_end(Batch *b) {
    Status st = b->failure != NULL ? status_fail(ERR_ENV, "%s", b->failure) : OK;
    free(b->failure);
    b->failure = NULL;
    b->done = false;
    b->count = 0;
    return st;
}

static void batch_free(Batch *b) {
    free(b->messages);
    free(b->requests);
    free(b->statuses);
    free(b->failure);
}

static Status run_work(Mpi *mpi) {
    batch_post(&mpi->work, mpi->collectives);
    batch_wait(mpi, &mpi->work);
    return batch_end(&mpi->work);
}

/* ---- collectives ---------------------------------------------------------------------------- */

static void combine(void *restrict into, const void *restrict from, int64_t n, Dtype t, CommOp op) {
#define COMBINE(type)                                                                              \
    do {                                                                                           \
        type *restrict a = into;                                                                   \
        const type *restrict b = from;                                                             \
        if (op == COMM_SUM)                                                                        \
            for (int64_t i = 0; i < n; i++) a[i] += b[i];                                          \
        else if (op == COMM_MAX)                                                                   \
            for (int64_t i = 0; i < n; i++) a[i] = a[i] > b[i] ? a[i] : b[i];                      \
        else                                                                                       \
            for (int64_t i = 0; i < n; i++) a[i] = a[i] < b[i] ? a[i] : b[i];                      \
    } while (0)
    switch (t) {
    case DT_F32:
        COMBINE(float);
        break;
    case DT_F64:
        COMBINE(double);
        break;
    case DT_I64:
        COMBINE(int64_t);
        break;
    case DT_I32:
        COMBINE(int32_t);
        break;
    default:
        base_bug(__FILE__, __LINE__, "the type can be reduced");
    }
#undef COMBINE
}

/* buf holds n elements in blocks, one per rank, all but the last ones full. Reduces this rank's. */
static Status reduce_blocks(Comm *c, char *buf, int64_t n, int64_t block, Dtype t, CommOp op) {
    Mpi *mpi = c->impl;
    int64_t width = dtype_bytes(t);
    int64_t piece = i64_max(1, SCRATCH_BYTES / (c->size * width));
    if (mpi->scratch == NULL)
        mpi->scratch = NEW(char, c->size *i64_max(8, SCRATCH_BYTES / c->size));
    for (int64_t at = 0; at < block; at += piece) {
        int64_t most = i64_min(piece, block - at);
        int64_t begin = c->rank * block + at, count = i64_max(0, i64_min(most, n - begin));
        for (int step = 1; step < c->size; step++) { /* everyone starts with another peer */
            int peer = (c->rank + step) % c->size;
            int64_t theirs = peer * block + at;
            batch_add(&mpi->work, RECEIVE, mpi->scratch + peer * piece * width, count * width,
                      peer);
            batch_add(&mpi->work, SEND, buf + theirs * width, i64_min(most, n - theirs) * width,
                      peer);
        }
        CHECK(run_work(mpi));
        if (count == 0) continue;
        char *own = buf + begin * width;
        memcpy(mpi->scratch + c->rank * piece * width, own, (size_t)(count * width));
        memcpy(own, mpi->scratch, (size_t)(count * width));
        for (int r = 1; r < c->size; r++)
            combine(own, mpi->scratch + r * piece * width, count, t, op);
    }
    return OK;
}

/* The same layout: every rank gets every other's block. */
static Status gather_blocks(Comm *c, char *buf, int64_t n, int64_t block, Dtype t) {
    Mpi *mpi = c->impl;
    int64_t width = dtype_bytes(t), own = c->rank * block;
    for (int step = 1; step < c->size; step++) {
        int peer = (c->rank + step) % c->size;
        int64_t theirs = peer * block;
        batch_add(&mpi->work, RECEIVE, buf + theirs * width, i64_min(block, n - theirs) * width,
                  peer);
        batch_add(&mpi->work, SEND, buf + own * width, i64_min(block, n - own) * width, peer);
    }
    return run_work(mpi);
}

static Status mpi_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream) {
    (void)stream;
    int64_t block = ceil_div(n, c->size);
    CHECK(reduce_blocks(c, buf, n, block, t, op));
    return gather_blocks(c, buf, n, block, t);
}

static Status mpi_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    (void)stream;
    return reduce_blocks(c, buf, c->size * n, n, t, COMM_SUM);
}

static Status mpi_all_gather(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    (void)stream;
    return gather_blocks(c, buf, c->size * n, n, t);
}

static Status mpi_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    (void)stream;
    Mpi *mpi = c->impl;
    batch_add(&mpi->work, BROADCAST, buf, n * dtype_bytes(t), root);
    return run_work(mpi);
}

static Status mpi_barrier(Comm *c) {
    Mpi *mpi = c->impl;
    batch_push(&mpi->work, (Message){.kind = BARRIER});
    return run_work(mpi);
}

/* ---- groups --------------------------------------------------------------------------------- */

/* Sleeps longer and longer between tests: every wake-up is taken from what the caller computes
 * (with a fixed 50 us, two fifths of it when ranks share cores). A caller that waits tests by
 * itself. */
static void *progress(void *arg) {
    Mpi *mpi = arg;
    pthread_mutex_lock(&mpi->lock);
    while (!mpi->stop) {
        bool pending = false;
        for (Batch *b = mpi->posted; b != NULL; b = b->next) {
            batch_test(b);
            pending |= !b->done;
        }
        if (!pending) {
            pthread_cond_wait(&mpi->wake, &mpi->lock);
            continue;
        }
        struct timespec nap = {.tv_nsec = (long)mpi->nap_ns};
        mpi->nap_ns = i64_min(2 * mpi->nap_ns, LONG_NAP_NS);
        pthread_mutex_unlock(&mpi->lock);
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&mpi->lock);
    }
    pthread_mutex_unlock(&mpi->lock);
    return NULL;
}

static Status mpi_group_begin(Comm *c) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open == NULL);
    mpi->open = NEW(Batch, 1);
    return OK;
}

static Status mpi_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open != NULL);
    batch_add(mpi->open, SEND, buf, n * dtype_bytes(t), peer);
    return OK;
}

static Status mpi_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open != NULL);
    batch_add(mpi->open, RECEIVE, buf, n * dtype_bytes(t), peer);
    return OK;
}

static Status mpi_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    (void)stream;
    Mpi *mpi = c->impl;
    Batch *b = mpi->open;
    REQUIRE(b != NULL);
    mpi->open = NULL;
    b->id = ++mpi->last_id;
    *ticket = (CommTicket){b->id};
    batch_post(b, mpi->groups);
    batch_test(b);

    pthread_mutex_lock(&mpi->lock);
    b->next = mpi->posted;
    mpi->posted = b;
    mpi->nap_ns = NAP_NS;
    if (!b->done && !mpi->has_thread)
        mpi->has_thread = pthread_create(&mpi->thread, NULL, progress, mpi) == 0;
    bool driven = b->done || mpi->has_thread;
    pthread_cond_signal(&mpi->wake);
    pthread_mutex_unlock(&mpi->lock);
    return driven ? OK
                  : status_fail(ERR_ENV, "cannot start the thread that drives MPI transfers; "
                                         "raise the process limit (ulimit -u)");
}

/* A ticket that was waited for already is complete. */
static Status mpi_wait(Comm *c, CommTicket ticket, Stream *stream) {
    (void)stream;
    Mpi *mpi = c->impl;
    REQUIRE(ticket.id <= mpi->last_id);
    Batch *b = mpi->posted; /* only this thread changes the list */
    while (b != NULL && b->id != ticket.id) b = b->next;
    if (b == NULL) return OK;
    batch_wait(mpi, b);

    pthread_mutex_lock(&mpi->lock);
    Batch **link = &mpi->posted;
    while (*link != b) link = &(*link)->next;
    *link = b->next;
    pthread_mutex_unlock(&mpi->lock);
    Status st = batch_end(b);
    batch_free(b);
    free(b);
    return st;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* Groups that nobody waited for exist only when the job is ending after a failure: they are left.
 */
static void mpi_free(Comm *c) {
    Mpi *mpi = c->impl;
    if (mpi->has_thread) {
        pthread_mutex_lock(&mpi->lock);
        mpi->stop = true;
        pthread_cond_signal(&mpi->wake);
        pthread_mutex_unlock(&mpi->lock);
        pthread_join(mpi->thread, NULL);
    }
    while (mpi->posted != NULL) {
        Batch *b = mpi->posted;
        mpi->posted = b->next;
        for (int i = 0; i < b->count; i++)
            if (b->requests[i] != MPI_REQUEST_NULL) MPI_Request_free(&b->requests[i]);
        batch_free(b);
        free(b);
    }
    batch_free(&mpi->work);
    free(mpi->scratch);
    if (mpi->collectives != MPI_COMM_NULL) MPI_Comm_free(&mpi->collectives);
    if (mpi->groups != MPI_COMM_NULL) MPI_Comm_free(&mpi->groups);
    pthread_cond_destroy(&mpi->wake);
    pthread_mutex_destroy(&mpi->lock);
    free(mpi);
    free(c);
}

Status comm_mpi_split(Comm **out, int color) {
    static const CommTable table = {.all_reduce = mpi_all_reduce,
                                    .reduce_scatter = mpi_reduce_scatter,
                                    .all_gather = mpi_all_gather,
                                    .broadcast = mpi_broadcast,
                                    .barrier = mpi_barrier,
                                    .group_begin = mpi_group_begin,
                                    .send = mpi_send,
                                    .recv = mpi_recv,
                                    .group_end = mpi_group_end,
                                    .wait = mpi_wait,
                                    .free = mpi_free};
    if (!comm_has_mpi()) {
        *out = comm_self_create();
        return OK;
    }
    Comm *c = NEW(Comm, 1);
    Mpi *mpi = NEW(Mpi, 1);
    c->table = &table;
    c->impl = mpi;
    mpi->collectives = mpi->groups = MPI_COMM_NULL;
    pthread_mutex_init(&mpi->lock, NULL);
    pthread_cond_init(&mpi->wake, NULL);
    int code = MPI_Comm_split(MPI_COMM_WORLD, color, comm_world_rank(), &mpi->collectives);
    Status st;
    CHECK_GOTO(mpi_check(code, "MPI_Comm_split"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_dup(mpi->collectives, &mpi->groups), "MPI_Comm_dup"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_rank(mpi->collectives, &c->rank), "MPI_Comm_rank"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_size(mpi->collectives, &c->size), "MPI_Comm_size"), fail);
    *out = c;
    return OK;
fail:
    mpi_free(c);
    return st;
}

Status comm_mpi_create(Comm **c) {
    return comm_mpi_split(c, 0);
}
