/* watchdog.h: a thread that ends the job when this rank makes no progress, as it happens on every
 * rank when one of them is dead or stuck, and when the launcher of this rank is dead. */
#ifndef CRIA_HEALTH_WATCHDOG_H
#define CRIA_HEALTH_WATCHDOG_H

#include <stdint.h>

/* Needs neither MPI nor a configuration. Until watchdog_set_limit() the limit is WATCHDOG_SECONDS.
 * Progress is a call of progress_beat() (base/progress.h). */
enum { WATCHDOG_SECONDS = 600 };
void watchdog_start(void);
void watchdog_set_limit(double seconds); /* 0: no limit */
void watchdog_stop(void);

/* The state of the check, initially zero. */
typedef struct {
    double looked, since;
    int64_t beats;
} WatchdogLook;

/* Seconds without progress at time `now`, when progress_beat() has been called `beats` times. To be
 * called every second. */
double watchdog_look(WatchdogLook *w, double now, int64_t beats);

#endif
