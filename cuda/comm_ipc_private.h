/* comm_ipc_private.h: state of the CUDA IPC transport, shared by the comm_ipc*.cu files. */
#ifndef CRIA_CUDA_COMM_IPC_PRIVATE_H
#define CRIA_CUDA_COMM_IPC_PRIVATE_H

#include "comm_ipc.h"

#include <sched.h>

enum { RING_SLOTS = 16, SEND_DESCS_MAX = 8192 }; /* groups in flight; messages of a group */

typedef struct {
    int64_t offset, bytes; /* of the message in the sender's registered buffer */
    int64_t to;            /* rank */
} SendDesc;

/* Descriptor ring of one rank, in host memory shared by all: written by its rank, read by the
 * others. */
typedef struct {
    alignas(64) int64_t published; /* latest group whose descriptors can be read */
    alignas(64) int64_t received;  /* latest group whose copies and event are enqueued */
    alignas(64) int64_t closed;
    int64_t n[RING_SLOTS];
    SendDesc descs[RING_SLOTS][SEND_DESCS_MAX];
} SendRing;

typedef struct { /* a rank, this one too, as seen from here */
    bool reached;
    char *base; /* its registered buffer, mapped into this process */
    cudaEvent_t ready[RING_SLOTS], received[RING_SLOTS];
    cudaStream_t copies;
    cudaEvent_t copied;
    bool sent[RING_SLOTS]; /* whether this rank sends to it in the group */
} Peer;

struct IpcTransport {
    int rank, size;
    SendRing *rings; /* [size] */
    int64_t ring_bytes;
    char *base; /* the registered buffer of this rank */
    int64_t bytes;
    int64_t latest; /* group */
    Peer *peers;    /* [size] */
    bool reaches_all;
    cudaStream_t sends;
    cudaEvent_t caller_ready;
    /* the next batch of copies */
    void **to;
    const void **from;
    size_t *sizes;
    int64_t n_copies, capacity;
};

static inline void ipc_publish(int64_t *counter, int64_t value) {
    __atomic_store_n(counter, value, __ATOMIC_RELEASE);
}

/* Spins. If the other rank has died, the watchdog ends this one. */
static inline void ipc_wait_until(const int64_t *counter, int64_t value) {
    for (int64_t spins = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) < value; spins++)
        if (spins > 1000) sched_yield();
}

/* comm_ipc.cu: adds a copy to the batch; enqueues the batch and empties it. */
void ipc_add_copy(IpcTransport *t, void *to, const void *from, int64_t bytes);
void ipc_enqueue_copies(IpcTransport *t, cudaStream_t stream);

/* comm_ipc_verify.cu. CORRUPTS: copies from that rank arrive with other bytes. */
typedef enum : uint8_t { UNREACHED, REACHED, CORRUPTS } Reach;
/* Tests copies from every rank r with reach[r] == REACHED, then sets `reached` of the pairs that
 * are REACHED and correct in both directions. Warns of corruption. Collective over `host`. */
Status ipc_verify(IpcTransport *t, Reach *reach, Comm *host);

#endif
