#include "comm/start_guard.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/base.h"
#include "base/output.h"

enum { SHM_MIB_NEEDED = 16 }; /* by a rank; MPICH 4.0 with UCX takes 4.1 MiB */

static const int crashes[] = {SIGABRT, SIGBUS, SIGSEGV, SIGFPE, SIGILL};
enum { CRASHES = sizeof crashes / sizeof *crashes };

/* Signal handlers can reach only static objects. */
static struct {
    volatile sig_atomic_t active;
    int rank;
    const char *exit_reason;
    void (*end_job)(int exit_code, const char *message);
    struct sigaction before[CRASHES];
    FILE *intercepted, *original; /* stderr while MPI starts; before */
} guard;

/* A known reason for MPI to fail and its remedy; "" when none applies. */
static const char *find_cause(char *text, size_t size) {
    struct statvfs shm;
    if (access("/proc/self/stat", R_OK) != 0)
        return "/proc is not mounted here, which MPI needs: mount it";
    if (statvfs("/dev/shm", &shm) != 0)
        return "there is no /dev/shm, through which ranks of a host exchange data: mount one";
    double mib = (double)shm.f_bavail * (double)shm.f_frsize / 0x1p20;
    if (mib >= SHM_MIB_NEEDED) return "";
    snprintf(
        text, size,
        "/dev/shm has %.1f MiB to spare, of which MPI takes about 5 MiB a rank: make it larger "
        "(docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm)",
        mib);
    return text;
}

/* `words` is MPI's message: its last line holds the reason. */
static void end_the_job(const char *words, size_t n) {
    guard.active = 0;
    char cause[256], text[1024], of[32] = "";
    while (n > 0 && (words[n - 1] == '\n' || words[n - 1] == ' ')) n--;
    size_t line = n;
    while (line > 0 && words[line - 1] != '\n') line--;
    for (size_t i = line; i + 3 < n; i++) /* MPICH: "function(line)....: reason" */
        if (memcmp(words + i, ".: ", 3) == 0) line = i + 3;
    while (line < n && words[line] == ' ') line++;
    const char *known = find_cause(cause, sizeof cause);
    if (guard.rank > 0) snprintf(of, sizeof of, " (rank %d)", guard.rank);
    snprintf(text, sizeof text, "cria: error%s: MPI cannot start: %s%s%.*s%s\n", of, known,
             known[0] != '\0' ? " (" : "", (int)(n - line < 400 ? n - line : 400), words + line,
             known[0] != '\0' ? ")" : "");
    guard.end_job(status_exit_code(ERR_ENV), text);
}

static void on_crash(int sig) {
    const char *name = strsignal(sig);
    end_the_job(name, strlen(name));
}

/* Without a launcher MPICH calls exit; other libraries always do, or _exit. */
static void on_exit_of_process(void) {
    const char *words = guard.exit_reason;
    if (!guard.active) return;
    if (words == NULL) words = "MPI_Init_thread ended the process; see above";
    if (guard.exit_reason != NULL && guard.rank > 0) {
        guard.active = 0;
        guard.end_job(status_exit_code(ERR_ENV), "");
    }
    end_the_job(words, strlen(words));
}

/* In place of the C library's, also for calls from libraries: Open MPI ends a process like this
 * that srun has started without the kind of PMI that it knows. */
void _exit(int status) {
    on_exit_of_process();
    for (;;) syscall(SYS_exit_group, status);
}

#ifdef __GLIBC__
/* MPICH prints this line before it asks mpirun to end the job with a status of its own. */
static ssize_t on_library_text(void *unused, const char *text, size_t n) {
    (void)unused;
    static const char last_words[] = "Abort(";
    if (guard.active && n >= sizeof last_words &&
        memcmp(text, last_words, sizeof last_words - 1) == 0)
        end_the_job(text, n);
    output_write(OUTPUT_STDERR, text, n);
    return (ssize_t)n;
}

static void watch_stderr(void) {
    guard.original = stderr;
    guard.intercepted = fopencookie(NULL, "w", (cookie_io_functions_t){.write = on_library_text});
    if (guard.intercepted == NULL) return;
    setvbuf(guard.intercepted, NULL, _IOFBF, 1 << 16); /* MPICH flushes */
    stderr = guard.intercepted;
}

/* The intercepting stream stays open: libraries may hold a pointer to it. */
static void unwatch_stderr(void) {
    if (guard.intercepted == NULL) return;
    stderr = guard.original;
    fflush(guard.intercepted);
    setvbuf(guard.intercepted, NULL, _IONBF, 0);
}
#else
static void watch_stderr(void) {}
static void unwatch_stderr(void) {}
#endif

void start_guard_begin(int rank, const char *exit_reason,
                       void (*end_job)(int exit_code, const char *message)) {
    guard.rank = rank;
    guard.exit_reason = exit_reason;
    guard.end_job = end_job;
    static bool registered;
    if (!registered) registered = atexit(on_exit_of_process) == 0;
    struct sigaction crash = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    for (int i = 0; i < CRASHES; i++) sigaction(crashes[i], &crash, &guard.before[i]);
    watch_stderr();
    guard.active = 1;
}

void start_guard_stand_down(void) {
    guard.active = 0;
}

void start_guard_end(void) {
    guard.active = 0;
    unwatch_stderr();
    for (int i = 0; i < CRASHES; i++) sigaction(crashes[i], &guard.before[i], NULL);
}
