#include "train/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base.h"
#include "comm/comm.h"
#include "log.h"

/* One watchdog a process: the thread outlives any object a caller could pass. */
static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool running, stop;
    double limit;
    atomic_llong beats, step;
    _Atomic(const char *) phase;
} dog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *watch(void *unused) {
    (void)unused;
    long long seen = -1;
    double since = time_now();
    pthread_mutex_lock(&dog.mutex);
    while (!dog.stop) {
        long long beats = atomic_load(&dog.beats);
        double now = time_now();
        if (beats != seen) {
            seen = beats;
            since = now;
        } else if (now - since > dog.limit) {
            log_error("no progress for %.0f s in phase '%s' of step %lld: a rank is dead or stuck; "
                      "ending the job (run.watchdog_seconds). --resume auto continues from the last "
                      "checkpoint", now - since, atomic_load(&dog.phase),
                      (long long)atomic_load(&dog.step));
            comm_abort(status_exit_code(ERR_ENV));
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&dog.wake, &dog.mutex, &until);
    }
    pthread_mutex_unlock(&dog.mutex);
    return NULL;
}

void watchdog_start(double seconds) {
    if (seconds <= 0) return;
    pthread_condattr_t monotonic; /* a clock that jumps must not bark */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&dog.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    dog.limit = seconds;
    dog.stop = false;
    watchdog_beat(0, "start");
    dog.running = pthread_create(&dog.thread, NULL, watch, NULL) == 0;
    if (!dog.running) log_warn("the watchdog thread could not be started");
}

void watchdog_beat(int64_t step, const char *phase) {
    atomic_store(&dog.step, step);
    atomic_store(&dog.phase, phase);
    atomic_fetch_add(&dog.beats, 1);
}

void watchdog_stop(void) {
    if (!dog.running) return;
    pthread_mutex_lock(&dog.mutex);
    dog.stop = true;
    pthread_cond_signal(&dog.wake);
    pthread_mutex_unlock(&dog.mutex);
    pthread_join(dog.thread, NULL);
    pthread_cond_destroy(&dog.wake);
    dog.running = false;
}
