/* mpi.c: creates and frees communicators of the MPI backend, which works on host memory. */
#include <stdlib.h>

#include "comm/mpi_private.h"

static void mpi_free(Comm *c) {
    Mpi *mpi = c->impl;
    comm_mpi_group_close(mpi);
    batch_free(&mpi->collective);
    free(mpi->scratch);
    free(mpi->world_rank);
    if (mpi->collectives != MPI_COMM_NULL) MPI_Comm_free(&mpi->collectives);
    if (mpi->groups != MPI_COMM_NULL) MPI_Comm_free(&mpi->groups);
    pthread_cond_destroy(&mpi->wake);
    pthread_mutex_destroy(&mpi->lock);
    free(mpi);
    free(c);
}

static bool mpi_is_direct(const Comm *c, int peer) {
    (void)c, (void)peer;
    return true;
}

Status comm_mpi_split(Comm **out, int color) {
    static const CommTable table = {.all_reduce = comm_mpi_all_reduce,
                                    .reduce_scatter = comm_mpi_reduce_scatter,
                                    .all_gather = comm_mpi_all_gather,
                                    .broadcast = comm_mpi_broadcast,
                                    .barrier = comm_mpi_barrier,
                                    .group_begin = comm_mpi_group_begin,
                                    .send = comm_mpi_send,
                                    .recv = comm_mpi_recv,
                                    .group_end = comm_mpi_group_end,
                                    .wait = comm_mpi_wait,
                                    .is_direct = mpi_is_direct,
                                    .free = mpi_free};
    if (!comm_has_mpi()) {
        *out = comm_self_create();
        return OK;
    }
    Comm *c = NEW(Comm, 1);
    Mpi *mpi = NEW(Mpi, 1);
    c->table = &table;
    c->impl = mpi;
    mpi->collectives = mpi->groups = MPI_COMM_NULL;
    pthread_mutex_init(&mpi->lock, NULL);
    pthread_cond_init(&mpi->wake, NULL);
    int code = MPI_Comm_split(MPI_COMM_WORLD, color, comm_world_rank(), &mpi->collectives);
    Status st;
    CHECK_GOTO(mpi_check(code, "MPI_Comm_split"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_dup(mpi->collectives, &mpi->groups), "MPI_Comm_dup"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_rank(mpi->collectives, &c->rank), "MPI_Comm_rank"), fail);
    CHECK_GOTO(mpi_check(MPI_Comm_size(mpi->collectives, &c->size), "MPI_Comm_size"), fail);
    mpi->world_rank = NEW(int, c->size);
    mpi->world_rank[c->rank] = comm_world_rank();
    code = MPI_Allgather(MPI_IN_PLACE, 1, MPI_INT, mpi->world_rank, 1, MPI_INT, mpi->collectives);
    CHECK_GOTO(mpi_check(code, "MPI_Allgather"), fail);
    *out = c;
    return OK;
fail:
    mpi_free(c);
    return st;
}

Status comm_mpi_create(Comm **c) {
    return comm_mpi_split(c, 0);
}
