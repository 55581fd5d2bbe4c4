/* mpi_world.c: MPI as a process sees it: start, who is where, finish, abort. */
#include "comm/mpi_world.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

enum { ABORT_NS = 300 * 1000 * 1000 };

/* MPI is one per process, and so is this; written once, by comm_start. */
static struct { int rank, size, local_rank, local_size, cores; } world = {0, 1, 0, 1, 1};

const char *mpi_error_text(int code, char text[MPI_MAX_ERROR_STRING]) {
    int length = 0;
    return MPI_Error_string(code, text, &length) == MPI_SUCCESS ? text : "unknown error";
}

Status mpi_check(int code, const char *what) {
    if (code == MPI_SUCCESS) return OK;
    char text[MPI_MAX_ERROR_STRING];
    return status_fail(ERR_ENV, "%s failed on rank %d of %d: %s", what, world.rank, world.size,
                       mpi_error_text(code, text));
}

/* Where MPI binds ranks to cores each has its own, where it does not all have all of them. */
static Status count_cores(MPI_Comm node) {
    cpu_set_t own, all;
    CPU_ZERO(&own);
    sched_getaffinity(0, sizeof own, &own);
    CHECK(
        mpi_check(MPI_Allreduce(&own, &all, sizeof own, MPI_BYTE, MPI_BOR, node), "MPI_Allreduce"));
    world.cores = (int)i64_max(1, i64_min(CPU_COUNT(&own), CPU_COUNT(&all) / world.local_size));
    return OK;
}

Status comm_start(int *argc, char ***argv) {
    int level = MPI_THREAD_SINGLE;
    CHECK(mpi_check(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread"));
    if (level < MPI_THREAD_MULTIPLE)
        return status_fail(ERR_ENV,
                           "this MPI library does not grant MPI_THREAD_MULTIPLE (it grants "
                           "level %d of %d); use one built with thread support",
                           level, MPI_THREAD_MULTIPLE);
    MPI_Comm node;
    CHECK(mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                    "MPI_Comm_set_errhandler"));
    CHECK(mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank), "MPI_Comm_rank"));
    CHECK(mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &world.size), "MPI_Comm_size"));
    CHECK(mpi_check(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node),
        "MPI_Comm_split_type"));
    CHECK(mpi_check(MPI_Comm_rank(node, &world.local_rank), "MPI_Comm_rank"));
    CHECK(mpi_check(MPI_Comm_size(node, &world.local_size), "MPI_Comm_size"));
    CHECK(count_cores(node));
    return mpi_check(MPI_Comm_free(&node), "MPI_Comm_free");
}

int comm_world_rank(void) {
    return world.rank;
}
int comm_world_size(void) {
    return world.size;
}
int comm_local_rank(void) {
    return world.local_rank;
}
int comm_local_size(void) {
    return world.local_size;
}
int comm_local_cores(void) {
    return world.cores;
}

static bool mpi_is_up(void) {
    int started = 0, finished = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&finished);
    return started && !finished;
}

void comm_finish(void) {
    if (mpi_is_up()) MPI_Finalize();
}

void comm_abort(int exit_code) {
    /* mpirun may drop what it has not read yet of this rank's output, such as the reason. */
    nanosleep(&(struct timespec){.tv_nsec = ABORT_NS}, NULL);
    if (mpi_is_up()) MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}
