/* comm_ipc_connect.cu: setup, connect and free of the CUDA IPC transport. */
#include "comm_ipc_private.h"

#include <stdlib.h>
#include <string.h>

#include "compat.cuh"

extern "C" {
#include "comm/shared.h"
}

typedef struct { /* of a rank, gathered by all */
    cudaIpcMemHandle_t buffer;
    cudaIpcEventHandle_t ready[RING_SLOTS], received[RING_SLOTS];
    cudaUUID_t gpu;
    int64_t valid;
} Handles;

/* Creates this rank's stream, events and handles. False: this GPU has no CUDA IPC. */
static bool setup(IpcTransport *t, Handles *h) {
    Peer *own = &t->peers[t->rank];
    cudaDeviceProp properties;
    int device = 0;
    bool ok =
        CUDA_CHECK_DEFERRED(cudaGetDevice(&device)) &&
        CUDA_CHECK_DEFERRED(cudaGetDeviceProperties(&properties, device)) &&
        CUDA_CHECK_DEFERRED(cudaStreamCreateWithFlags(&t->sends, cudaStreamNonBlocking)) &&
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&t->caller_ready, cudaEventDisableTiming)) &&
        cudaIpcGetMemHandle(&h->buffer, t->base) == cudaSuccess;
    for (int i = 0; i < RING_SLOTS && ok; i++) {
        const unsigned flags = cudaEventDisableTiming | cudaEventInterprocess;
        ok = cudaEventCreateWithFlags(&own->ready[i], flags) == cudaSuccess &&
             cudaEventCreateWithFlags(&own->received[i], flags) == cudaSuccess &&
             cudaIpcGetEventHandle(&h->ready[i], own->ready[i]) == cudaSuccess &&
             cudaIpcGetEventHandle(&h->received[i], own->received[i]) == cudaSuccess;
    }
    if (ok) h->gpu = properties.uuid;
    cudaGetLastError(); /* not a failure of the run: NCCL is used instead */
    return ok;
}

/* Copies that are kernels would wait for multiprocessors, which an attention kernel that waits for
 * them may hold. Between two GPUs copy engines copy. */
static bool by_copy_engines(const Handles *a, const Handles *b) {
    return compat_has_batches() || memcmp(&a->gpu, &b->gpu, sizeof a->gpu) != 0;
}

/* Opens the buffer and events of rank r. False: its GPU cannot be reached. */
static bool connect_peer(IpcTransport *t, int r, const Handles *h) {
    Peer *peer = &t->peers[r];
    void *base = t->base;
    bool ok =
        CUDA_CHECK_DEFERRED(cudaStreamCreateWithFlags(&peer->copies, cudaStreamNonBlocking)) &&
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&peer->copied, cudaEventDisableTiming));
    if (r != t->rank) {
        ok = ok &&
             cudaIpcOpenMemHandle(&base, h->buffer, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
        for (int i = 0; i < RING_SLOTS && ok; i++)
            ok = cudaIpcOpenEventHandle(&peer->ready[i], h->ready[i]) == cudaSuccess &&
                 cudaIpcOpenEventHandle(&peer->received[i], h->received[i]) == cudaSuccess;
    }
    cudaGetLastError();
    peer->base = ok ? (char *)base : NULL;
    return ok;
}

static bool reaches_any(const IpcTransport *t) {
    for (int r = 0; r < t->size; r++)
        if (r != t->rank && t->peers[r].reached) return true;
    return false;
}

Status ipc_connect(IpcTransport **out, void *base, int64_t bytes, Comm *host) {
    *out = NULL;
    int size = host->size;
    IpcTransport *t = NEW(IpcTransport, 1);
    bool *here = NEW(bool, size);
    Reach *reach = NEW(Reach, size);
    Handles *handles = NEW(Handles, size);
    t->rank = host->rank;
    t->size = size;
    t->base = (char *)base;
    t->bytes = bytes;
    t->peers = NEW(Peer, size);
    t->ring_bytes = (int64_t)sizeof(SendRing) * size;
    Status st = comm_shared_open((void **)&t->rings, t->ring_bytes, here, host);
    if (st == OK) {
        handles[t->rank].valid = setup(t, &handles[t->rank]);
        st = comm_all_gather(host, handles, sizeof(Handles), DT_U8, COMM_KIND_OTHER, NULL);
    }
    for (int r = 0; r < size && st == OK; r++)
        if (here[r] && handles[r].valid && handles[t->rank].valid &&
            (r == t->rank || by_copy_engines(&handles[r], &handles[t->rank])) &&
            connect_peer(t, r, &handles[r]))
            reach[r] = REACHED;
    if (st == OK) st = ipc_verify(t, reach, host);
    if (st == OK) st = cuda_deferred_error();
    if (st == OK && reaches_any(t))
        *out = t;
    else
        ipc_free(t);
    free(here);
    free(reach);
    free(handles);
    return st;
}

/* Waits until no rank has this one's buffer mapped; at most 2 seconds, as a rank may have died. */
static void close_together(IpcTransport *t) {
    double limit = time_now() + 2;
    ipc_publish(&t->rings[t->rank].closed, 1);
    for (int r = 0; r < t->size; r++)
        while (t->peers[r].reached && time_now() < limit &&
               __atomic_load_n(&t->rings[r].closed, __ATOMIC_ACQUIRE) == 0)
            sched_yield();
}

void ipc_free(IpcTransport *t) {
    if (t == NULL) return;
    for (int r = 0; r < t->size; r++) {
        Peer *peer = &t->peers[r];
        if (peer->copies != NULL) {
            cudaStreamSynchronize(peer->copies);
            cudaStreamDestroy(peer->copies);
        }
        if (peer->copied != NULL) cudaEventDestroy(peer->copied);
        for (int i = 0; i < RING_SLOTS; i++) {
            if (peer->ready[i] != NULL) cudaEventDestroy(peer->ready[i]);
            if (peer->received[i] != NULL) cudaEventDestroy(peer->received[i]);
        }
        if (r != t->rank && peer->base != NULL) cudaIpcCloseMemHandle(peer->base);
    }
    if (t->rings != NULL) close_together(t);
    if (t->sends != NULL) cudaStreamDestroy(t->sends);
    if (t->caller_ready != NULL) cudaEventDestroy(t->caller_ready);
    comm_shared_close(t->rings, t->ring_bytes);
    free(t->peers);
    free(t->to);
    free((void *)t->from);
    free(t->sizes);
    free(t);
}
