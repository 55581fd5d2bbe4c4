#include "comm/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/output.h"

extern char **environ;

/* Written once, by launcher_find(). */
static Launcher launcher;
static bool is_hydra; /* the process manager of MPICH and its derivatives */
static int pmi_fd = -1;

/* Launchers that set the number of ranks. */
static const struct {
    const char *size, *rank, *name;
} sized_launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun"},
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MVAPICH's mpirun"},
    {"PMI_SIZE", "PMI_RANK", "a PMI launcher"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"},
};

/* Prefixes of variables that launchers set, also those that set none of the above. If they come
 * from elsewhere, MPI starts with one rank, which does no harm. */
static const char *const prefixes[] = {"PMI",      "OMPI_COMM_WORLD", "MV2_COMM", "MPI_LOCAL",
                                       "MPIRUN_",  "PALS_",           "ALPS_",    "JSM_",
                                       "FLUX_TASK"};

/* The value of an environment variable, if a number >= `least`, else `otherwise`. */
static int env_number(const char *name, int least, int otherwise) {
    const char *text = getenv(name);
    char *end;
    if (text == NULL) return otherwise;
    long n = strtol(text, &end, 10);
    return end != text && *end == '\0' && n >= least && n < 1 << 30 ? (int)n : otherwise;
}

/* In a shell started by srun --pty a user runs commands one by one, in the environment of a task.
 */
static bool is_interactive(void) {
    return isatty(0) || isatty(1) || isatty(2);
}

static bool has_prefix(const char *variable) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

static bool has_launcher_variable(void) {
    for (char **e = environ; e != NULL && *e != NULL; e++)
        if (has_prefix(*e)) return true;
    return false;
}

/* Open MPI's ranks also have the address of their mpirun in OMPI_MCA_ variables. */
bool launcher_sets(const char *variable) {
    static const char *const others[] = {"OMPI_", "HYDI_", "HYDRA_",
                                         "SLURM_STEP_NUM_TASKS=", "SLURM_PROCID="};
    bool found = has_prefix(variable);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        found |= strncmp(variable, others[i], strlen(others[i])) == 0;
    return found;
}

const Launcher *launcher_find(void) {
    launcher = (Launcher){.size = 1};
    for (size_t i = 0;
         i < sizeof sized_launchers / sizeof *sized_launchers && launcher.name == NULL; i++) {
        int size = env_number(sized_launchers[i].size, 1, 0);
        if (size == 0 || (strncmp(sized_launchers[i].size, "SLURM", 5) == 0 && is_interactive()))
            continue;
        launcher = (Launcher){.name = sized_launchers[i].name,
                              .rank = env_number(sized_launchers[i].rank, 0, 0),
                              .size = size};
    }
    is_hydra = getenv("MPI_LOCALNRANKS") != NULL && getenv("PMI_RANK") != NULL;
    bool is_pmi = launcher.name != NULL && strcmp(launcher.name, "a PMI launcher") == 0;
    if (is_pmi && is_hydra)
        launcher.name = "MPICH's mpirun";
    else if (is_pmi && getenv("SLURM_STEP_NUM_TASKS") != NULL)
        launcher.name = "srun";
    if (launcher.name == NULL && has_launcher_variable()) launcher.name = "a launcher";
    /* A copy: MPI closes its descriptor when it ends, and the number may then be reused. */
    struct stat file;
    int fd = env_number("PMI_FD", 0, -1);
    if (fd != -1 && fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode))
        pmi_fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return &launcher;
}

bool launcher_is_gone(void) {
    struct pollfd p = {.fd = pmi_fd, .events = POLLRDHUP};
    return pmi_fd != -1 && poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP)) != 0;
}

/* The message of MPI_Abort in PMI-1 form, which hydra accepts from ranks of either version. */
bool launcher_end_job(int exit_status) {
    char text[] = "cmd=abort exitcode=000\n", *digit = strchr(text, '\n');
    if (!is_hydra || pmi_fd == -1) return false;
    for (int n = exit_status & 255; n > 0; n /= 10) *--digit = (char)('0' + n % 10);
    int before = errno;
    bool sent = send(pmi_fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    errno = before;
    return sent;
}

/* MPICH 4.0.2: after hydra's process on this host has forwarded a signal, it reports a rank's
 * status as 0 unless it handles an event after the rank's death while the output of some rank is
 * open. A child arranges that: it keeps the output open until this rank is dead, then closes
 * stdout. */
void launcher_keep_status(void) {
    enum { POLL_MS = 10, POLLS = 500, PAUSE_MS = 100 };
    if (!is_hydra || output_descriptor() == -1) return;
    pid_t rank = getpid();
    if (fork() != 0) return;
    dup2(output_descriptor(), STDOUT_FILENO);
    close_range(STDERR_FILENO + 1, ~0u, 0); /* hydra leaves copies of the pipes open */
    const struct timespec poll = {.tv_nsec = POLL_MS * 1000000};
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000};
    for (int i = 0; i < POLLS && getppid() == rank; i++) nanosleep(&poll, NULL);
    nanosleep(&pause, NULL);
    close(STDOUT_FILENO);
    nanosleep(&pause, NULL);
    _exit(0);
}
