/* comm_peer.h: grouped transfers between GPUs of one machine, without NCCL. Private to cuda/. */
#ifndef CRIA_CUDA_COMM_PEER_H
#define CRIA_CUDA_COMM_PEER_H

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

/* Collective over `host`. Maps the memory [base, base + bytes) of this rank, an allocation of its own,
 * into the ranks of this machine whose GPUs can reach it, and theirs here. *out NULL when there is
 * none but this one. */
Status peers_open(Peers **out, void *base, int64_t bytes, Comm *host);
void peers_close(Peers *p);

/* Is this rank (the own one too) reached directly? The same on both sides. */
bool peers_reach(const Peers *p, int rank);

/* Group number 1, 2, ... of every rank alike: runs those transfers whose peer is reached, after what
 * `after` holds now; `joined` then waits for what this rank receives. Sends must lie in the memory
 * given to peers_open. Waits for the hosts of the peers to come this far, never for a GPU. */
Status peers_group(Peers *p, int64_t group, const Transfer *transfers, int64_t n,
                   cudaStream_t after, cudaStream_t joined);
/* Makes `stream` wait until others have taken what this rank sent in the group. */
void peers_wait(Peers *p, int64_t group, cudaStream_t stream);

#endif
