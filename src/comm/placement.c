/* placement.c: the MPI library of this process, and the hosts and cores that the ranks run on. */
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/log.h"
#include "comm/mpi_private.h"

enum { RANGES_SHOWN = 8 };
typedef char HostName[sizeof((struct utsname *)0)->nodename];

/* Threads that compute, and the cores that they may run on. */
typedef struct {
    int ranks, threads, cores;
} Load;

/* Written once, by placement_find(). */
static struct {
    int cores;               /* this rank's share of its host's */
    int hosts, fewest, most; /* fewest and most ranks of a host */
    cpu_set_t own;           /* of this rank */
    Load worst;              /* most threads a core */
    int worst_rank;          /* one of the host where that is */
    HostName *names;         /* [world]; NULL without MPI */
} placement = {.cores = 1, .hosts = 1, .fewest = 1, .most = 1};

void mpi_library_name(char out[MPI_MAX_LIBRARY_VERSION_STRING]) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n,")] = '\0';
    char *version = strstr(text, "Version:");
    size_t name = version != NULL ? (size_t)(version - text) : strlen(text);
    if (version != NULL)
        version += strlen("Version:") + strspn(version + strlen("Version:"), " \t");
    snprintf(out, MPI_MAX_LIBRARY_VERSION_STRING, "%.*s%s", (int)name, text,
             version != NULL ? version : "");
}

/* ---- find ------------------------------------------------------------------------------------ */

/* OMP_NUM_THREADS where OpenMP takes it, else 0. */
static int threads_given(void) {
    const char *given = getenv("OMP_NUM_THREADS");
    long threads = given != NULL ? strtol(given, NULL, 10) : 0;
    return threads > 0 && threads == omp_get_max_threads() ? (int)threads : 0;
}

static double threads_per_core(Load load) {
    return (double)load.threads / load.cores;
}

static HostName *own_name(void) {
    static struct utsname host;
    if (uname(&host) != 0) host.nodename[0] = '\0';
    return &host.nodename;
}

const char *comm_host_name(int rank) {
    return placement.names != NULL ? placement.names[rank] : *own_name();
}

/* Sets placement.worst on all ranks: this rank's `mine` may be it. */
static Status find_worst(Load mine) {
    struct {
        double value;
        int rank;
    } most = {threads_per_core(mine), comm_world_rank()};
    CHECK(
        mpi_check(MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_DOUBLE_INT, MPI_MAXLOC, MPI_COMM_WORLD),
                  "MPI_Allreduce"));
    placement.worst = mine;
    placement.worst_rank = most.rank;
    return mpi_check(MPI_Bcast(&placement.worst, 3, MPI_INT, most.rank, MPI_COMM_WORLD),
                     "MPI_Bcast");
}

static Status count_hosts(void) {
    int local = comm_local_size(), extremes[] = {local, -local};
    int hosts = comm_local_rank() == 0;
    CHECK(mpi_check(MPI_Allreduce(MPI_IN_PLACE, &hosts, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD),
                    "MPI_Allreduce"));
    CHECK(mpi_check(MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD),
                    "MPI_Allreduce"));
    placement.hosts = hosts;
    placement.fewest = -extremes[1];
    placement.most = extremes[0];
    placement.names = NEW(HostName, comm_world_size());
    return mpi_check(MPI_Allgather(own_name(), sizeof(HostName), MPI_CHAR, placement.names,
                                   sizeof(HostName), MPI_CHAR, MPI_COMM_WORLD),
                     "MPI_Allgather");
}

/* Bound ranks have cores of their own; unbound ranks of a host share all of its cores. */
Status placement_find(MPI_Comm node) {
    cpu_set_t *own = &placement.own, all;
    CPU_ZERO(own);
    sched_getaffinity(0, sizeof *own, own);
    all = *own;
    if (node != MPI_COMM_NULL)
        CHECK(mpi_check(MPI_Allreduce(own, &all, sizeof all, MPI_BYTE, MPI_BOR, node),
                        "MPI_Allreduce"));
    int own_cores = (int)i64_max(1, CPU_COUNT(own)), all_cores = (int)i64_max(1, CPU_COUNT(&all));
    placement.cores = (int)i64_max(1, i64_min(own_cores, all_cores / comm_local_size()));

    int given = threads_given(), threads = given > 0 ? given : placement.cores;
    Load alone = {1, threads, own_cores}, together = {comm_local_size(), threads, all_cores};
    placement.worst = alone;
    if (node == MPI_COMM_NULL) return OK;
    CHECK(mpi_check(MPI_Allreduce(MPI_IN_PLACE, &together.threads, 1, MPI_INT, MPI_SUM, node),
                    "MPI_Allreduce"));
    CHECK(count_hosts());
    return find_worst(threads_per_core(alone) > threads_per_core(together) ? alone : together);
}

int comm_local_cores(void) {
    return placement.cores;
}

/* ---- describe -------------------------------------------------------------------------------- */

/* "0-3,8": at most RANGES_SHOWN of them */
static void print_cores(StrBuf *out) {
    int ranges = 0;
    for (size_t first = 0, last; first < CPU_SETSIZE; first = last + 1) {
        last = first;
        if (!CPU_ISSET(first, &placement.own)) continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &placement.own)) last++;
        if (ranges++ == RANGES_SHOWN) {
            strbuf_printf(out, ",...");
            return;
        }
        strbuf_printf(out, "%s%zu", ranges > 1 ? "," : "", first);
        if (last > first) strbuf_printf(out, "-%zu", last);
    }
}

void comm_describe(StrBuf *out) {
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    const char *given = getenv("OMP_NUM_THREADS");
    strbuf_printf(out, "mpi        ");
    if (!comm_has_mpi()) {
        strbuf_printf(out, "not started: one process without mpirun\n");
    } else {
        mpi_library_name(library);
        strbuf_printf(out, "%s, MPI_THREAD_MULTIPLE; %d host%s with %d", library, placement.hosts,
                      placement.hosts == 1 ? "" : "s", placement.fewest);
        if (placement.most > placement.fewest) strbuf_printf(out, " to %d", placement.most);
        strbuf_printf(out, " rank%s%s\n", placement.most == 1 ? "" : "s",
                      placement.hosts == 1 ? "" : " each");
    }
    int cores = CPU_COUNT(&placement.own);
    strbuf_printf(out, "cores      rank 0 may run on %d core%s (", cores, cores == 1 ? "" : "s");
    print_cores(out);
    if (given != NULL && given[0] != '\0')
        strbuf_printf(out, "); OMP_NUM_THREADS=%.40s\n", given);
    else
        strbuf_printf(out, "); OMP_NUM_THREADS is not set\n");
}

void comm_warn_oversubscribed(void) {
    Load worst = placement.worst;
    if (worst.threads <= worst.cores) return;
    log_warn_once(
        "oversubscribed: %d rank%s of host %s %s %d thread%s on %d core%s, where they wait for "
        "each other: set OMP_NUM_THREADS lower, start fewer ranks on a host, or let mpirun bind "
        "them to more cores",
        worst.ranks, worst.ranks == 1 ? "" : "s", comm_host_name(placement.worst_rank),
        worst.ranks == 1 ? "has" : "have", worst.threads, worst.threads == 1 ? "" : "s",
        worst.cores, worst.cores == 1 ? "" : "s");
}
