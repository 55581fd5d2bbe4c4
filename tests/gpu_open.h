/* gpu_open.h: how GPU tests begin. Without a GPU they end: one sentence on stderr, exit status 3.
 */
#ifndef CRIA_TESTS_GPU_OPEN_H
#define CRIA_TESTS_GPU_OPEN_H

#include <stdio.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "comm/comm.h"
#ifdef __cplusplus
}
#endif

static inline void gpu_open(const Ops **ops) {
    Status st = cuda_ops_open(ops, 0, false);
    if (st == OK) return;
    fprintf(stderr, "this test needs a GPU: %s\n", status_message());
    exit(status_exit_code(st));
}

/* A GPU for each rank, after comm_start(). */
static inline void gpu_open_ranks(const Ops **ops) {
    Comm *host;
    Status st = comm_mpi_create(&host);
    if (st == OK) st = comm_agree(host, cuda_ops_open(ops, comm_local_rank(), false));
    if (st == OK) {
        comm_free(host);
        return;
    }
    if (comm_world_rank() == 0)
        fprintf(stderr, "this test needs a GPU for each rank: %s\n", status_message());
    comm_finish(0);
    exit(status_exit_code(st));
}

#endif
