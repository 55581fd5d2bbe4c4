/* watchdog.h: a thread that ends the job when this rank makes no progress, which is what every rank
 * sees when one of them is dead or stuck, and when the process that started this rank is dead. */
#ifndef CRIA_HEALTH_WATCHDOG_H
#define CRIA_HEALTH_WATCHDOG_H

#include <stdint.h>

/* Needs neither MPI nor a configuration: until watchdog_set_limit() the limit is WATCHDOG_SECONDS.
 * The rank makes progress by progress_beat() (base/progress.h). */
enum { WATCHDOG_SECONDS = 600 };
void watchdog_start(void);
void watchdog_set_limit(double seconds); /* 0: no limit */
void watchdog_stop(void);

/* What the thread knows at a look; begins as zero. */
typedef struct {
    double looked, since;
    int64_t beats;
} WatchdogLook;

/* A look at time `now`, when so many beats of progress have been counted: seconds since the last
 * progress. */
double watchdog_look(WatchdogLook *w, double now, int64_t beats);

#endif
