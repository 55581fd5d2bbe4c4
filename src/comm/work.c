#include "comm/work.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/progress.h"

enum {
    POLL_NS = 1000 * 1000,
    POLLS = 20 /* between exchanges of progress with the other ranks */
};

typedef struct {
    Status (*work)(void *arg);
    void *arg;
    int threads;
    atomic_bool done;
    Status status;
    char *message; /* of a failure; status_message() is per thread */
} Work;

static void *run(void *arg) {
    Work *w = arg;
    omp_set_num_threads(w->threads);
    w->status = w->work(w->arg);
    if (w->status != OK) w->message = mem_strdup(status_message());
    atomic_store(&w->done, true);
    return NULL;
}

/* Returns when all ranks are done, or MPI fails. */
static Status wait_for_all(Comm *host, const char *phase, const Work *w) {
    for (int64_t seen = -1, done = 0; done < host->size;) {
        for (int i = 0; i < POLLS && !atomic_load(&w->done); i++)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        int64_t sums[] = {atomic_load(&w->done), progress_notes()};
        CHECK(comm_all_reduce(host, sums, 2, DT_I64, COMM_SUM, COMM_KIND_OTHER, NULL));
        if (sums[1] != seen) progress_beat(0, phase);
        seen = sums[1];
        done = sums[0];
    }
    return OK;
}

Status comm_agree_on_work(Comm *host, const char *phase, Status (*work)(void *arg), void *arg) {
    Work w = {.work = work, .arg = arg, .threads = omp_get_max_threads()};
    pthread_t thread;
    progress_beat(0, phase);
    int error = pthread_create(&thread, NULL, run, &w);
    if (error != 0) {
        w.status = ERR_ENV;
        w.message = mem_printf("cannot start a thread for %s: %s", phase, strerror(error));
        atomic_store(&w.done, true);
    }
    Status waited = wait_for_all(host, phase, &w);
    if (error == 0) pthread_join(thread, NULL);
    if (w.status != OK && waited == OK) status_fail(w.status, "%s", w.message);
    free(w.message);
    return waited != OK ? waited : comm_agree(host, w.status);
}
