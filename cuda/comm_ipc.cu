/* comm_ipc.cu: send and receive through CUDA IPC. Every rank's registered buffer is mapped into its
 * peers, and the receiver copies each message from the sender's buffer to its own with the GPU's
 * copy engines (CE memcpy, as in NCCL's p2p transport).
 *
 * Why beside NCCL: NCCL's send and receive are kernels, which need multiprocessors; an attention
 * kernel that fills the GPU would delay them until it ends. Copies need none, so they overlap with
 * it, and the fused magi call can wait inside its kernel for KV that is still arriving. Measured on
 * two H200s (tests/results/2026-11-22-h200.md), CUDA IPC against NCCL: one ring step of 64 MiB 201
 * to 254 us, of 4 MiB 33 to 29 us; forward of magi in stages, causal, D = 64, 8k tokens, 0.355 to
 * 0.387 ms; training with cp 2 65,200 to 64,600 tokens/s a GPU.
 *
 * Each rank publishes the messages that it sends in a descriptor ring in shared host memory. GPUs
 * are ordered by interprocess events, two of each rank for each of the latest RING_SLOTS groups:
 *   ready     send buffers are written and receive buffers are free
 *   received  this rank has received everything
 * cudaStreamWaitEvent waits for the latest record at the time of the call. Therefore hosts follow
 * each other through the ring: a receiver enqueues its wait after the sender has published, a
 * sender its own after the receiver has enqueued its copies. A later record of the same event is
 * later in the same stream, so waiting for it is safe, too. Hosts run further ahead of their GPUs
 * than they wait here for each other. */
#include "comm_ipc_private.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include "compat.cuh"

bool ipc_reaches(const IpcTransport *t, int rank) {
    return t->peers[rank].reached;
}

bool ipc_reaches_all(const IpcTransport *t) {
    return t->reaches_all;
}

/* ---- copies --------------------------------------------------------------------------------- */

void ipc_add_copy(IpcTransport *t, void *to, const void *from, int64_t bytes) {
    if (t->n_copies == t->capacity) {
        t->capacity = i64_max(64, 2 * t->capacity);
        t->to = (void **)mem_grow(t->to, t->capacity, sizeof *t->to);
        t->from = (const void **)mem_grow(t->from, t->capacity, sizeof *t->from);
        t->sizes = (size_t *)mem_grow(t->sizes, t->capacity, sizeof *t->sizes);
    }
    t->to[t->n_copies] = to;
    t->from[t->n_copies] = from;
    t->sizes[t->n_copies++] = (size_t)bytes;
}

/* By copy engines, also where ranks share a GPU: ipc_connect() sees to it. */
void ipc_enqueue_copies(IpcTransport *t, cudaStream_t stream) {
    if (t->n_copies == 0) return;
    CUDA_CHECK_DEFERRED(compat_copy_batch(t->to, t->from, t->sizes, (size_t)t->n_copies, stream));
    t->n_copies = 0;
}

/* ---- flags: read and written by the stream itself, since a kernel might find no free
 * multiprocessor beside the one that counts the flag up or waits for it -------------------------
 */

static Status stream_wait_value(WaitValue wait, cudaStream_t stream) {
    static const auto wait_value =
        (PFN_cuStreamWaitValue32_v11070)cuda_driver_entry("cuStreamWaitValue32", 11070);
    if (wait_value != NULL && wait_value(stream, (CUdeviceptr)wait.flag, wait.value,
                                         CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS)
        return OK;
    return status_fail(ERR_ENV, "the driver cannot wait for a flag in a stream: set "
                                "parallel.transport: nccl");
}

static Status stream_write_value(uint32_t *flag, cudaStream_t stream) {
    static const auto write_value =
        (PFN_cuStreamWriteValue32_v11070)cuda_driver_entry("cuStreamWriteValue32", 11070);
    if (write_value != NULL && write_value(stream, (CUdeviceptr)flag, 1, 0) == CUDA_SUCCESS)
        return OK;
    return status_fail(ERR_ENV, "the driver cannot write a flag from a stream: set "
                                "parallel.transport: nccl");
}

/* ---- send ----------------------------------------------------------------------------------- */

/* Until the others have read the descriptors that this group's replace. */
static void wait_for_slot(IpcTransport *t, int64_t number) {
    for (int r = 0; r < t->size; r++)
        if (t->peers[r].reached) ipc_wait_until(&t->rings[r].received, number - RING_SLOTS);
}

static Status publish_sends(IpcTransport *t, int64_t number, const Group *group) {
    int slot = (int)(number % RING_SLOTS);
    SendRing *ring = &t->rings[t->rank];
    int64_t n = 0;
    for (int r = 0; r < t->size; r++) t->peers[r].sent[slot] = false;
    for (int64_t i = 0; i < group->n; i++) {
        const Transfer *send = &group->transfers[i];
        if (!send->send || !t->peers[send->peer].reached) continue;
        int64_t offset = (char *)send->buf - t->base, bytes = send->n * dtype_bytes(send->type);
        REQUIRE(offset >= 0 && offset + bytes <= t->bytes);
        if (n == SEND_DESCS_MAX)
            return status_fail(ERR_USER,
                               "parallel.chunk_size: a rank sends more than %d pieces at once, "
                               "which needs larger chunks or parallel.transport: nccl",
                               (int)SEND_DESCS_MAX);
        ring->descs[slot][n++] = SendDesc{offset, bytes, send->peer};
        t->peers[send->peer].sent[slot] = true;
    }
    ring->n[slot] = n;
    ipc_publish(&ring->published, number);
    return OK;
}

Status ipc_send(IpcTransport *t, int64_t number, const Group *group, cudaStream_t caller,
                cudaStream_t receives) {
    cudaEvent_t ready = t->peers[t->rank].ready[number % RING_SLOTS];
    t->latest = number;
    wait_for_slot(t, number);
    if (group->wait_value.flag != NULL) {
        CHECK(stream_wait_value(group->wait_value, t->sends));
    } else {
        CUDA_CHECK_DEFERRED(cudaEventRecord(t->caller_ready, caller));
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(t->sends, t->caller_ready, 0));
    }
    CUDA_CHECK_DEFERRED(cudaEventRecord(ready, t->sends));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(receives, ready, 0));
    return publish_sends(t, number, group);
}

void ipc_wait_sent(IpcTransport *t, int64_t number, cudaStream_t stream) {
    int slot = (int)(number % RING_SLOTS);
    bool slot_is_valid = number + RING_SLOTS > t->latest; /* else a later group has replaced it */
    for (int r = 0; r < t->size; r++) {
        const Peer *peer = &t->peers[r];
        if (r == t->rank || !(slot_is_valid ? peer->sent[slot] : peer->reached)) continue;
        ipc_wait_until(&t->rings[r].received, number);
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream, peer->received[slot], 0));
    }
}

/* ---- receive -------------------------------------------------------------------------------- */

static bool receives_from(const Group *group, int r) {
    for (int64_t i = 0; i < group->n; i++)
        if (!group->transfers[i].send && group->transfers[i].peer == r) return true;
    return false;
}

/* Makes `stream` wait until the data that r sends are written. */
static void wait_for_sender(IpcTransport *t, int64_t number, int r, cudaStream_t stream) {
    ipc_wait_until(&t->rings[r].published, number);
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream, t->peers[r].ready[number % RING_SLOTS], 0));
}

/* Enqueues the copies of what transfers [begin, end) receive from r. The i-th message that r sends
 * to this rank matches the i-th receive; *next is the first descriptor of r that is not yet
 * matched. */
static void copy_from(IpcTransport *t, int64_t number, int r, const Group *group, int64_t begin,
                      int64_t end, int64_t *next, cudaStream_t stream) {
    int slot = (int)(number % RING_SLOTS);
    const SendDesc *descs = t->rings[r].descs[slot];
    for (int64_t i = begin; i < end; i++) {
        const Transfer *recv = &group->transfers[i];
        if (recv->send || recv->peer != r) continue;
        while (*next < t->rings[r].n[slot] && descs[*next].to != t->rank) ++*next;
        REQUIRE(*next < t->rings[r].n[slot] &&
                descs[*next].bytes == recv->n * dtype_bytes(recv->type));
        const SendDesc *desc = &descs[(*next)++];
        ipc_add_copy(t, recv->buf, t->peers[r].base + desc->offset, desc->bytes);
    }
    ipc_enqueue_copies(t, stream);
}

/* From the only sender r (-1: none), on one stream, so that each flag follows its own messages. */
static Status recv_from_one(IpcTransport *t, int64_t number, const Group *group, int r,
                            cudaStream_t stream) {
    int64_t begin = 0, next = 0;
    if (r >= 0) wait_for_sender(t, number, r, stream);
    for (int i = 0; i <= group->n_recv_flags; i++) {
        bool last = i == group->n_recv_flags;
        int64_t end = last ? group->n : group->recv_flags[i].n_transfers;
        if (r >= 0) copy_from(t, number, r, group, begin, end, &next, stream);
        if (!last) CHECK(stream_write_value(group->recv_flags[i].flag, stream));
        begin = end;
    }
    return OK;
}

/* From several senders at the same time, on a stream each; flags are set at the end. */
static Status recv_from_all(IpcTransport *t, int64_t number, const Group *group,
                            cudaStream_t stream) {
    cudaEvent_t ready = t->peers[t->rank].ready[number % RING_SLOTS];
    for (int step = 1; step <= t->size; step++) { /* each rank begins with another sender */
        int r = (t->rank + step) % t->size;
        Peer *peer = &t->peers[r];
        int64_t next = 0;
        if (!peer->reached || !receives_from(group, r)) continue;
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(peer->copies, ready, 0));
        wait_for_sender(t, number, r, peer->copies);
        copy_from(t, number, r, group, 0, group->n, &next, peer->copies);
        CUDA_CHECK_DEFERRED(cudaEventRecord(peer->copied, peer->copies));
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream, peer->copied, 0));
    }
    for (int i = 0; i < group->n_recv_flags; i++)
        CHECK(stream_write_value(group->recv_flags[i].flag, stream));
    return OK;
}

Status ipc_recv(IpcTransport *t, int64_t number, const Group *group, cudaStream_t receives) {
    int senders = 0, sender = -1;
    for (int r = 0; r < t->size; r++) {
        if (!t->peers[r].reached || !receives_from(group, r)) continue;
        sender = r;
        senders++;
    }
    CHECK(senders <= 1 ? recv_from_one(t, number, group, sender, receives)
                       : recv_from_all(t, number, group, receives));
    CUDA_CHECK_DEFERRED(cudaEventRecord(t->peers[t->rank].received[number % RING_SLOTS], receives));
    ipc_publish(&t->rings[t->rank].received, number);
    return cuda_deferred_error();
}
