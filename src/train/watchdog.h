/* watchdog.h: a thread that ends the job when this rank makes no progress, which is what every rank
 * sees when one of them is dead or stuck. */
#ifndef CRIA_TRAIN_WATCHDOG_H
#define CRIA_TRAIN_WATCHDOG_H

#include <stdint.h>

void watchdog_start(double seconds); /* 0: off */
/* Progress: the rank is now in `phase` (a literal) of `step`. */
void watchdog_beat(int64_t step, const char *phase);
void watchdog_stop(void);

#endif
