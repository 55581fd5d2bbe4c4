/* launcher.h: detects from the environment, before MPI starts, what started this process: mpirun,
 * srun or nothing. Private to src/comm. */
#ifndef CRIA_COMM_LAUNCHER_H
#define CRIA_COMM_LAUNCHER_H

#include <stdbool.h>

typedef struct {
    const char *name; /* for messages; NULL: no launcher, this process is alone */
    int rank, size;   /* from the launcher; 0 and 1 where it sets none */
} Launcher;

/* Keeps the result for the other functions. Call it before other threads exist. */
const Launcher *launcher_find(void);

/* Whether launchers set this variable, "NAME=VALUE", for the ranks that they start. */
bool launcher_sets(const char *variable);

/* Whether the process manager that this rank was connected to at launcher_find() is dead, so that
 * it can no longer end the job. Always false unless the launcher speaks PMI, as MPICH's does. */
bool launcher_is_gone(void);

/* Asks MPICH's mpirun to end all ranks with this exit status, where MPI_Abort cannot be called.
 * Returns whether it was asked: other launchers end the job when a rank exits. Does not block; safe
 * in signal handlers. */
bool launcher_end_job(int exit_status);

/* Call on one rank just before all ranks exit with a status other than 0: hydra then returns that
 * status also after it received a signal. */
void launcher_keep_status(void);

#endif
