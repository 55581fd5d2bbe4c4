#include "comm/comm.h"

#include <stdlib.h>
#include <string.h>

const char *const comm_kind_names[COMM_KINDS] = {"param", "grad", "kv", "dkv", "other"};

void comm_free(Comm *c) {
    if (c != NULL) c->table->free(c);
}

/* ---- the set of a run --------------------------------------------------------------------- */

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
    *set = (CommSet){.local_rank = comm_local_rank()};
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

/* ---- the calls: every collective is in place, so one rank or no elements is no work --------- */

/* Collectives are counted as what each rank of a ring sends of `total` bytes, on average: the count
 * then does not depend on the row that carried it. */
static void count_ring(Comm *c, CommKind kind, int64_t total) {
    c->bytes_sent[kind] +=
        total / c->size * (c->size - 1) + total % c->size * (c->size - 1) / c->size;
}

Status comm_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, CommKind kind,
                       Stream *stream) {
    REQUIRE(n >= 0 && t != DT_BF16 && t != DT_U8);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, 2 * n * dtype_bytes(t));
    return c->table->all_reduce(c, buf, n, t, op, stream);
}

Status comm_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream) {
    REQUIRE(n >= 0 && t != DT_BF16 && t != DT_U8);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, c->size * n * dtype_bytes(t));
    return c->table->reduce_scatter(c, buf, n, t, stream);
}

Status comm_all_gather(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream) {
    REQUIRE(n >= 0);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, kind, c->size * n * dtype_bytes(t));
    return c->table->all_gather(c, buf, n, t, stream);
}

Status comm_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    REQUIRE(n >= 0 && root >= 0 && root < c->size);
    if (n == 0 || c->size == 1) return OK;
    count_ring(c, COMM_KIND_OTHER, n * dtype_bytes(t));
    return c->table->broadcast(c, buf, n, t, root, stream);
}

Status comm_barrier(Comm *c) {
    return c->size == 1 ? OK : c->table->barrier(c);
}

Status comm_group_begin(Comm *c) {
    return c->table->group_begin(c);
}

Status comm_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer, CommKind kind) {
    REQUIRE(n >= 0 && peer >= 0 && peer < c->size);
    if (n == 0) return OK; /* nor does the peer expect a message */
    if (peer != c->rank) c->bytes_sent[kind] += n * dtype_bytes(t);
    return c->table->send(c, buf, n, t, peer);
}

Status comm_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    REQUIRE(n >= 0 && peer >= 0 && peer < c->size);
    return n == 0 ? OK : c->table->recv(c, buf, n, t, peer);
}

Status comm_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    return c->table->group_end(c, stream, ticket);
}

Status comm_wait(Comm *c, CommTicket ticket, Stream *stream) {
    return ticket.id == 0 ? OK : c->table->wait(c, ticket, stream);
}

Status comm_group_signal(Comm *c, uint32_t *flag) {
    REQUIRE(c->signals);
    return c->table->group_signal(c, flag);
}

Status comm_group_after(Comm *c, const uint32_t *flag, uint32_t value) {
    REQUIRE(c->signals);
    return c->table->group_after(c, flag, value);
}

Status comm_expose(Comm *c, void *base, int64_t bytes) {
    return c->size == 1 || c->table->expose == NULL ? OK : c->table->expose(c, base, bytes);
}

/* ---- agreement ---------------------------------------------------------------------------- */

/* A failure outranks a request to stop: state saved by only some ranks is not saved. */
static int severity(Status s) {
    switch (s) {
    case OK:
        return 0;
    case ERR_STOPPED:
        return 1;
    case ERR_USER:
        return 2;
    case ERR_ENV:
        return 3;
    }
    return 3;
}

bool comm_agreed(void) {
    return status_is_agreed();
}

Status comm_agree(Comm *host, Status mine) {
    typedef struct {
        int32_t status, length;
    } Report;
    Report *reports = NEW(Report, host->size);
    char *message = NULL;
    status_set_agreed(false); /* until every rank is known to have the failure */
    reports[host->rank] = (Report){(int32_t)mine, (int32_t)strlen(status_message())};
    Status st = comm_all_gather(host, reports, 2, DT_I32, COMM_KIND_OTHER, NULL);
    if (st != OK) goto done;

    int failed = 0, speaker = 0;
    for (int r = 0; r < host->size; r++) {
        Status s = (Status)reports[r].status;
        failed += s != OK;
        if (severity(s) > severity((Status)reports[speaker].status)) speaker = r;
    }
    if (failed == 0) goto done;

    message = NEW(char, reports[speaker].length + 1);
    if (speaker == host->rank) memcpy(message, status_message(), (size_t)reports[speaker].length);
    CHECK_GOTO(comm_broadcast(host, message, reports[speaker].length, DT_U8, speaker, NULL), done);
    status_clear();
    st = status_fail((Status)reports[speaker].status, "%s", message);
    if (failed < host->size) status_prefix("rank %d", speaker);
    status_set_agreed(true);
done:
    free(reports);
    free(message);
    return st;
}

Status comm_agree_equal(Comm *host, uint64_t value, const char *what) {
    uint64_t *values = NEW(uint64_t, host->size);
    values[host->rank] = value;
    Status st = comm_all_gather(host, values, 1, DT_I64, COMM_KIND_OTHER, NULL);
    for (int r = 1; r < host->size && st == OK; r++) {
        if (values[r] == values[0]) continue;
        st = status_fail(ERR_ENV,
                         "%s differs between ranks: %016llx on rank 0, %016llx on rank %d; start "
                         "every rank with the same binary, files and arguments",
                         what, (unsigned long long)values[0], (unsigned long long)values[r], r);
        status_set_agreed(true);
    }
    free(values);
    return st;
}
