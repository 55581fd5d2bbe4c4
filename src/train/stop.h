/* stop.h: requests that reach a run from outside: SIGTERM and SIGINT (save, exit 4), SIGUSR1 (save, go
 * on), and the time limit. Handlers only set flags; the loop asks at step boundaries. */
#ifndef CRIA_TRAIN_STOP_H
#define CRIA_TRAIN_STOP_H

#include <stdbool.h>

/* 0: no limit; counts from this call. Also lets a write beyond RLIMIT_FSIZE fail like one on a full
 * disk, which can be told, instead of ending the process. */
void stop_install(double time_limit_minutes);
bool stop_requested(void);                    /* by signal */
bool stop_time_is_up(void);
bool stop_take_save_request(void); /* true once per SIGUSR1 */

#endif
