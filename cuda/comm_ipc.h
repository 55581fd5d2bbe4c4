/* comm_ipc.h: grouped transfers between GPUs of one machine through CUDA IPC, without NCCL. Private
 * to cuda/. */
#ifndef CRIA_CUDA_COMM_IPC_H
#define CRIA_CUDA_COMM_IPC_H

#include "device.h"

extern "C" {
#include "comm/comm.h"
}

typedef struct IpcTransport IpcTransport;

typedef struct {
    void *buf;
    int64_t n; /* elements */
    Dtype type;
    int peer;
    bool send;
} Transfer;

/* comm_group_wait_value(): the group starts when *flag >= value. flag NULL: it does not wait. */
typedef struct {
    const uint32_t *flag;
    uint32_t value;
} WaitValue;

/* comm_group_set_flag_on_recv(): *flag becomes 1 when all receives among the first `n_transfers` of
 * the group are complete. */
typedef struct {
    uint32_t *flag;
    int64_t n_transfers;
} RecvFlag;

typedef struct {
    Transfer *transfers;
    int64_t n, capacity;
    WaitValue wait_value;
    RecvFlag recv_flags[COMM_GROUP_FLAGS_MAX];
    int n_recv_flags;
} Group;

/* Maps the allocation [base, base + bytes) of every rank into the ranks of its machine whose GPUs
 * can read it, and tests that copies arrive uncorrupted; warns where they do not. *out is NULL when
 * this rank reaches no other. Collective over `host`. */
Status ipc_connect(IpcTransport **out, void *base, int64_t bytes, Comm *host);
void ipc_free(IpcTransport *t); /* NULL is fine */
/* For tests: ipc_connect() takes copies from this rank for corrupted; -1: none. */
extern "C" int ipc_test_corrupt_rank;

/* Whether transfers with this rank, or all ranks, can use this transport. The same on both sides of
 * a pair, and ipc_reaches_all() on all ranks. */
bool ipc_reaches(const IpcTransport *t, int rank);
bool ipc_reaches_all(const IpcTransport *t);

/* Groups are numbered 1, 2, ..., the same on every rank. Of each, these functions handle the
 * transfers whose peer is reached; send buffers must lie in the registered allocation.
 *
 * Publishes what this rank sends. The group starts after the work that `caller` holds now, or after
 * its wait_value, and `receives` waits for that start. */
Status ipc_send(IpcTransport *t, int64_t number, const Group *group, cudaStream_t caller,
                cudaStream_t receives);
/* Enqueues the copies that this rank receives; `receives` waits for them. Blocks until the hosts of
 * the senders have published the group, never for a GPU. Flags need ipc_reaches_all(). */
Status ipc_recv(IpcTransport *t, int64_t number, const Group *group, cudaStream_t receives);
/* Makes `stream` wait until the receivers have copied what this rank sends in the group. */
void ipc_wait_sent(IpcTransport *t, int64_t number, cudaStream_t stream);

#endif
