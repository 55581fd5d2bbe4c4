/* Preloaded by one_failing_rank_ends_the_job.sh, by way of MPI's profiling interface: on the rank
 * that BROKEN_RANK names, sends fail from the BROKEN_AFTER-th on, as a lost network does. */
#include <mpi.h>
#include <stdlib.h>

int MPI_Isend(const void *buf, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request *request) {
    static int sends;
    int rank;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == atoi(getenv("BROKEN_RANK")) && ++sends >= atoi(getenv("BROKEN_AFTER")))
        return MPI_ERR_OTHER;
    return PMPI_Isend(buf, count, type, peer, tag, comm, request);
}
