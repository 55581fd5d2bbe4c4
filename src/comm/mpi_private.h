/* mpi_private.h: the communicator of the MPI backend, shared by the files that implement its table.
 * Private to src/comm. */
#ifndef CRIA_COMM_MPI_PRIVATE_H
#define CRIA_COMM_MPI_PRIVATE_H

#include "comm/mpi_batch.h"

typedef struct {
    MPI_Comm collectives, groups; /* separate, so that their messages cannot match each other */
    Batch collective;             /* of the collective that is running */
    Batch *open;                  /* the group between begin and end */
    char *scratch;                /* [size][piece]: what ranks contribute to a reduction */
    int64_t last_id;

    pthread_mutex_t lock; /* guards the members below and the batches in `posted` */
    pthread_cond_t wake;
    pthread_t thread;
    bool has_thread, stop;
    int64_t poll_sleep_ns;
    Batch *posted; /* groups that comm_wait() has not been called for */
} Mpi;

/* mpi_collectives.c */
Status comm_mpi_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream);
Status comm_mpi_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream);
Status comm_mpi_all_gather(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream);
Status comm_mpi_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream);
Status comm_mpi_barrier(Comm *c);

/* mpi_group.c */
Status comm_mpi_group_begin(Comm *c);
Status comm_mpi_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer);
Status comm_mpi_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer);
Status comm_mpi_group_end(Comm *c, Stream *stream, CommTicket *ticket);
Status comm_mpi_wait(Comm *c, CommTicket ticket, Stream *stream);
void comm_mpi_group_close(Mpi *mpi); /* stops the progress thread and frees all groups */

#endif
