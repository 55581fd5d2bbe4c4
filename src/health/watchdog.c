#include "health/watchdog.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/base.h"
#include "comm/comm.h"
#include "base/log.h"
#include "base/progress.h"

enum { SUSPENDED_SECONDS = 5 }; /* between two checks: the process was suspended */

/* One per process. */
static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool running, stop;
    double limit;
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* As log_error() has it, but without waiting for memory or for the log. */
static void format_error(char *out, size_t size, const char *fmt, ...) {
    int n = comm_world_size() == 1
                ? snprintf(out, size, "cria: error: ")
                : snprintf(out, size, "cria: error (rank %d): ", comm_world_rank());
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out + n, size - (size_t)n, fmt, ap);
    va_end(ap);
}

static void end_stuck_job(double seconds) {
    char text[1024], step[32] = "", ranks[400];
    Progress at = progress_read();
    if (at.step > 0) snprintf(step, sizeof step, " of step %lld", (long long)at.step);
    comm_describe_wait(ranks, sizeof ranks);
    format_error(
        text, sizeof text,
        "no progress for %.0f s in phase '%s'%s%s%s: a rank is dead or stuck; ending the job "
        "(run.watchdog_seconds). --resume auto continues from the last checkpoint\n",
        seconds, at.phase, step, ranks[0] != '\0' ? ", waiting for " : "", ranks);
    comm_last_words(text);
    comm_abort(status_exit_code(ERR_ENV));
}

static void end_orphan(void) {
    char text[256];
    format_error(text, sizeof text,
                 "the process of mpirun that started this rank is dead; ending. --resume auto "
                 "continues from the last checkpoint\n");
    comm_end_now(status_exit_code(ERR_ENV), text);
}

double watchdog_look(WatchdogLook *w, double now, int64_t beats) {
    /* Ranks of a suspended job wake one after the other, so the time counts anew; a clock that is
     * set looks the same. */
    bool suspended = now < w->looked || now > w->looked + SUSPENDED_SECONDS;
    if (beats != w->beats || suspended) w->since = now;
    w->looked = now;
    w->beats = beats;
    return now - w->since;
}

static void *watch(void *unused) {
    (void)unused;
    WatchdogLook look = {0};
    pthread_mutex_lock(&watchdog.mutex);
    while (!watchdog.stop) {
        double idle = watchdog_look(&look, time_now(), progress_read().beats);
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
    pthread_condattr_t monotonic; /* so that clock changes do not trigger it */
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
