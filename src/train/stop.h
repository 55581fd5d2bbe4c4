/* stop.h: requests that reach a run from outside. SIGTERM, SIGINT, SIGHUP, SIGXCPU and SIGUSR2:
 * save and end with exit status 4; SIGUSR1: save and go on; and the time limit.
 *
 * Until stop_wait_for_loop() there is nothing to save, and a request ends the job at once. From
 * there on handlers only set flags, which the loop reads between steps. */
#ifndef CRIA_TRAIN_STOP_H
#define CRIA_TRAIN_STOP_H

#include <stdbool.h>

/* Call before libraries are loaded, some of which take SIGHUP: whether the process was started with
 * it ignored, as nohup does. It then stays ignored. */
void stop_remember_hangup(void);

/* Also lets a write beyond RLIMIT_FSIZE fail like one on a full disk, which can be reported,
 * instead of ending the process. Call again once MPI is there, as it may have replaced handlers. */
void stop_install(void);

void stop_set_limit(double minutes); /* 0: no limit; counts from this call */
void stop_wait_for_loop(void);
bool stop_requested(void); /* by signal */
bool stop_time_is_up(void);
bool stop_take_save_request(void); /* true once per SIGUSR1 */

#endif
