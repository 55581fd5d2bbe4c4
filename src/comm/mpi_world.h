/* mpi_world.h: errors of MPI calls. Private to src/comm; the only header that includes mpi.h. */
#ifndef CRIA_COMM_MPI_WORLD_H
#define CRIA_COMM_MPI_WORLD_H

#include <mpi.h>

#include "comm/comm.h"

/* Fills and returns `text`. */
const char *mpi_error_text(int code, char text[MPI_MAX_ERROR_STRING]);
/* OK for MPI_SUCCESS, else ERR_ENV with MPI's message; `what` names the call. */
Status mpi_check(int code, const char *what);

#endif
