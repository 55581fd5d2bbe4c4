/* stop.h: requests from outside the run. SIGTERM, SIGINT, SIGHUP, SIGXCPU, SIGUSR2 and the time
 * limit: save and end with exit status 4. SIGUSR1: save and continue.
 *
 * Before stop_wait_for_loop() there is nothing to save, and a signal ends the job at once. After it
 * handlers only set flags, which the loop reads between steps. */
#ifndef CRIA_TRAIN_STOP_H
#define CRIA_TRAIN_STOP_H

#include <stdbool.h>

/* Remembers whether the process was started with SIGHUP ignored, as by nohup: it then stays
 * ignored. Call before libraries are loaded that install a handler. */
void stop_remember_hangup(void);

/* Installs the handlers, and ignores SIGXFSZ, so that a write beyond RLIMIT_FSIZE fails with EFBIG
 * and can be reported. Call again after MPI_Init, which may replace handlers. */
void stop_install(void);

void stop_set_limit(double minutes); /* 0: no limit; counts from this call */
void stop_wait_for_loop(void);

/* The command has ended, with this exit status: a signal that comes before the loop has begun now
 * ends the process with it, without a message. Open MPI's mpirun sends SIGTERM to the ranks that
 * are left once the first has exited. */
void stop_command_is_over(int exit_code);
bool stop_requested(void); /* by signal */
bool stop_time_is_up(void);
bool stop_take_save_request(void); /* true once per SIGUSR1 */

#endif
