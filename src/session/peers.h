/* peers.h: before a run the ranks of a context-parallel group copy a pattern from each other, one
 * pair at a time for each of them, so that a pair whose copies arrive damaged or slowly is named
 * before it spoils hours. A GPU's copies that arrive damaged when its memory is registered are
 * replaced by NCCL without an end (cuda/comm_ipc_verify.cu). */
#ifndef CRIA_SESSION_PEERS_H
#define CRIA_SESSION_PEERS_H

#include "session/hardware.h"

enum { PEERS_MAX = 64 }; /* of larger groups each rank copies from so many others */

/* What a rank has received from another one. */
typedef struct {
    int from;  /* rank of the world */
    int right; /* every bit of it is as expected */
    double gb_s;
} PeerCopy;

/* Of one rank. */
typedef struct {
    char node[HARDWARE_NODE_MAX];
    int n;
    PeerCopy copies[PEERS_MAX];
} PeerResult;

/* A pair is slow below this share of the median pair's rate. */
#define PEERS_SLOW 0.5

/* Judges results[world], the same everywhere. ERR_ENV names pairs whose copy is wrong. Otherwise
 * *slow (one sentence, or empty) names those that are slow; with `timed` false none is. */
Status peers_judge(const PeerResult *results, int world, bool timed, StrBuf *slow);

/* Copies between all pairs of `group` that reach each other's memory (comm_is_direct), and judges:
 * rates only where the devices are not the host's. Where a copy between GPUs is wrong, all ranks
 * give up the registered memory (comm_register_buffer of nothing), so that NCCL copies, and check
 * again: rank 0 warns if that is right, ERR_ENV if it is not. `buffer` [bytes] of device memory is
 * overwritten; it lies in the registered allocation. Rank 0 warns of slow pairs. A fraction of a
 * second. Collective over `host`, whose ranks r to r + group->size - 1 are a group. */
Status peers_check(const Ops *ops, Comm *group, Comm *host, void *buffer, int64_t bytes,
                   Stream *stream);

#endif
