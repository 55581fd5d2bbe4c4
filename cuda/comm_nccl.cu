/* comm_nccl.cu: the Comm backend for device memory, over NCCL. After comm_register_buffer() groups
 * use CUDA IPC between GPUs of one machine (comm_ipc.cu).
 *
 * Each communicator runs its operations, in the order of the calls, on one stream of high priority,
 * so that a transfer need not wait for the blocks of a running attention. By events its stream
 * waits for the caller's, and the caller's for the operation: at once after a collective, in
 * comm_wait() after a group. */
#include "comm_ipc.h"

#include <nccl.h>
#include <stdlib.h>

enum { TICKETS = 16 };

typedef struct {
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t caller_ready; /* latest work of the caller's stream */
    cudaEvent_t collective_done;
    /* Group i ends at event i % TICKETS. A wait for an older group whose event is reused waits for
     * the later group, which is correct because the stream is in order. */
    cudaEvent_t group_done[TICKETS];
    int64_t groups; /* number of the latest */
    Group group;    /* the open one */
    bool open;
    Event *trace[2];   /* of the next group; NULL: none */
    int32_t *word;     /* device memory for the barrier */
    Comm *host;        /* the same ranks in host memory; owned */
    IpcTransport *ipc; /* NULL: all transfers use NCCL */
} Nccl;

static ncclDataType_t type_of(Dtype t) {
    switch (t) {
    case DT_F32:
        return ncclFloat32;
    case DT_BF16:
        return ncclBfloat16;
    case DT_F64:
        return ncclFloat64;
    case DT_I64:
        return ncclInt64;
    case DT_I32:
        return ncclInt32;
    case DT_U8:
        return ncclUint8;
    case DT_F16:
        return ncclFloat16;
    case DT_F8_E4M3: /* not sent */
    case DT_F8_E5M2:
    case DT_OTHER:
        break;
    }
    REQUIRE(false);
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

/* Asynchronous errors since the last call, such as a dead peer or a link that is down. */
static Status check_async(const Nccl *x, const char *what) {
    ncclResult_t error = ncclSuccess;
    CHECK(check(x, ncclCommGetAsyncError(x->comm, &error), what));
    return check(x, error, what);
}

/* Also before the transfers of a group. */
static void begin_collective(Nccl *x, Stream *stream) {
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->caller_ready, stream->s));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(x->stream, x->caller_ready, 0));
}

/* After a collective was enqueued. */
static Status end_collective(Nccl *x, ncclResult_t result, const char *what, Stream *stream) {
    CHECK(check(x, result, what));
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->collective_done, x->stream));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream->s, x->collective_done, 0));
    return check_async(x, what);
}

/* ---- collectives ---------------------------------------------------------------------------- */

static Status nccl_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream) {
    Nccl *x = nccl_of(c);
    begin_collective(x, stream);
    return end_collective(
        x, ncclAllReduce(buf, buf, (size_t)n, type_of(t), op_of(op), x->comm, x->stream),
        "all-reduce", stream);
}

static Status nccl_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    Nccl *x = nccl_of(c);
    char *own = (char *)buf + c->rank * n * dtype_bytes(t);
    begin_collective(x, stream);
    return end_collective(
        x, ncclReduceScatter(buf, own, (size_t)n, type_of(t), ncclSum, x->comm, x->stream),
        "reduce-scatter", stream);
}

static Status nccl_all_gather(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    Nccl *x = nccl_of(c);
    char *own = (char *)buf + c->rank * n * dtype_bytes(t);
    begin_collective(x, stream);
    return end_collective(x, ncclAllGather(own, buf, (size_t)n, type_of(t), x->comm, x->stream),
                          "all-gather", stream);
}

static Status nccl_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    Nccl *x = nccl_of(c);
    begin_collective(x, stream);
    return end_collective(x,
                          ncclBroadcast(buf, buf, (size_t)n, type_of(t), root, x->comm, x->stream),
                          "broadcast", stream);
}

static Status nccl_barrier(Comm *c) {
    Nccl *x = nccl_of(c);
    CHECK(check(x, ncclAllReduce(x->word, x->word, 1, ncclInt32, ncclMax, x->comm, x->stream),
                "barrier"));
    CUDA_CHECK_DEFERRED(cudaStreamSynchronize(x->stream));
    CHECK(check_async(x, "barrier"));
    return cuda_deferred_error();
}

/* ---- groups: enqueued by group_end, so that no NCCL group is open across calls --------------- */

static Status nccl_group_begin(Comm *c) {
    Nccl *x = nccl_of(c);
    REQUIRE(!x->open);
    x->open = true;
    x->group.n = 0;
    x->group.n_recv_flags = 0;
    x->group.wait_value = WaitValue{};
    return OK;
}

static Status nccl_group_set_flag_on_recv(Comm *c, uint32_t *flag) {
    Group *group = &nccl_of(c)->group;
    REQUIRE(group->n_recv_flags < COMM_GROUP_FLAGS_MAX);
    group->recv_flags[group->n_recv_flags++] = RecvFlag{flag, group->n};
    return OK;
}

static Status nccl_group_wait_value(Comm *c, const uint32_t *flag, uint32_t value) {
    nccl_of(c)->group.wait_value = WaitValue{flag, value};
    return OK;
}

static Status add_transfer(Comm *c, Transfer transfer) {
    Group *group = &nccl_of(c)->group;
    REQUIRE(nccl_of(c)->open);
    if (group->n == group->capacity) {
        group->capacity = i64_max(16, 2 * group->capacity);
        group->transfers =
            (Transfer *)mem_grow(group->transfers, group->capacity, sizeof(Transfer));
    }
    group->transfers[group->n++] = transfer;
    return OK;
}

static Status nccl_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    return add_transfer(c, Transfer{(void *)buf, n, t, peer, true});
}

static Status nccl_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    return add_transfer(c, Transfer{buf, n, t, peer, false});
}

static bool uses_ipc(const Nccl *x, const Transfer *t) {
    return x->ipc != NULL && ipc_reaches(x->ipc, t->peer);
}

static ncclResult_t send_and_recv(const Nccl *x) {
    ncclResult_t result = ncclGroupStart();
    for (int64_t i = 0; i < x->group.n && result == ncclSuccess; i++) {
        const Transfer *t = &x->group.transfers[i];
        if (uses_ipc(x, t)) continue;
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
    if (x->group.n == 0 && x->ipc == NULL) return OK;
    ticket->id = ++x->groups;
    int64_t by_ipc = 0;
    for (int64_t i = 0; i < x->group.n; i++) by_ipc += uses_ipc(x, &x->group.transfers[i]);
    if (by_ipc < x->group.n) begin_collective(x, stream);
    if (x->ipc != NULL) CHECK(ipc_send(x->ipc, ticket->id, &x->group, stream->s, x->stream));
    if (x->trace[0] != NULL) CUDA_CHECK_DEFERRED(cudaEventRecord(x->trace[0]->e, x->stream));
    if (by_ipc < x->group.n) CHECK(check(x, send_and_recv(x), "send and receive"));
    if (x->ipc != NULL) CHECK(ipc_recv(x->ipc, ticket->id, &x->group, x->stream));
    if (x->trace[1] != NULL) CUDA_CHECK_DEFERRED(cudaEventRecord(x->trace[1]->e, x->stream));
    x->trace[0] = x->trace[1] = NULL;
    CUDA_CHECK_DEFERRED(cudaEventRecord(x->group_done[ticket->id % TICKETS], x->stream));
    return OK;
}

static Status nccl_wait(Comm *c, CommTicket ticket, Stream *stream) {
    Nccl *x = nccl_of(c);
    REQUIRE(ticket.id > 0 && ticket.id <= x->groups);
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream->s, x->group_done[ticket.id % TICKETS], 0));
    if (x->ipc != NULL) ipc_wait_sent(x->ipc, ticket.id, stream->s);
    return check_async(x, "send and receive");
}

static Status nccl_register_buffer(Comm *c, void *base, int64_t bytes) {
    Nccl *x = nccl_of(c);
    REQUIRE(!x->open);
    ipc_free(x->ipc);
    x->ipc = NULL;
    x->groups = 0; /* from here on every rank opens the same groups */
    if (base != NULL) CHECK(ipc_connect(&x->ipc, base, bytes, x->host));
    c->has_flags = x->ipc != NULL && ipc_reaches_all(x->ipc);
    return OK;
}

static bool nccl_is_direct(const Comm *c, int peer) {
    const Nccl *x = (const Nccl *)c->impl;
    return x->ipc != NULL && ipc_reaches(x->ipc, peer);
}

static void nccl_trace(Comm *c, Event *begin, Event *end) {
    nccl_of(c)->trace[0] = begin;
    nccl_of(c)->trace[1] = end;
}

/* ---- create and free ------------------------------------------------------------------------ */

/* ncclCommDestroy needs all ranks; after a failure the communicator is aborted. */
static void nccl_free(Comm *c) {
    Nccl *x = nccl_of(c);
    if (x->comm != NULL) {
        ncclResult_t error = ncclSuccess;
        ncclCommGetAsyncError(x->comm, &error);
        bool healthy = error == ncclSuccess && cudaStreamQuery(x->stream) == cudaSuccess;
        if (healthy)
            ncclCommDestroy(x->comm);
        else
            ncclCommAbort(x->comm);
    }
    for (int i = 0; i < TICKETS; i++)
        if (x->group_done[i] != NULL) cudaEventDestroy(x->group_done[i]);
    if (x->caller_ready != NULL) cudaEventDestroy(x->caller_ready);
    if (x->collective_done != NULL) cudaEventDestroy(x->collective_done);
    if (x->stream != NULL) cudaStreamDestroy(x->stream);
    ipc_free(x->ipc);
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
    CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->caller_ready, cudaEventDisableTiming));
    CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->collective_done, cudaEventDisableTiming));
    for (int i = 0; i < TICKETS; i++)
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&x->group_done[i], cudaEventDisableTiming));
    CUDA_CHECK_DEFERRED(cudaMalloc((void **)&x->word, sizeof *x->word));
    CUDA_CHECK_DEFERRED(cudaMemset(x->word, 0, sizeof *x->word));
    return cuda_deferred_error();
}

static Status connect_ranks(Comm *c) {
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

/* By name, since several members have the same type. */
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
    t.register_buffer = nccl_register_buffer;
    t.is_direct = nccl_is_direct;
    t.group_set_flag_on_recv = nccl_group_set_flag_on_recv;
    t.group_wait_value = nccl_group_wait_value;
    t.free = nccl_free;
    t.trace = nccl_trace;
    return t;
}

extern "C" Status comm_nccl_create(Comm **out, Comm *host, const Ops *ops) {
    static const CommTable table = make_table();
    REQUIRE(!ops->host_memory);
    /* NVLink SHARP adds in an unspecified order: runs could differ. */
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    Comm *c = NEW(Comm, 1);
    c->rank = host->rank;
    c->size = host->size;
    c->table = &table;
    c->impl = NEW(Nccl, 1);
    nccl_of(c)->host = host;
    Status st = connect_ranks(c);
    if (st == OK)
        *out = c;
    else
        nccl_free(c);
    return st;
}
