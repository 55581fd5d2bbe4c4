/* stop.h: requests that reach a run from outside: SIGTERM and SIGINT (save, exit 4), SIGUSR1 (save, go
 * on), and the time limit. Handlers only set flags; the loop asks at step boundaries. */
#ifndef CRIA_TRAIN_STOP_H
#define CRIA_TRAIN_STOP_H

#include <stdbool.h>

void stop_install(double time_limit_minutes); /* 0: no limit; counts from this call */
bool stop_requested(void);                    /* by signal */
bool stop_time_is_up(void);
bool stop_take_save_request(void); /* true once per SIGUSR1 */

#endif
