#include "comm/mpi_private.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum {
    MESSAGE_BYTES = 4 << 20, /* longer transfers are cut: MPI 3.1 counts with int */
    NOTE_SECONDS = 1,        /* between notes of whom this rank waits for */
    YIELDS = 200,            /* polls that yield the core before the first that sleeps */
    TAG = 0
};

static void batch_fail(Batch *b, const Message *m, const char *text) {
    static const char *const names[] = {"receive from", "send to", "broadcast from", "barrier of"};
    b->done = true;
    b->failure =
        mem_printf("MPI %s rank %d of its communicator, %d bytes, failed on rank %d of %d: %s",
                   names[m->kind], m->peer, m->bytes, comm_world_rank(), comm_world_size(), text);
}

static void batch_push(Batch *b, Message m) {
    if (b->count == b->capacity) {
        b->capacity = b->capacity > 0 ? 2 * b->capacity : 16;
        b->messages = mem_grow(b->messages, b->capacity, sizeof(Message));
        b->requests = mem_grow(b->requests, b->capacity, sizeof(MPI_Request));
        b->statuses = mem_grow(b->statuses, b->capacity, sizeof(MPI_Status));
    }
    b->requests[b->count] = MPI_REQUEST_NULL;
    b->messages[b->count++] = m;
}

void batch_add(Batch *b, MessageKind kind, const void *buf, int64_t bytes, int peer) {
    char *at = (char *)(uintptr_t)buf; /* MPI reads what it sends and writes what it receives */
    for (; bytes > 0; at += MESSAGE_BYTES, bytes -= MESSAGE_BYTES)
        batch_push(b, (Message){kind, peer, (int)i64_min(bytes, MESSAGE_BYTES), at});
}

void batch_add_barrier(Batch *b) {
    batch_push(b, (Message){.kind = BARRIER});
}

static int message_start(const Message *m, MPI_Comm comm, MPI_Request *request) {
    switch (m->kind) {
    case RECEIVE:
        return MPI_Irecv(m->buf, m->bytes, MPI_BYTE, m->peer, TAG, comm, request);
    case SEND:
        return MPI_Isend(m->buf, m->bytes, MPI_BYTE, m->peer, TAG, comm, request);
    case BROADCAST:
        return MPI_Ibcast(m->buf, m->bytes, MPI_BYTE, m->peer, comm, request);
    case BARRIER:
        return MPI_Ibarrier(comm, request);
    }
    return MPI_ERR_ARG;
}

/* Receives first: MPI then writes arriving data to its destination without a copy. */
void batch_post(Batch *b, MPI_Comm comm) {
    char text[MPI_MAX_ERROR_STRING];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < b->count && !b->done; i++) {
            if ((b->messages[i].kind == RECEIVE) != (pass == 0)) continue;
            int code = message_start(&b->messages[i], comm, &b->requests[i]);
            if (code != MPI_SUCCESS) batch_fail(b, &b->messages[i], mpi_error_text(code, text));
        }
    }
}

void batch_test(Batch *b) {
    if (b->done) return;
    int complete = 0;
    int code = MPI_Testall(b->count, b->requests, &complete, b->statuses);
    b->done = complete != 0 || code != MPI_SUCCESS;
    for (int i = 0; i < b->count && b->done && b->failure == NULL; i++) {
        const Message *m = &b->messages[i];
        char text[MPI_MAX_ERROR_STRING];
        int each = code == MPI_ERR_IN_STATUS ? b->statuses[i].MPI_ERROR : code;
        int got = m->bytes;
        if (each == MPI_ERR_PENDING) continue;
        if (each == MPI_SUCCESS && m->kind == RECEIVE)
            each = MPI_Get_count(&b->statuses[i], MPI_BYTE, &got);
        if (each != MPI_SUCCESS)
            batch_fail(b, m, mpi_error_text(each, text));
        else if (got != m->bytes)
            batch_fail(b, m, "a shorter message came, the ranks disagree about what to send");
    }
}

/* Yields the core at first, since most waits are short; then sleeps, so that ranks that share the
 * core can compute. */
void batch_wait(Batch *b, pthread_mutex_t *lock, const int *world_rank) {
    double begin = 0; /* of the sleeps, or of those since the last note */
    bool noted = false;
    for (int polls = 0;; polls++) {
        pthread_mutex_lock(lock);
        batch_test(b);
        bool done = b->done, note = polls > YIELDS && !done && time_now() - begin > NOTE_SECONDS;
        if (note) awaited_note(b, world_rank);
        pthread_mutex_unlock(lock);
        if (done) break;
        if (polls == YIELDS || note) begin = time_now();
        noted |= note;
        if (polls < YIELDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = POLL_SLEEP_NS}, NULL);
    }
    if (noted) awaited_clear();
}

Status batch_end(Batch *b) {
    Status st = b->failure != NULL ? status_fail(ERR_ENV, "%s", b->failure) : OK;
    free(b->failure);
    b->failure = NULL;
    b->done = false;
    b->count = 0;
    return st;
}

void batch_free(Batch *b) {
    free(b->messages);
    free(b->requests);
    free(b->statuses);
    free(b->failure);
}
