/* mpi_private.h: what the files of the MPI backend share. Private to src/comm; the only header that
 * includes mpi.h. */
#ifndef CRIA_COMM_MPI_PRIVATE_H
#define CRIA_COMM_MPI_PRIVATE_H

#include <mpi.h>
#include <pthread.h>

#include "comm/comm.h"

/* ---- mpi_world.c ----------------------------------------------------------------------------- */

/* Fills and returns `text`. */
const char *mpi_error_text(int code, char text[MPI_MAX_ERROR_STRING]);
/* OK for MPI_SUCCESS, else ERR_ENV with MPI's message; `what` names the call. */
Status mpi_check(int code, const char *what);

/* ---- placement.c ----------------------------------------------------------------------------- */

/* "MPICH 4.0.2" of "MPICH Version:      4.0.2\nMPICH Release date: ...", or "Open MPI v4.1.4" */
void mpi_library_name(char out[MPI_MAX_LIBRARY_VERSION_STRING]);
/* Counts hosts, cores and threads, for comm_local_cores(), comm_describe() and
 * comm_warn_oversubscribed(). `node`: the ranks of this host; MPI_COMM_NULL: a world without MPI.
 * Collective over the world. */
Status placement_find(MPI_Comm node);

/* ---- mpi_batch.c: batches of nonblocking operations --------------------------------------------
 * Completion is polled with MPI_Testall, and the core is yielded between polls: MPI's blocking
 * calls spin, which wastes a core per rank when there are more ranks than cores. */

enum { POLL_SLEEP_NS = 50 * 1000 }; /* between polls by a caller that waits */

typedef enum { RECEIVE, SEND, BROADCAST, BARRIER } MessageKind;

typedef struct {
    MessageKind kind;
    int peer, bytes;
    void *buf;
} Message;

typedef struct Batch {
    Message *messages;
    MPI_Request *requests;
    MPI_Status *statuses;
    int count, capacity;
    bool done;
    char *failure; /* message of a failed batch; the thread that polls may not be the caller's */
    int64_t id;
    struct Batch *next;
} Batch;

/* Adds a transfer of any size; a barrier has no bytes: batch_add_barrier(). */
void batch_add(Batch *b, MessageKind kind, const void *buf, int64_t bytes, int peer);
void batch_add_barrier(Batch *b);
/* Starts all messages. */
void batch_post(Batch *b, MPI_Comm comm);
/* Polls once: sets done, and failure if a message failed. */
void batch_test(Batch *b);
/* Polls until done. `lock` guards the batch against other threads that poll it; world_rank has the
 * place in the world of each rank of the communicator, for comm_describe_wait(). */
void batch_wait(Batch *b, pthread_mutex_t *lock, const int *world_rank);
/* Returns the result of a batch that is done, which no other thread may use any more, and empties
 * it. ERR_ENV: a message failed. */
Status batch_end(Batch *b);
void batch_free(Batch *b); /* its arrays; not b */

/* ---- awaited.c ------------------------------------------------------------------------------- */

/* Notes for comm_describe_wait() the ranks whose messages a batch, which is not done and which no
 * other thread polls meanwhile, has not received; forgets them. */
void awaited_note(const Batch *b, const int *world_rank);
void awaited_clear(void);

/* ---- the communicator ------------------------------------------------------------------------ */

typedef struct {
    MPI_Comm collectives, groups; /* separate, so that their messages cannot match each other */
    int *world_rank;              /* [size] */
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
