#include "train/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/progress.h"
#include "train/stop.h"

extern char **environ;

enum { STOP_SECONDS = 10, KILL_SECONDS = 5, POLL_NS = 20 * 1000 * 1000 };

struct Hook {
    const Config *config;
    Sink *sink;
    int rank;
    pid_t pid; /* 0: none runs */
    int64_t step;
    char *path; /* of its checkpoint; NULL: none runs */
    double begin;
    int64_t next_step;
    char *next_path;     /* of the one that waits; NULL: none does */
    double asked_to_end; /* when SIGTERM was sent; 0: it was not */
};

Hook *hook_create(const Config *c, Sink *sink, int rank) {
    if (c->run.on_save[0] == '\0') return NULL;
    Hook *h = NEW(Hook, 1);
    *h = (Hook){.config = c, .sink = sink, .rank = rank};
    struct sigaction found; /* ignored, it would keep the exit status from this process */
    if (rank == 0 && sigaction(SIGCHLD, NULL, &found) == 0 && found.sa_handler == SIG_IGN)
        signal(SIGCHLD, SIG_DFL);
    return h;
}

void hook_free(Hook *h) {
    if (h == NULL) return;
    free(h->path);
    free(h->next_path);
    free(h);
}

/* ---- starting one ---------------------------------------------------------------------------- */

/* This process's, less what would make a program that the command starts take itself for a rank of
 * this job. The caller frees the list and its last three. */
static char **make_environment(const Hook *h) {
    int64_t n = 0, cap = 0;
    char **list = NULL, *dir = realpath(h->config->run.dir, NULL);
    for (char **e = environ; *e != NULL; e++) {
        if (comm_is_rank_variable(*e) || strncmp(*e, "CRIA_", 5) == 0) continue;
        GROW(list, n, cap);
        list[n++] = *e;
    }
    list = mem_grow(list, n + 4, sizeof *list);
    list[n++] = mem_printf("CRIA_CHECKPOINT=%s", h->path);
    list[n++] = mem_printf("CRIA_STEP=%lld", (long long)h->step);
    list[n++] = mem_printf("CRIA_RUN_DIR=%s", dir != NULL ? dir : h->config->run.dir);
    list[n] = NULL;
    free(dir);
    return list;
}

static void free_environment(char **list) {
    int64_t n = 0;
    while (list[n] != NULL) n++;
    for (int64_t i = n - 3; i < n; i++) free(list[i]);
    free(list);
}

/* on_save.log, with a line that says which checkpoint what follows is of; -1 and errno. */
static int open_log(const Hook *h) {
    char *path = mem_printf("%s/on_save.log", h->config->run.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd >= 0) dprintf(fd, "== step %lld: %s\n", (long long)h->step, h->path);
    free(path);
    return fd;
}

/* posix_spawn: MPI and CUDA do not bear a fork. Returns 0 or errno. */
static int spawn(const Hook *h, pid_t *pid) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, defaults;
    char *argv[] = {"sh", "-c", h->config->run.on_save, NULL};
    int fd = open_log(h);
    if (fd < 0) return errno;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE); /* which this process ignores, as SIGXFSZ */
    sigaddset(&defaults, SIGXFSZ);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, fd, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, fd, STDERR_FILENO);
#if __GLIBC_PREREQ(2, 34) /* mpirun waits until everyone has closed what it reads from */
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
#endif
    char **environment = make_environment(h);
    int error = posix_spawn(pid, "/bin/sh", &files, &attr, argv, environment);
    free_environment(environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    close(fd);
    return error;
}

static void report(const Hook *h, int64_t step, const char *path, HookOutcome outcome,
                   int wait_status, double seconds) {
    const HookRecord r = {.step = step,
                          .path = path,
                          .outcome = outcome,
                          .status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1,
                          .signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0,
                          .seconds = seconds};
    h->sink->hook(h->sink, &r);
}

static void start(Hook *h) {
    h->path = h->next_path;
    h->step = h->next_step;
    h->next_path = NULL;
    h->begin = time_now();
    int error = spawn(h, &h->pid);
    if (error == 0) return;
    h->pid = 0;
    report(h, h->step, h->path, HOOK_FAILED, 127 << 8, 0); /* as of a shell without the command */
    free(h->path);
    h->path = NULL;
}

/* ---- beside training ------------------------------------------------------------------------- */

static void leave_out_next(Hook *h, HookOutcome why) {
    if (h->next_path == NULL) return;
    report(h, h->next_step, h->next_path, why, 0, 0);
    free(h->next_path);
    h->next_path = NULL;
}

void hook_saved(Hook *h, int64_t step, const char *path) {
    if (h == NULL || h->rank != 0) return;
    leave_out_next(h, HOOK_REPLACED);
    h->next_step = step;
    h->next_path = realpath(path, NULL);
    if (h->next_path == NULL) h->next_path = mem_strdup(path);
    if (stop_requested() || stop_time_is_up())
        leave_out_next(h, HOOK_NOT_STARTED);
    else
        hook_poll(h);
}

/* Reports the one that runs, if it has ended. */
static void reap(Hook *h) {
    int status = 0;
    if (h->pid == 0) return;
    pid_t got = waitpid(h->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return;
    bool good = got > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    report(h, h->step, h->path,
           h->asked_to_end > 0 ? HOOK_ENDED
           : good              ? HOOK_DONE
                               : HOOK_FAILED,
           got > 0 ? status : 255 << 8, time_now() - h->begin);
    free(h->path);
    h->path = NULL;
    h->pid = 0;
}

void hook_poll(Hook *h) {
    if (h == NULL || h->rank != 0) return;
    reap(h);
    if (h->pid == 0 && h->next_path != NULL) start(h);
}

int hook_steps(const Hook *h, int64_t steps[HOOK_STEPS]) {
    int n = 0;
    if (h != NULL && h->path != NULL) steps[n++] = h->step;
    if (h != NULL && h->next_path != NULL) steps[n++] = h->next_step;
    return n;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Whether there is something to wait for. *end is when it becomes too long. */
static bool advance(Hook *h, bool stopped, double end) {
    double now = time_now();
    if (stopped || now >= end) leave_out_next(h, HOOK_NOT_STARTED);
    hook_poll(h);
    if (h->pid == 0 || now < end) return h->pid != 0;
    if (h->asked_to_end == 0) {
        h->asked_to_end = now;
        kill(-h->pid, SIGTERM);
    } else if (now >= h->asked_to_end + KILL_SECONDS) {
        kill(-h->pid, SIGKILL);
    }
    return now < h->asked_to_end + 2 * KILL_SECONDS; /* one that the kernel holds stays behind */
}

Status hook_finish(Hook *h, Comm *host, bool stopped) {
    if (h == NULL) return OK;
    double end = time_now() + (stopped ? STOP_SECONDS : 60 * h->config->run.on_save_minutes);
    for (int32_t busy = 1; busy != 0;) {
        if (h->rank == 0 && !stopped && stop_requested()) {
            stopped = true;
            end = time_now() + STOP_SECONDS;
        }
        if (h->rank == 0) busy = advance(h, stopped, end);
        progress_beat(h->step, "waiting for run.on_save");
        CHECK(comm_broadcast(host, &busy, 1, DT_I32, 0, NULL));
        if (busy != 0) nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return OK;
}
