/* mpi_world.c: MPI in this process: start, ranks, finish, abort. */
#include "comm/mpi_private.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/launcher.h"
#include "comm/start_guard.h"
#include "base/output.h"

enum {
    REPORT_NS = 300 * 1000 * 1000, /* for mpirun to read output, which it may drop at an abort */
    ABORT_SECONDS = 10,
    FINISH_SECONDS = 20 /* for MPI_Finalize of all ranks, which takes less than one */
};

/* One MPI per process; written once, by comm_start(). */
static struct { int rank, size, local_rank, local_size; } world = {0, 1, 0, 1};
static const Launcher *launcher = &(Launcher){.size = 1};
static atomic_bool mpi_is_up, mpi_is_finishing;

const char *mpi_error_text(int code, char text[MPI_MAX_ERROR_STRING]) {
    int length = 0;
    snprintf(text, MPI_MAX_ERROR_STRING, "MPI error %d", code);
    if (atomic_load(&mpi_is_up)) /* Open MPI ends a process that asks before */
        MPI_Error_string(code, text, &length);
    return text;
}

Status mpi_check(int code, const char *what) {
    if (code == MPI_SUCCESS) return OK;
    char text[MPI_MAX_ERROR_STRING];
    return status_fail(ERR_ENV, "%s failed on rank %d of %d: %s", what, world.rank, world.size,
                       mpi_error_text(code, text));
}

/* ---- start ----------------------------------------------------------------------------------- */

/* Why MPI does not find the ranks that the launcher has started. */
static char *describe_foreign_launcher(bool open_mpi, const char *library) {
    const char *remedy = open_mpi ? "use Open MPI's mpirun (mpirun.openmpi), or srun --mpi=pmix"
                                  : "use MPICH's mpirun (mpirun.mpich), or srun --mpi=pmi2";
    if (!open_mpi && strcmp(launcher->name, "MPICH's mpirun") == 0)
        remedy = "this MPICH does not go with its mpirun, as on Ubuntu 24.04: build with Open MPI";
    return mem_printf("this is process %d of %d that %s has started, but cria is built with %s, "
                      "which was told nothing of the others: %s (separate runs are started by "
                      "mpirun -n 1 each)",
                      launcher->rank, launcher->size, launcher->name, library, remedy);
}

/* Under the mpirun of another MPI library, or srun without the PMI that this one knows, MPI_Init
 * makes each rank a world of one, or (Open MPI under srun) ends the process, for which the guard
 * has the same sentence. */
static Status init_mpi(int *level) {
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    mpi_library_name(library);
    bool open_mpi = strncmp(library, "Open MPI", 8) == 0;
    char *foreign = launcher->size > 1 ? describe_foreign_launcher(open_mpi, library) : NULL;
    bool may_exit = open_mpi && strcmp(launcher->name, "Open MPI's mpirun") != 0;
    start_guard_begin(world.rank, may_exit ? foreign : NULL, comm_end_now);
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, level);
    start_guard_end();
    Status st = mpi_check(code, "MPI_Init_thread");
    if (st == OK) {
        atomic_store(&mpi_is_up, true);
        st = mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &world.size), "MPI_Comm_size");
    }
    if (st == OK && world.size == 1 && foreign != NULL) st = status_fail(ERR_ENV, "%s", foreign);
    free(foreign);
    return st;
}

static Status start_mpi(void) {
    int level = MPI_THREAD_SINGLE;
    /* Between hosts UCX writes by TCP in a way that needs an answer from the other rank; one that
     * MPI_Finalize has stopped listening gives none (MPICH 4.0 with UCX 1.13). */
    setenv("UCX_TCP_PUT_ENABLE", "n", 0);
    CHECK(init_mpi(&level));
    if (level < MPI_THREAD_MULTIPLE)
        return status_fail(ERR_ENV,
                           "this MPI library does not grant MPI_THREAD_MULTIPLE (it grants "
                           "level %d of %d); use one built with thread support",
                           level, MPI_THREAD_MULTIPLE);
    CHECK(mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                    "MPI_Comm_set_errhandler"));
    CHECK(mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &world.rank), "MPI_Comm_rank"));
    MPI_Comm node;
    CHECK(mpi_check(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node),
        "MPI_Comm_split_type"));
    CHECK(mpi_check(MPI_Comm_rank(node, &world.local_rank), "MPI_Comm_rank"));
    CHECK(mpi_check(MPI_Comm_size(node, &world.local_size), "MPI_Comm_size"));
    CHECK(placement_find(node));
    return mpi_check(MPI_Comm_free(&node), "MPI_Comm_free");
}

void comm_start(void) {
    launcher = launcher_find();
    world.rank = launcher->rank;
    world.size = launcher->size;
    Status st = launcher->name != NULL ? start_mpi() : placement_find(MPI_COMM_NULL);
    if (st == OK) return;
    /* In a world of one each process fails by itself: the launcher's first one reports it. */
    bool reports = world.size > 1 || launcher->rank == 0;
    char *text = mem_printf("cria: error: %s\n", status_message());
    comm_end_now(status_exit_code(st), reports ? text : "");
}

bool comm_has_mpi(void) {
    return atomic_load(&mpi_is_up);
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

/* ---- end ------------------------------------------------------------------------------------- */

void comm_keep_status(void) {
    if (world.rank == 0) launcher_keep_status();
}

bool comm_is_rank_variable(const char *variable) {
    return launcher_sets(variable);
}

bool comm_launcher_is_gone(void) {
    /* The launcher disconnects from a rank that finishes MPI. */
    return launcher_is_gone() && !atomic_load(&mpi_is_finishing);
}

static volatile sig_atomic_t abort_code;

static void on_alarm(int sig) {
    (void)sig;
    launcher_end_job(abort_code);
    _exit(abort_code);
}

/* Also when this thread blocks meanwhile, for example in a write to a full pipe. */
static void end_within(int seconds, int exit_code) {
    sigset_t only;
    struct sigaction end = {.sa_handler = on_alarm};
    sigemptyset(&only);
    sigaddset(&only, SIGALRM);
    abort_code = exit_code;
    sigaction(SIGALRM, &end, NULL);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    alarm((unsigned)seconds);
}

/* MPICH 4.0 with UCX waits in MPI_Finalize for ranks that have stopped listening. Once all ranks
 * are here nothing is left to lose, so none waits for long. */
void comm_finish(int exit_code) {
    if (!atomic_load(&mpi_is_up)) return;
    atomic_store(&mpi_is_finishing, true);
    MPI_Barrier(MPI_COMM_WORLD);
    end_within(FINISH_SECONDS, exit_code);
    MPI_Finalize();
    alarm(0);
    atomic_store(&mpi_is_up, false);
}

static void sleep_ns(long ns) {
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

/* MPICH's mpirun ends all ranks with this status; if this rank exited first, the status would
 * differ. Others end all ranks once the first has exited, and return its status. */
static _Noreturn void leave_to_launcher(int exit_code) {
    if (launcher_end_job(exit_code) && launcher->size > 1) sleep_ns(2 * REPORT_NS);
    _exit(exit_code);
}

void comm_abort(int exit_code) {
    start_guard_stand_down();
    end_within(ABORT_SECONDS, exit_code);
    sleep_ns(REPORT_NS);
    /* MPI_Finalize, which another thread may be in, frees the communicator. */
    if (atomic_load(&mpi_is_up) && !atomic_load(&mpi_is_finishing))
        MPI_Abort(MPI_COMM_WORLD, exit_code);
    leave_to_launcher(exit_code);
}

void comm_last_words(const char *message) {
    if (world.rank > 0) sleep_ns(2 * REPORT_NS);
    output_write_urgent(message);
}

void comm_end_now(int exit_code, const char *message) {
    start_guard_stand_down();
    end_within(ABORT_SECONDS, exit_code);
    comm_last_words(message);
    if (launcher->name != NULL) sleep_ns(REPORT_NS);
    leave_to_launcher(exit_code);
}
