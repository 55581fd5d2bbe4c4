/* mpi_group.c: grouped transfers over MPI. A progress thread polls them while the caller computes,
 * because most MPI libraries move data only inside MPI calls. */
#include <stdlib.h>
#include <time.h>

#include "comm/mpi_private.h"

enum { POLL_SLEEP_MAX_NS = 1000 * 1000 };

/* Sleeps twice as long after each poll: wake-ups take time from the caller's computation (with a
 * fixed 50 us, two fifths of it when ranks share cores). A caller that waits polls by itself. */
static void *progress(void *arg) {
    Mpi *mpi = arg;
    pthread_mutex_lock(&mpi->lock);
    while (!mpi->stop) {
        bool pending = false;
        for (Batch *b = mpi->posted; b != NULL; b = b->next) {
            batch_test(b);
            pending |= !b->done;
        }
        if (!pending) {
            pthread_cond_wait(&mpi->wake, &mpi->lock);
            continue;
        }
        struct timespec sleep = {.tv_nsec = (long)mpi->poll_sleep_ns};
        mpi->poll_sleep_ns = i64_min(2 * mpi->poll_sleep_ns, POLL_SLEEP_MAX_NS);
        pthread_mutex_unlock(&mpi->lock);
        nanosleep(&sleep, NULL);
        pthread_mutex_lock(&mpi->lock);
    }
    pthread_mutex_unlock(&mpi->lock);
    return NULL;
}

Status comm_mpi_group_begin(Comm *c) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open == NULL);
    mpi->open = NEW(Batch, 1);
    return OK;
}

Status comm_mpi_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open != NULL);
    batch_add(mpi->open, SEND, buf, n * dtype_bytes(t), peer);
    return OK;
}

Status comm_mpi_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    Mpi *mpi = c->impl;
    REQUIRE(mpi->open != NULL);
    batch_add(mpi->open, RECEIVE, buf, n * dtype_bytes(t), peer);
    return OK;
}

Status comm_mpi_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    (void)stream;
    Mpi *mpi = c->impl;
    Batch *b = mpi->open;
    REQUIRE(b != NULL);
    mpi->open = NULL;
    b->id = ++mpi->last_id;
    *ticket = (CommTicket){b->id};
    batch_post(b, mpi->groups);
    batch_test(b);

    pthread_mutex_lock(&mpi->lock);
    b->next = mpi->posted;
    mpi->posted = b;
    mpi->poll_sleep_ns = POLL_SLEEP_NS;
    if (!b->done && !mpi->has_thread)
        mpi->has_thread = pthread_create(&mpi->thread, NULL, progress, mpi) == 0;
    bool driven = b->done || mpi->has_thread;
    pthread_cond_signal(&mpi->wake);
    pthread_mutex_unlock(&mpi->lock);
    return driven ? OK
                  : status_fail(ERR_ENV, "cannot start the thread that drives MPI transfers; "
                                         "raise the process limit (ulimit -u)");
}

/* A ticket without a batch was waited for before. */
Status comm_mpi_wait(Comm *c, CommTicket ticket, Stream *stream) {
    (void)stream;
    Mpi *mpi = c->impl;
    REQUIRE(ticket.id <= mpi->last_id);
    Batch *b = mpi->posted; /* only this thread changes the list */
    while (b != NULL && b->id != ticket.id) b = b->next;
    if (b == NULL) return OK;
    batch_wait(b, &mpi->lock, mpi->world_rank);

    pthread_mutex_lock(&mpi->lock);
    Batch **link = &mpi->posted;
    while (*link != b) link = &(*link)->next;
    *link = b->next;
    pthread_mutex_unlock(&mpi->lock);
    Status st = batch_end(b);
    batch_free(b);
    free(b);
    return st;
}

/* Groups that were not waited for exist only when the job ends after a failure: their transfers are
 * abandoned. */
void comm_mpi_group_close(Mpi *mpi) {
    if (mpi->has_thread) {
        pthread_mutex_lock(&mpi->lock);
        mpi->stop = true;
        pthread_cond_signal(&mpi->wake);
        pthread_mutex_unlock(&mpi->lock);
        pthread_join(mpi->thread, NULL);
    }
    while (mpi->posted != NULL) {
        Batch *b = mpi->posted;
        mpi->posted = b->next;
        for (int i = 0; i < b->count; i++)
            if (b->requests[i] != MPI_REQUEST_NULL) MPI_Request_free(&b->requests[i]);
        batch_free(b);
        free(b);
    }
}
