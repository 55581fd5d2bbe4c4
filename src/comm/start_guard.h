/* start_guard.h: for the time in which MPI starts. MPI_Init does not return its failures: MPICH
 * prints a stack of its own and ends the process with a status of its own, other libraries crash
 * where shared memory is too small. Private to src/comm. */
#ifndef CRIA_COMM_START_GUARD_H
#define CRIA_COMM_START_GUARD_H

/* Until start_guard_end() the process, if it ends, ends with one message and the exit status of
 * ERR_ENV, and so does the job. */
void start_guard_begin(void);
void start_guard_end(void);

#endif
