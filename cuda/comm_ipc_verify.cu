/* comm_ipc_verify.cu: tests that copies between GPUs arrive uncorrupted before they are used. A
 * driver may allow copies between two GPUs that then deliver other bytes (PCIe behind an IOMMU). */
#include "comm_ipc_private.h"

#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/log.h"
}

enum { PATTERN_BYTES = 16 << 10 };

int ipc_test_corrupt_rank = -1;

static void make_pattern(uint64_t *words, int64_t n, int rank) {
    for (int64_t i = 0; i < n; i++) words[i] = checksum_mix((uint64_t)rank, i);
}

/* Copies r's pattern, as groups do, into device memory at `to`. */
static bool arrives(IpcTransport *t, int r, char *to, int64_t n) {
    int64_t bytes = n * (int64_t)sizeof(uint64_t);
    uint64_t *expected = NEW(uint64_t, n), *found = NEW(uint64_t, n);
    make_pattern(expected, n, r);
    CUDA_CHECK_DEFERRED(cudaMemsetAsync(to, 0, (size_t)bytes, t->sends));
    ipc_add_copy(t, to, t->peers[r].base, bytes);
    ipc_enqueue_copies(t, t->sends);
    CUDA_CHECK_DEFERRED(cudaMemcpyAsync(found, to, (size_t)bytes, cudaMemcpyDefault, t->sends));
    CUDA_CHECK_DEFERRED(cudaStreamSynchronize(t->sends));
    if (r == ipc_test_corrupt_rank) found[n / 2] ^= 1;
    bool same = memcmp(found, expected, (size_t)bytes) == 0;
    free(expected);
    free(found);
    return same;
}

/* Every rank writes a pattern to the beginning of its buffer for the others to copy and compare,
 * and then restores the bytes. Collective. */
static Status test_copies(IpcTransport *t, Reach *reach, Comm *host) {
    int64_t bytes = i64_min(PATTERN_BYTES, t->bytes / 8 * 8);
    CHECK(comm_all_reduce(host, &bytes, 1, DT_I64, COMM_MIN, COMM_KIND_OTHER, NULL));
    int64_t n = bytes / 8;
    if (n == 0) return OK;
    uint64_t *pattern = NEW(uint64_t, n);
    make_pattern(pattern, n, t->rank);
    CUDA_CHECK_DEFERRED(cudaDeviceSynchronize()); /* earlier work may still write the buffer */
    char *saved = (char *)cuda_scratch_new(2 * bytes, "copies between GPUs", t->sends);
    auto move = [&](void *to, const void *from) {
        if (saved == NULL) return;
        CUDA_CHECK_DEFERRED(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, t->sends));
        CUDA_CHECK_DEFERRED(cudaStreamSynchronize(t->sends));
    };
    move(saved, t->base);
    move(t->base, pattern);
    Status st = comm_barrier(host);
    for (int r = 0; r < t->size && st == OK && saved != NULL; r++)
        if (r != t->rank && reach[r] == REACHED && !arrives(t, r, saved + bytes, n))
            reach[r] = CORRUPTS;
    if (st == OK) st = comm_barrier(host);
    move(t->base, saved);
    if (saved != NULL) cuda_scratch_free(saved, t->sends);
    free(pattern);
    return st;
}

/* The first rank that found corruption reports it. all: [rank][from] */
static void warn_of_corruption(const IpcTransport *t, const uint8_t *all) {
    int i = 0;
    while (i < t->size * t->size && all[i] != CORRUPTS) i++;
    if (i / t->size != t->rank) return;
    log_warn(
        "what is copied from the GPU of rank %d of this context-parallel group arrives damaged "
        "(PCIe peer-to-peer behind an IOMMU does that): such pairs use NCCL; as NCCL may copy "
        "in the same way, set NCCL_P2P_DISABLE=1, or turn off IOMMU and PCIe ACS",
        i % t->size);
}

Status ipc_verify(IpcTransport *t, Reach *reach, Comm *host) {
    int size = t->size;
    CHECK(test_copies(t, reach, host));
    uint8_t *all = NEW(uint8_t, size * size);
    for (int r = 0; r < size; r++) all[t->rank * size + r] = reach[r];
    Status st = comm_all_gather(host, all, size, DT_U8, COMM_KIND_OTHER, NULL);
    t->reaches_all = st == OK;
    for (int i = 0; i < size * size; i++) t->reaches_all = t->reaches_all && all[i] == REACHED;
    for (int r = 0; r < size && st == OK; r++)
        t->peers[r].reached =
            all[t->rank * size + r] == REACHED && all[r * size + t->rank] == REACHED;
    if (st == OK) warn_of_corruption(t, all);
    free(all);
    return st;
}
