#include "health/watchdog.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "base/base.h"
#include "comm/comm.h"
#include "base/log.h"
#include "base/progress.h"

enum {
    SUSPENDED_SECONDS = 5
}; /* so much longer than a second's wait takes the process did not run */

/* One watchdog a process: the thread outlives any object a caller could pass. */
static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool running, stop;
    double limit;
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* "cria: error (rank 1): " as log.c has it; this must not wait for memory or for the log. */
static int format_label(char *out, size_t size) {
    if (comm_world_size() == 1) return snprintf(out, size, "cria: error: ");
    return snprintf(out, size, "cria: error (rank %d): ", comm_world_rank());
}

static void end_stuck_job(double seconds) {
    char text[512], step[32] = "";
    Progress at = progress_read();
    if (at.step > 0) snprintf(step, sizeof step, " of step %lld", (long long)at.step);
    int label = format_label(text, sizeof text);
    snprintf(text + label, sizeof text - (size_t)label,
             "no progress for %.0f s in phase '%s'%s: a rank is dead or stuck; ending the job "
             "(run.watchdog_seconds). --resume auto continues from the last checkpoint\n",
             seconds, at.phase, step);
    comm_last_words(text);
    comm_abort(status_exit_code(ERR_ENV));
}

static void end_orphan(void) {
    char text[256];
    int label = format_label(text, sizeof text);
    snprintf(
        text + label, sizeof text - (size_t)label,
        "the process of mpirun that started this rank is dead; ending. --resume auto continues "
        "from the last checkpoint\n");
    comm_end_now(status_exit_code(ERR_ENV), text);
}

static void *watch(void *unused) {
    (void)unused;
    int64_t seen = -1;
    double idle = 0, last = time_now();
    pthread_mutex_lock(&watchdog.mutex);
    while (!watchdog.stop) {
        int64_t beats = progress_read().beats;
        double now = time_now(), passed = now - last;
        last = now;
        /* After a job was suspended its ranks wake one after the other, and count anew. */
        bool suspended = passed > SUSPENDED_SECONDS;
        idle = beats != seen || suspended ? 0 : idle + passed;
        seen = beats;
        if (watchdog.limit > 0 && idle > watchdog.limit) end_stuck_job(idle);
        if (comm_launcher_is_gone()) end_orphan();
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&watchdog.wake, &watchdog.mutex, &until);
    }
    pthread_mutex_unlock(&watchdog.mutex);
    return NULL;
}

void watchdog_start(void) {
    pthread_condattr_t monotonic; /* a clock that is set must not end the job */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    watchdog.limit = WATCHDOG_SECONDS;
    watchdog.stop = false;
    progress_beat(0, "start");
    watchdog.running = pthread_create(&watchdog.thread, NULL, watch, NULL) == 0;
    if (!watchdog.running) log_warn("the watchdog thread could not be started");
}

void watchdog_set_limit(double seconds) {
    pthread_mutex_lock(&watchdog.mutex);
    watchdog.limit = seconds;
    pthread_mutex_unlock(&watchdog.mutex);
}

void watchdog_stop(void) {
    if (!watchdog.running) return;
    pthread_mutex_lock(&watchdog.mutex);
    watchdog.stop = true;
    pthread_cond_signal(&watchdog.wake);
    pthread_mutex_unlock(&watchdog.mutex);
    pthread_join(watchdog.thread, NULL);
    pthread_cond_destroy(&watchdog.wake);
    watchdog.running = false;
}
