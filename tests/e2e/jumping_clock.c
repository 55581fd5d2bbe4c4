/* Preloaded by clock_jumps_do_no_harm.sh: the time of day is another day at every look, as when a
 * clock is set, or a virtual machine wakes up elsewhere. CLOCK_MONOTONIC stays.
 *
 * UCX, below MPICH, measures the rate of the processor's counter by the time of day where
 * /proc/cpuinfo does not say it, and with a false rate refuses to start: it is shown the true time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t jumped(time_t seconds) {
    static _Atomic unsigned looks;
    static const int days[] = {0, 400, -3, 30, -4000, 1};
    return seconds + 86400 * (time_t)days[looks++ % 6];
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    long result = syscall(SYS_clock_gettime, clock, t);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) t->tv_sec = jumped(t->tv_sec);
    return (int)result;
}

static bool is_ucx(const void *caller) {
    Dl_info at;
    return dladdr(caller, &at) != 0 && at.dli_fname != NULL &&
           strstr(at.dli_fname, "libucs") != NULL;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (is_ucx(__builtin_return_address(0)))
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    else
        clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) *out = now.tv_sec;
    return now.tv_sec;
}
