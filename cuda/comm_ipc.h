/* comm_ipc.h: grouped transfers between GPUs of one machine, without NCCL. Private to cuda/. */
#ifndef CRIA_CUDA_COMM_IPC_H
#define CRIA_CUDA_COMM_IPC_H

#include "device.h"

extern "C" {
#include "comm/comm.h"
}

typedef struct {
    void *buf;
    int64_t n; /* elements */
    Dtype type;
    int peer;
    bool send;
} Transfer;

typedef struct Peers Peers;

/* Collective over `host`. Maps the memory [base, base + bytes) of this rank, an allocation of its
 * own, into the ranks of this machine whose GPUs can reach it, and theirs here, and tests that
 * copies arrive as they were sent; a warning where they do not. *out NULL when there is none but
 * this one.
 */
Status peers_open(Peers **out, void *base, int64_t bytes, Comm *host);
void peers_close(Peers *p);
/* For tests: the rank whose memory peers_open() is to find damaged; -1: none. */
extern "C" int peers_test_damaged;

/* Is this rank (the own one too) reached directly? The same on both sides. */
bool peers_reach(const Peers *p, int rank);
/* Is every rank reached, by every rank? */
bool peers_reach_all(const Peers *p);

/* Until *flag (device memory) has been counted up to `value`. */
typedef struct {
    const uint32_t *flag;
    uint32_t value;
} Gate;

/* *flag (device memory) becomes 1 when what the first `after` transfers receive has arrived. */
typedef struct {
    uint32_t *flag;
    int64_t after;
} Signal;

typedef struct {
    Transfer *transfers;
    int64_t n, room;
    Gate gate; /* flag NULL: none */
    Signal signals[COMM_SIGNALS];
    int n_signals;
} Group;

/* Group number 1, 2, ... of every rank alike, of those transfers whose peer is reached. Sends must
 * lie in the memory given to peers_open. It begins after what `after` holds now, or after the gate,
 * for which `joined` waits. */
Status peers_begin(Peers *p, int64_t number, const Group *group, cudaStream_t after,
                   cudaStream_t joined);
/* Then `joined` waits for what this rank receives. Waits for the hosts of the peers to come this
 * far, never for a GPU. Signals need peers_reach_all(). */
Status peers_pull(Peers *p, int64_t number, const Group *group, cudaStream_t joined);
/* Makes `stream` wait until others have taken what this rank sent in the group. */
void peers_wait(Peers *p, int64_t number, cudaStream_t stream);

#endif
