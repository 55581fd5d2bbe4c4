/* awaited.c: the ranks that this rank has waited for since a second or more. The thread that waits
 * notes them; the watchdog's thread reads them. */
#include <stdio.h>

#include "comm/mpi_private.h"

enum { RANKS_SHOWN = 4 };

/* One per process: the last wait that was noted. */
static struct {
    pthread_mutex_t mutex;
    int ranks[RANKS_SHOWN];
    int n; /* of ranks waited for, also of those that are not shown */
} awaited = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool is_pending(const Batch *b, int i) {
    int done = 1;
    if (b->messages[i].kind != RECEIVE) return false;
    return MPI_Request_get_status(b->requests[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done;
}

void awaited_note(const Batch *b, const int *world_rank) {
    pthread_mutex_lock(&awaited.mutex);
    awaited.n = 0;
    for (int i = 0, last = -1; i < b->count; i++) {
        int peer = b->messages[i].peer;
        if (peer == last || !is_pending(b, i)) continue; /* long messages are cut */
        last = peer;
        if (awaited.n < RANKS_SHOWN) awaited.ranks[awaited.n] = world_rank[peer];
        awaited.n++;
    }
    pthread_mutex_unlock(&awaited.mutex);
}

void awaited_clear(void) {
    pthread_mutex_lock(&awaited.mutex);
    awaited.n = 0;
    pthread_mutex_unlock(&awaited.mutex);
}

void comm_describe_wait(char *text, size_t size) {
    size_t at = 0;
    text[0] = '\0';
    if (pthread_mutex_trylock(&awaited.mutex) != 0) return;
    for (int i = 0; i < awaited.n && i < RANKS_SHOWN && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%srank %d on host %s", i > 0 ? ", " : "",
                               awaited.ranks[i], comm_host_name(awaited.ranks[i]));
    if (awaited.n > RANKS_SHOWN && at < size)
        snprintf(text + at, size - at, " and %d more", awaited.n - RANKS_SHOWN);
    pthread_mutex_unlock(&awaited.mutex);
}
