/* mpi_batch.h: batches of nonblocking MPI operations. Private to src/comm.
 *
 * Completion is polled with MPI_Testall, and the core is yielded between polls: MPI's blocking
 * calls spin, which wastes a core per rank when there are more ranks than cores. */
#ifndef CRIA_COMM_MPI_BATCH_H
#define CRIA_COMM_MPI_BATCH_H

#include <pthread.h>

#include "comm/mpi_world.h"

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
/* Polls until done. `lock` guards the batch against other threads that poll it. */
void batch_wait(Batch *b, pthread_mutex_t *lock);
/* Returns the result of a batch that is done, which no other thread may use any more, and empties
 * it. ERR_ENV: a message failed. */
Status batch_end(Batch *b);
void batch_free(Batch *b); /* its arrays; not b */

#endif
