/* mpi_world.h: what the files that call MPI share. Private to src/comm; the only header with mpi.h.
 */
#ifndef CRIA_COMM_MPI_WORLD_H
#define CRIA_COMM_MPI_WORLD_H

#include <mpi.h>

#include "comm/comm.h"

/* `text` is filled and returned. */
const char *mpi_error_text(int code, char text[MPI_MAX_ERROR_STRING]);
/* OK for MPI_SUCCESS, else ERR_ENV with MPI's own words; `what` was being done. */
Status mpi_check(int code, const char *what);

#endif
