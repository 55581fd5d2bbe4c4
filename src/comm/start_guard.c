#include "comm/start_guard.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/launcher.h"
#include "base/output.h"

enum { SHM_MIB_PER_RANK = 16 }; /* MPICH 4.0 with UCX takes 4.1 MiB */

static const int crashes[] = {SIGABRT, SIGBUS, SIGSEGV, SIGFPE, SIGILL};
enum { CRASHES = sizeof crashes / sizeof *crashes };

/* Handlers reach nothing but objects of static storage. */
static struct {
    volatile sig_atomic_t active;
    struct sigaction before[CRASHES];
    FILE *libraries, *own; /* stderr as libraries get it, and as it is */
} guard;

/* What is known to make MPI fail, and what to do. */
static const char *find_cause(char *text, size_t size) {
    struct statvfs shm;
    if (access("/proc/self/stat", R_OK) != 0)
        return "/proc is not mounted here, which MPI needs: mount it";
    if (statvfs("/dev/shm", &shm) != 0)
        return "there is no /dev/shm, through which ranks of a host exchange data: mount one";
    double mib = (double)shm.f_bavail * (double)shm.f_frsize / 0x1p20;
    if (mib >= SHM_MIB_PER_RANK * comm_local_size()) return "";
    snprintf(
        text, size,
        "/dev/shm has %.1f MiB to spare, of which MPI takes about 5 MiB a rank: make it larger "
        "(docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm)",
        mib);
    return text;
}

/* `words` are MPI's own: the last line holds the reason. */
static _Noreturn void end_the_job(const char *words, size_t n) {
    guard.active = 0;
    char cause[256], text[1024], of[32] = "";
    while (n > 0 && (words[n - 1] == '\n' || words[n - 1] == ' ')) n--;
    size_t line = n;
    while (line > 0 && words[line - 1] != '\n') line--;
    for (size_t i = line; i + 3 < n; i++) /* MPICH: "function(line)....: reason" */
        if (memcmp(words + i, ".: ", 3) == 0) line = i + 3;
    while (line < n && words[line] == ' ') line++;
    const char *known = find_cause(cause, sizeof cause);
    if (comm_world_rank() > 0) snprintf(of, sizeof of, " (rank %d)", comm_world_rank());
    snprintf(text, sizeof text, "cria: error%s: MPI cannot start: %s%s%.*s%s\n", of, known,
             known[0] != '\0' ? " (" : "", (int)(n - line < 400 ? n - line : 400), words + line,
             known[0] != '\0' ? ")" : "");
    comm_end_now(status_exit_code(ERR_ENV), text);
}

static void on_crash(int sig) {
    const char *name = strsignal(sig);
    end_the_job(name, strlen(name));
}

/* MPICH calls exit when it runs alone; other libraries always do. */
static void on_exit_of_process(void) {
    static const char words[] = "MPI_Init_thread ended the process; see above";
    if (guard.active) end_the_job(words, sizeof words - 1);
}

#ifdef __GLIBC__
/* MPICH's last words come before it asks mpirun to end the job with its own status. */
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
    guard.own = stderr;
    guard.libraries = fopencookie(NULL, "w", (cookie_io_functions_t){.write = on_library_text});
    if (guard.libraries == NULL) return;
    setvbuf(guard.libraries, NULL, _IOFBF, 1 << 16); /* MPICH flushes */
    stderr = guard.libraries;
}

/* The stream stays open: libraries may have kept it. */
static void unwatch_stderr(void) {
    if (guard.libraries == NULL) return;
    stderr = guard.own;
    fflush(guard.libraries);
    setvbuf(guard.libraries, NULL, _IONBF, 0);
}
#else
static void watch_stderr(void) {}
static void unwatch_stderr(void) {}
#endif

void start_guard_begin(void) {
    static bool registered;
    if (!registered) registered = atexit(on_exit_of_process) == 0;
    struct sigaction crash = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    for (int i = 0; i < CRASHES; i++) sigaction(crashes[i], &crash, &guard.before[i]);
    watch_stderr();
    guard.active = 1;
}

void start_guard_end(void) {
    guard.active = 0;
    unwatch_stderr();
    for (int i = 0; i < CRASHES; i++) sigaction(crashes[i], &guard.before[i], NULL);
}
