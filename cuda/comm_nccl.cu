/* comm_nccl.cu: the Comm row for device memory, over NCCL; what groups send between GPUs of one
 * machine goes another way once comm_expose() has been called (comm_ipc.cu).
 *
 * Each communicator runs all of its operations, in the order of the calls, on one stream of its own
 * with high priority, so that a transfer need not wait for the blocks of a running attention.
 * Events hand over: its stream waits for the caller's, and the caller's for the operation, at once
 * for a collective and in comm_wait() for a group. */
#include "comm_ipc.h"

#include <nccl.h>
#include <stdlib.h>

enum { TICKETS = 16 };

typedef struct {
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t handed; /* the caller's stream has come this far */
    cudaEvent_t done;   /* a collective */
    /* Group i ends at event i % TICKETS. Waiting for a group so old that its event serves a later
     * one waits for that one too, which is more than asked for but never wrong: the stream is in
     * order. */
    cudaEvent_t ended[TICKETS];
    int64_t groups; /* so far */
    Group group;    /* the open one */
    bool open;
    Event *trace[2]; /* of the next group; NULL: none */
    int32_t *word;   /* device memory for the barrier */
    Comm *host;      /* the same ranks in host memory; owned */
    Peers *peers;    /* NULL: everything goes through NCCL */
} Nccl;

static ncclDataType_t type_of(Dtype t) {
    static const ncclDataType_t types[] = {ncclFloat32, ncclBfloat16, ncclFloat64,
                                           ncclInt64,   ncclInt32,    ncclUint8};
    return types[t];
}

static ncclRedOp_t op_of(CommOp op) {
    static const ncclRedOp_t ops[] = {ncclSum, ncclMax, ncclMin};
    return ops[op];
}

static Nccl *nccl_of(Comm *c) {
    return (Nccl *)c->impl;
}

static Status check(const Nccl *x, ncclResult_t result, const char *what) {
    if (result == ncclSuccess || result == ncclInProgress) return OK;
    return status_fail(ERR_ENV, "NCCL failed in %s: %s: %s", what, ncclGetErrorString(result),
                       ncclGetLastError(x->comm));
}

/* What went wrong since the last call: a peer that is gone, a link that is down. */
static Status check_late(const Nccl *x, const char *what) {
    ncclResult_t late = ncclSuccess;
    CHECK(check(x, ncclCommGetAsyncError(x->comm, &late), what));
    return check(x, late, what);
}

static void enter(Nccl *x, Stream *stream) {
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->handed, stream->s));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(x->stream, x->handed, 0));
}

/* After a collective was queued. */
static Status leave(Nccl *x, ncclResult_t result, const char *what, Stream *stream) {
    CHECK(check(x, result, what));
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->done, x->stream));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream->s, x->done, 0));
    return check_late(x, what);
}

/* ---- collectives ---------------------------------------------------------------------------- */

static Status nccl_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream) {
    Nccl *x = nccl_of(c);
    enter(x, stream);
    return leave(x, ncclAllReduce(buf, buf, (size_t)n, type_of(t), op_of(op), x->comm, x->stream),
                 "all-reduce", stream);
}

static Status nccl_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    Nccl *x = nccl_of(c);
    char *own = (char *)buf + c->rank * n * dtype_bytes(t);
    enter(x, stream);
    return leave(x, ncclReduceScatter(buf, own, (size_t)n, type_of(t), ncclSum, x->comm, x->stream),
                 "reduce-scatter", stream);
}

static Status nccl_all_gather(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    Nccl *x = nccl_of(c);
    char *own = (char *)buf + c->rank * n * dtype_bytes(t);
    enter(x, stream);
    return leave(x, ncclAllGather(own, buf, (size_t)n, type_of(t), x->comm, x->stream),
                 "all-gather", stream);
}

static Status nccl_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    Nccl *x = nccl_of(c);
    enter(x, stream);
    return leave(x, ncclBroadcast(buf, buf, (size_t)n, type_of(t), root, x->comm, x->stream),
                 "broadcast", stream);
}

static Status nccl_barrier(Comm *c) {
    Nccl *x = nccl_of(c);
    CHECK(check(x, ncclAllReduce(x->word, x->word, 1, ncclInt32, ncclMax, x->comm, x->stream),
                "barrier"));
    CUDA_CHECK_DEFERRED(cudaStreamSynchronize(x->stream));
    CHECK(check_late(x, "barrier"));
    return cuda_deferred_error();
}

/* ---- groups: kept until the end, so that no NCCL group is open across calls --------------------
 */

static Status nccl_group_begin(Comm *c) {
    Nccl *x = nccl_of(c);
    REQUIRE(!x->open);
    x->open = true;
    x->group.n = 0;
    x->group.n_signals = 0;
    x->group.gate = Gate{};
    return OK;
}

static Status nccl_group_signal(Comm *c, uint32_t *flag) {
    Group *group = &nccl_of(c)->group;
    REQUIRE(group->n_signals < COMM_SIGNALS);
    group->signals[group->n_signals++] = Signal{flag, group->n};
    return OK;
}

static Status nccl_group_after(Comm *c, const uint32_t *flag, uint32_t value) {
    nccl_of(c)->group.gate = Gate{flag, value};
    return OK;
}

static Status add(Comm *c, Transfer transfer) {
    Group *group = &nccl_of(c)->group;
    REQUIRE(nccl_of(c)->open);
    if (group->n == group->room) {
        group->room = i64_max(16, 2 * group->room);
        group->transfers = (Transfer *)mem_grow(group->transfers, group->room, sizeof(Transfer));
    }
    group->transfers[group->n++] = transfer;
    return OK;
}

static Status nccl_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    return add(c, Transfer{(void *)buf, n, t, peer, true});
}

static Status nccl_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    return add(c, Transfer{buf, n, t, peer, false});
}

static bool goes_direct(const Nccl *x, const Transfer *t) {
    return x->peers != NULL && peers_reach(x->peers, t->peer);
}

static ncclResult_t run_transfers(const Nccl *x) {
    ncclResult_t result = ncclGroupStart();
    for (int64_t i = 0; i < x->group.n && result == ncclSuccess; i++) {
        const Transfer *t = &x->group.transfers[i];
        if (goes_direct(x, t)) continue;
        size_t n = (size_t)t->n;
        result = t->send ? ncclSend(t->buf, n, type_of(t->type), t->peer, x->comm, x->stream)
                         : ncclRecv(t->buf, n, type_of(t->type), t->peer, x->comm, x->stream);
    }
    ncclResult_t end = ncclGroupEnd();
    return result != ncclSuccess ? result : end;
}

static Status nccl_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    Nccl *x = nccl_of(c);
    REQUIRE(x->open);
    x->open = false;
    ticket->id = 0;
    if (x->group.n == 0 && x->peers == NULL) return OK;
    ticket->id = ++x->groups;
    int64_t direct = 0;
    for (int64_t i = 0; i < x->group.n; i++) direct += goes_direct(x, &x->group.transfers[i]);
    if (direct < x->group.n) enter(x, stream);
    if (x->peers != NULL) CHECK(peers_begin(x->peers, ticket->id, &x->group, stream->s, x->stream));
    if (x->trace[0] != NULL) CUDA_CHECK_DEFERRED(cudaEventRecord(x->trace[0]->e, x->stream));
    if (direct < x->group.n) CHECK(check(x, run_transfers(x), "send and receive"));
    if (x->peers != NULL) CHECK(peers_pull(x->peers, ticket->id, &x->group, x->stream));
    if (x->trace[1] != NULL) CUDA_CHECK_DEFERRED(cudaEventRecord(x->trace[1]->e, x->stream));
    x->trace[0] = x->trace[1] = NULL;
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->ended[ticket->id % TICKETS], x->stream));
    return OK;
}

static Status nccl_wait(Comm *c, CommTicket ticket, Stream *stream) {
    Nccl *x = nccl_of(c);
    REQUIRE(ticket.id > 0 && ticket.id <= x->groups);
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream->s, x->ended[ticket.id % TICKETS], 0));
    if (x->peers != NULL) peers_wait(x->peers, ticket.id, stream->s);
    return check_late(x, "send and receive");
}

static Status nccl_expose(Comm *c, void *base, int64_t bytes) {
    Nccl *x = nccl_of(c);
    REQUIRE(!x->open);
    peers_close(x->peers);
    x->peers = NULL;
    x->groups = 0; /* counted alike on every rank from here on */
    if (base != NULL) CHECK(peers_open(&x->peers, base, bytes, x->host));
    c->signals = x->peers != NULL && peers_reach_all(x->peers);
    return OK;
}

static void nccl_trace(Comm *c, Event *begin, Event *end) {
    nccl_of(c)->trace[0] = begin;
    nccl_of(c)->trace[1] = end;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* A communicator whose work was abandoned after a failure cannot be ended in agreement with the
 * others: it is aborted. */
static void nccl_free(Comm *c) {
    Nccl *x = nccl_of(c);
    if (x->comm != NULL) {
        ncclResult_t late = ncclSuccess;
        ncclCommGetAsyncError(x->comm, &late);
        bool sound = late == ncclSuccess && cudaStreamQuery(x->stream) == cudaSuccess;
        if (sound)
            ncclCommDestroy(x->comm);
        else
            ncclCommAbort(x->comm);
    }
    for (int i = 0; i < TICKETS; i++)
        if (x->ended[i] != NULL) cudaEventDestroy(x->ended[i]);
    if (x->handed != NULL) cudaEventDestroy(x->handed);
    if (x->done != NULL) cudaEventDestroy(x->done);
    if (x->stream != NULL) cudaStreamDestroy(x->stream);
    peers_close(x->peers);
    cudaFree(x->word);
    comm_free(x->host);
    free(x->group.transfers);
    free(x);
    free(c);
}

static Status make_streams(Nccl *x) {
    int least = 0, most = 0;
    CUDA_CHECK_DEFERRED(cudaDeviceGetStreamPriorityRange(&least, &most));
    CUDA_CHECK_DEFERRED(cudaStreamCreateWithPriority(&x->stream, cudaStreamNonBlocking, most));
    CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->handed, cudaEventDisableTiming));
    CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->done, cudaEventDisableTiming));
    for (int i = 0; i < TICKETS; i++)
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->ended[i], cudaEventDisableTiming));
    CUDA_CHECK_DEFERRED(cudaMalloc((void **)&x->word, sizeof *x->word));
    CUDA_CHECK_DEFERRED(cudaMemset(x->word, 0, sizeof *x->word));
    return cuda_deferred_error();
}

static Status join(Comm *c) {
    Nccl *x = nccl_of(c);
    Comm *host = x->host;
    ncclUniqueId id = {};
    Status st = make_streams(x);
    if (st == OK && c->rank == 0) st = check(x, ncclGetUniqueId(&id), "ncclGetUniqueId");
    CHECK(comm_agree(host, st));
    CHECK(comm_broadcast(host, &id, sizeof id, DT_U8, 0, NULL));
    st = check(x, ncclCommInitRank(&x->comm, c->size, id, c->rank), "ncclCommInitRank");
    return comm_agree(host, st);
}

/* By name: several of these have the same type. */
static CommTable make_table(void) {
    CommTable t = {};
    t.all_reduce = nccl_all_reduce;
    t.reduce_scatter = nccl_reduce_scatter;
    t.all_gather = nccl_all_gather;
    t.broadcast = nccl_broadcast;
    t.barrier = nccl_barrier;
    t.group_begin = nccl_group_begin;
    t.send = nccl_send;
    t.recv = nccl_recv;
    t.group_end = nccl_group_end;
    t.wait = nccl_wait;
    t.expose = nccl_expose;
    t.group_signal = nccl_group_signal;
    t.group_after = nccl_group_after;
    t.free = nccl_free;
    t.trace = nccl_trace;
    return t;
}

extern "C" Status comm_nccl_create(Comm **out, Comm *host, const Ops *ops) {
    static const CommTable table = make_table();
    REQUIRE(!ops->host_memory);
    /* The order in which switches add (NVLink SHARP) is not specified: runs could differ. */
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    Comm *c = NEW(Comm, 1);
    c->rank = host->rank;
    c->size = host->size;
    c->table = &table;
    c->impl = NEW(Nccl, 1);
    nccl_of(c)->host = host;
    Status st = join(c);
    if (st == OK)
        *out = c;
    else
        nccl_free(c);
    return st;
}
