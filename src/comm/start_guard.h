/* start_guard.h: turns failures of MPI_Init, which does not return them, into a message and an exit
 * status. MPICH prints an error stack and exits; other libraries crash where shared memory is too
 * small. Private to src/comm. */
#ifndef CRIA_COMM_START_GUARD_H
#define CRIA_COMM_START_GUARD_H

/* Until start_guard_end(), an exit or a crash of this process calls end_job with ERR_ENV's exit
 * status and one message. end_job must not return, and must be safe in a signal handler. Where
 * `exit_reason` is not NULL, it is why MPI would exit, the same on all ranks: rank 0 tells it. */
void start_guard_begin(int rank, const char *exit_reason,
                       void (*end_job)(int exit_code, const char *message));
void start_guard_end(void);

/* This process ends for another reason: its exit is no failure of MPI_Init. Safe in a signal
 * handler. */
void start_guard_stand_down(void);

#endif
