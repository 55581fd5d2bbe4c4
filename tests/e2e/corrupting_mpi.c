/* Preloaded by bad_batches_are_left_out.sh, by way of MPI's profiling interface: of the messages of
 * CORRUPT_BYTES bytes that rank 1 sends, those from number CORRUPT_FIRST to CORRUPT_LAST arrive
 * with CORRUPT_TO as their first float, as over a faulty network. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

static int setting(const char *name) {
    return atoi(getenv(name));
}

int MPI_Isend(const void *buf, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request *request) {
    static int sends;
    int rank;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 1 && count == setting("CORRUPT_BYTES") && ++sends >= setting("CORRUPT_FIRST") &&
        sends <= setting("CORRUPT_LAST")) {
        static char copy[1 << 20]; /* until it is sent; what rank 1 itself holds stays right */
        memcpy(copy, buf, (size_t)count);
        float wrong = (float)atof(getenv("CORRUPT_TO"));
        memcpy(copy, &wrong, sizeof wrong);
        buf = copy;
    }
    return PMPI_Isend(buf, count, type, peer, tag, comm, request);
}
