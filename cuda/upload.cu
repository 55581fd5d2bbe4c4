/* upload.cu: to the device, from host memory that may change at once. What cudaMemcpyAsync takes
 * from pageable memory it may stage after it has returned, on a thread of its own (CUDA runtime,
 * "API synchronization behavior"); so a copy is made here, into page-locked pieces that take turns.
 */
#include "device.h"

#include <mutex>
#include <string.h>

/* A micro-batch of 8192 tokens takes four pieces: the host may run 16 of them ahead. */
enum { PIECE_BYTES = 64 << 10, PIECES = 64 };

static struct {
    std::mutex lock;
    char *pieces;
    cudaEvent_t taken[PIECES]; /* the piece has been read */
    uint64_t next;
} ring;

Status cuda_upload_open(void) {
    if (ring.pieces != NULL) return OK;
    for (int i = 0; i < PIECES; i++)
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&ring.taken[i], cudaEventDisableTiming));
    return cuda_host_alloc((void **)&ring.pieces, PIECES * PIECE_BYTES, "uploads");
}

void cuda_mem_upload(void *dst, const void *src, int64_t bytes, Stream *stream) {
    std::lock_guard<std::mutex> guard(ring.lock);
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        uint64_t i = ring.next++ % PIECES;
        size_t n = (size_t)i64_min(PIECE_BYTES, bytes - at);
        char *piece = ring.pieces + i * PIECE_BYTES;
        CUDA_CHECK_DEFERRED(
            cudaEventSynchronize(ring.taken[i])); /* at once where it was never recorded */
        memcpy(piece, (const char *)src + at, n);
        CUDA_CHECK_DEFERRED(
            cudaMemcpyAsync((char *)dst + at, piece, n, cudaMemcpyHostToDevice, stream->s));
        CUDA_CHECK_DEFERRED(cudaEventRecord(ring.taken[i], stream->s));
    }
}
