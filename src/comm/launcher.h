/* launcher.h: who started this process, as far as its environment tells without MPI: mpirun, srun,
 * or nobody. Private to src/comm. */
#ifndef CRIA_COMM_LAUNCHER_H
#define CRIA_COMM_LAUNCHER_H

#include <stdbool.h>

typedef struct {
    const char *name; /* for messages; NULL: no launcher, this process is alone */
    int rank, size;   /* as the launcher counts; 0 and 1 where it does not tell */
} Launcher;

/* Remembers what it finds; call it first, before other threads exist. */
const Launcher *launcher_find(void);

/* The process manager that this rank was connected to at launcher_find() is dead, and with it the
 * way to end the job. Only MPICH's and other PMI launchers can be watched: false for all others. */
bool launcher_is_gone(void);

/* Asks MPICH's mpirun to end all ranks with this exit status, for when MPI_Abort cannot be called.
 * Returns at once, also where there is nobody to ask. For signal handlers, too. */
void launcher_end_job(int exit_status);

/* Call last, on one rank, where the exit status is not 0 and all ranks end by themselves: hydra
 * then returns it also when it was signalled. */
void launcher_keep_status(void);

#endif
