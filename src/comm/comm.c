#include "comm/comm.h"

#include "ops/nvtx.h"
#include "ops/phases.h"

const char *const comm_kind_names[COMM_KINDS] = {"param", "grad", "kv", "dkv", "other"};

void comm_free(Comm *c) {
    if (c != NULL) c->table->free(c);
}

/* ---- the communicators of a run -------------------------------------------------------------- */

static Status open_split(Comm **c, const Ops *ops, int color) {
    CHECK(comm_mpi_split(c, color));
#ifdef CRIA_CUDA
    if (!ops->host_memory) {
        Comm *host = *c;
        *c = NULL;
        return comm_nccl_create(c, host, ops);
    }
#endif
    REQUIRE(ops->host_memory);
    return OK;
}

Status comm_open(CommSet *set, const Ops *ops, int cp) {
    int rank = comm_world_rank();
    REQUIRE(cp >= 1 && comm_world_size() % cp == 0);
    *set = (CommSet){0};
    Status st;
    CHECK_GOTO(comm_mpi_create(&set->host), fail);
    CHECK_GOTO(open_split(&set->world, ops, 0), fail);
    CHECK_GOTO(open_split(&set->cp, ops, rank / cp), fail);
    return OK;
fail:
    comm_close(set);
    return st;
}

void comm_close(CommSet *set) {
    comm_free(set->cp);
    comm_free(set->world);
    comm_free(set->host);
    *set = (CommSet){0};
}

/* ---- operations: collectives are in place, so one rank or no elements is no work ------------- */

/* Counts what a rank of a ring sends of `total` bytes on average, so that the count does not depend
 * on the backend. */
static void count_ring(Comm *c, CommKind kind, int64_t total) {
    c->bytes_sent[kind] +=
        total / c->size * (c->size - 1) + total % c->size * (c->size - 1) / c->size;
}

static const Phase phases[COMM_KINDS] = {[COMM_KIND_PARAM] = PHASE_WEIGHT_GATHER,
                                         [COMM_KIND_GRAD] = PHASE_GRAD_REDUCE,
                                         [COMM_KIND_KV] = PHASE_CP_EXPOSED,
                                         [COMM_KIND_DKV] = PHASE_CP_EXPOSED,
                                         [COMM_KIND_OTHER] = PHASE_WAIT};

/* A range for profilers and a phase of the stream; `end` hands on the operation's status. */
static Phase begin(const char *name, Phase phase, Stream *stream) {
    nvtx_push(name, -1);
    return phase_enter(stream, phase);
}

static Status end(Status st, Phase before, Stream *stream) {
    phase_enter(stream, before);
    nvtx_pop();
    return st;
}

Status comm_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, CommKind kind,
                       Stream *stream) {
    REQUIRE(n >= 0 && t != DT_BF16 && t != DT_U8);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, 2 * n * dtype_bytes(t));
    Phase before = begin("all-reduce", phases[kind], stream);
    return end(c->table->all_reduce(c, buf, n, t, op, stream), before, stream);
}

Status comm_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream) {
    REQUIRE(n >= 0 && t != DT_BF16 && t != DT_U8);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, c->size * n * dtype_bytes(t));
    Phase before = begin("reduce-scatter", phases[kind], stream);
    return end(c->table->reduce_scatter(c, buf, n, t, stream), before, stream);
}

Status comm_all_gather(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream) {
    REQUIRE(n >= 0);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, c->size * n * dtype_bytes(t));
    Phase before = begin("all-gather", phases[kind], stream);
    return end(c->table->all_gather(c, buf, n, t, stream), before, stream);
}

Status comm_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    REQUIRE(n >= 0 && root >= 0 && root < c->size);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, COMM_KIND_OTHER, n * dtype_bytes(t));
    Phase before = begin("broadcast", PHASE_WAIT, stream);
    return end(c->table->broadcast(c, buf, n, t, root, stream), before, stream);
}

Status comm_barrier(Comm *c) {
    return c->size == 1 ? OK : c->table->barrier(c);
}

Status comm_group_begin(Comm *c) {
    return c->table->group_begin(c);
}

Status comm_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer, CommKind kind) {
    REQUIRE(n >= 0 && peer >= 0 && peer < c->size);
    if (n == 0) return OK; /* the peer expects no message */
    if (peer != c->rank) c->bytes_sent[kind] += n * dtype_bytes(t);
    return c->table->send(c, buf, n, t, peer);
}

Status comm_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    REQUIRE(n >= 0 && peer >= 0 && peer < c->size);
    return n == 0 ? OK : c->table->recv(c, buf, n, t, peer);
}

Status comm_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    nvtx_push("transfers", -1);
    Status st = c->table->group_end(c, stream, ticket);
    nvtx_pop();
    return st;
}

Status comm_wait(Comm *c, CommTicket ticket, Stream *stream) {
    if (ticket.id == 0) return OK;
    Phase before = begin("wait for transfers", PHASE_CP_EXPOSED, stream);
    return end(c->table->wait(c, ticket, stream), before, stream);
}

Status comm_group_set_flag_on_recv(Comm *c, uint32_t *flag) {
    REQUIRE(c->has_flags);
    return c->table->group_set_flag_on_recv(c, flag);
}

Status comm_group_wait_value(Comm *c, const uint32_t *flag, uint32_t value) {
    REQUIRE(c->has_flags);
    return c->table->group_wait_value(c, flag, value);
}

Status comm_register_buffer(Comm *c, void *base, int64_t bytes) {
    return c->size == 1 || c->table->register_buffer == NULL
               ? OK
               : c->table->register_buffer(c, base, bytes);
}

bool comm_is_direct(const Comm *c, int peer) {
    return c->table->is_direct != NULL && c->table->is_direct(c, peer);
}
