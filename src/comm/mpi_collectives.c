/* mpi_collectives.c: collectives in host memory over point-to-point MPI messages.
 *
 * Reductions do not use MPI's, whose order of summation may change with the size, the algorithm and
 * the library. Every rank receives the others' contributions to its block and adds them in rank
 * order, which moves no more bytes than a ring. So sums are reproducible, and an all-reduce gives
 * the bits of a reduce-scatter followed by an all-gather: ZeRO on or off gives the same run. */
#include <stdlib.h>
#include <string.h>

#include "comm/mpi_private.h"

enum { SCRATCH_BYTES = 4 << 20 }; /* of contributions reduced at a time */

static Status run(Mpi *mpi) {
    batch_post(&mpi->collective, mpi->collectives);
    batch_wait(&mpi->collective, &mpi->lock, mpi->world_rank);
    return batch_end(&mpi->collective);
}

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

/* Reduces this rank's block of buf: n elements in blocks of `block`, one a rank; the last ones may
 * be shorter or empty. */
static Status reduce_blocks(Comm *c, char *buf, int64_t n, int64_t block, Dtype t, CommOp op) {
    Mpi *mpi = c->impl;
    int64_t width = dtype_bytes(t);
    int64_t piece = i64_max(1, SCRATCH_BYTES / (c->size * width));
    if (mpi->scratch == NULL)
        mpi->scratch = NEW(char, c->size *i64_max(8, SCRATCH_BYTES / c->size));
    for (int64_t at = 0; at < block; at += piece) {
        int64_t most = i64_min(piece, block - at);
        int64_t begin = c->rank * block + at, count = i64_max(0, i64_min(most, n - begin));
        for (int step = 1; step < c->size; step++) { /* each rank begins with another peer */
            int peer = (c->rank + step) % c->size;
            int64_t theirs = peer * block + at;
            batch_add(&mpi->collective, RECEIVE, mpi->scratch + peer * piece * width, count * width,
                      peer);
            batch_add(&mpi->collective, SEND, buf + theirs * width,
                      i64_min(most, n - theirs) * width, peer);
        }
        CHECK(run(mpi));
        if (count == 0) continue;
        char *own = buf + begin * width;
        memcpy(mpi->scratch + c->rank * piece * width, own, (size_t)(count * width));
        memcpy(own, mpi->scratch, (size_t)(count * width));
        for (int r = 1; r < c->size; r++)
            combine(own, mpi->scratch + r * piece * width, count, t, op);
    }
    return OK;
}

/* With the same layout: every rank receives the blocks of all others. */
static Status gather_blocks(Comm *c, char *buf, int64_t n, int64_t block, Dtype t) {
    Mpi *mpi = c->impl;
    int64_t width = dtype_bytes(t), own = c->rank * block;
    for (int step = 1; step < c->size; step++) {
        int peer = (c->rank + step) % c->size;
        int64_t theirs = peer * block;
        batch_add(&mpi->collective, RECEIVE, buf + theirs * width,
                  i64_min(block, n - theirs) * width, peer);
        batch_add(&mpi->collective, SEND, buf + own * width, i64_min(block, n - own) * width, peer);
    }
    return run(mpi);
}

Status comm_mpi_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream) {
    (void)stream;
    int64_t block = ceil_div(n, c->size);
    CHECK(reduce_blocks(c, buf, n, block, t, op));
    return gather_blocks(c, buf, n, block, t);
}

Status comm_mpi_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    (void)stream;
    return reduce_blocks(c, buf, c->size * n, n, t, COMM_SUM);
}

Status comm_mpi_all_gather(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream) {
    (void)stream;
    return gather_blocks(c, buf, c->size * n, n, t);
}

Status comm_mpi_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream) {
    (void)stream;
    Mpi *mpi = c->impl;
    batch_add(&mpi->collective, BROADCAST, buf, n * dtype_bytes(t), root);
    return run(mpi);
}

Status comm_mpi_barrier(Comm *c) {
    Mpi *mpi = c->impl;
    batch_add_barrier(&mpi->collective);
    return run(mpi);
}
