/* clang-format off */
/* faults.c: preloaded by tests; makes chosen calls of chosen files fail, block, wait or return wrong bytes.
 *
 * FAULTS="call=open,path=step_0000,do=EIO; call=pread,rank=1,nth=3,do=flip": rules, separated by ';', of
 *   call=NAME    open (openat and fopen, too), opendir, read, pread, write, pwrite, ftruncate, fsync,
 *                fdatasync, close, rename, unlink, flock, readdir, MPI_Init_thread, MPI_Finalize, MPI_Abort,
 *                cos, pow, GOMP_parallel (a parallel region of OpenMP begins)
 *   path=WORD    only for paths with this word in them (default: any; of rename the old path)
 *   rank=R       only on this rank, as PMI or Open MPI numbers it (default: any)
 *   nth=K        only the K-th call that matches;  from=K: that one and all later ones (default: from=1)
 *   while=FILE   only while this file exists
 *   do=ERRNO     fail with EIO, ESTALE, EMFILE, ENOSPC, EDQUOT, EACCES, EPERM, ENOLCK, EOPNOTSUPP, EINTR
 *   do=end       readdir, read, pread: report the end of the directory or file
 *   do=hang      never return; makes the file that FAULTS_HANG names
 *   do=MS        wait this many milliseconds, then do the call
 *   do=flip      read, pread: invert a bit in the middle of what was read
 *   do=kill      end the process by SIGKILL
 *   do=skew      cos, pow: the result times 1.000001, where that of another type of CPU may differ in its
 *                last bit
 * The first rule that matches counts. */
/* clang-format on */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RULES = 16, PASS = 0, FAIL, END, FLIP, SKEW };

typedef struct {
    char call[32], path[128], only_while[256], action[32];
    int rank; /* -1: any */
    long nth, from;
    atomic_long seen;
} Rule;

static Rule rules[MAX_RULES];
static int n_rules;

static void parse_rule(char *text) {
    Rule *r = &rules[n_rules];
    *r = (Rule){.rank = -1, .from = 1};
    char *save;
    for (char *word = strtok_r(text, ", ", &save); word != NULL;
         word = strtok_r(NULL, ", ", &save)) {
        char *value = strchr(word, '=');
        if (value == NULL) abort();
        *value++ = '\0';
        if (strcmp(word, "call") == 0)
            snprintf(r->call, sizeof r->call, "%s", value);
        else if (strcmp(word, "path") == 0)
            snprintf(r->path, sizeof r->path, "%s", value);
        else if (strcmp(word, "while") == 0)
            snprintf(r->only_while, sizeof r->only_while, "%s", value);
        else if (strcmp(word, "do") == 0)
            snprintf(r->action, sizeof r->action, "%s", value);
        else if (strcmp(word, "rank") == 0)
            r->rank = atoi(value);
        else if (strcmp(word, "nth") == 0)
            r->nth = atol(value);
        else if (strcmp(word, "from") == 0)
            r->from = atol(value);
        else
            abort();
    }
    if (r->call[0] == '\0' || r->action[0] == '\0') abort();
    n_rules++;
}

__attribute__((constructor)) static void parse_rules(void) {
    const char *text = getenv("FAULTS");
    if (text == NULL) return;
    char *copy = strdup(text), *save;
    for (char *rule = strtok_r(copy, ";", &save); rule != NULL; rule = strtok_r(NULL, ";", &save))
        if (n_rules < MAX_RULES && rule[strspn(rule, " ")] != '\0') parse_rule(rule);
    free(copy);
}

static int own_rank(void) {
    const char *rank = getenv("PMI_RANK");
    if (rank == NULL) rank = getenv("OMPI_COMM_WORLD_RANK");
    return rank != NULL ? atoi(rank) : 0;
}

static void wait_ms(long ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

static int errno_named(const char *name) {
    static const struct {
        const char *name;
        int value;
    } known[] = {{"EIO", EIO},       {"ESTALE", ESTALE}, {"EMFILE", EMFILE},
                 {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EACCES", EACCES},
                 {"EPERM", EPERM},   {"ENOLCK", ENOLCK}, {"EOPNOTSUPP", EOPNOTSUPP},
                 {"EINTR", EINTR}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].value;
    abort();
}

/* What to do with a call; FAIL leaves the reason in errno. */
static int fault(const char *call, const char *path) {
    for (int i = 0; i < n_rules; i++) {
        Rule *r = &rules[i];
        if (strcmp(r->call, call) != 0) continue;
        if (r->path[0] != '\0' && (path == NULL || strstr(path, r->path) == NULL)) continue;
        if (r->rank >= 0 && r->rank != own_rank()) continue;
        if (r->only_while[0] != '\0' && access(r->only_while, F_OK) != 0) continue;
        long k = atomic_fetch_add(&r->seen, 1) + 1;
        if (r->nth > 0 ? k != r->nth : k < r->from) continue;
        if (strcmp(r->action, "hang") == 0) {
            const char *file = getenv("FAULTS_HANG");
            if (file != NULL) syscall(SYS_mknodat, AT_FDCWD, file, S_IFREG | 0666, 0);
            for (;;) pause();
        }
        if (strcmp(r->action, "kill") == 0) raise(SIGKILL);
        if (strcmp(r->action, "end") == 0) return END;
        if (strcmp(r->action, "flip") == 0) return FLIP;
        if (strcmp(r->action, "skew") == 0) return SKEW;
        if (r->action[0] >= '0' && r->action[0] <= '9') {
            wait_ms(atol(r->action));
            return PASS;
        }
        errno = errno_named(r->action);
        return FAIL;
    }
    return PASS;
}

static int fd_fault(const char *call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int before = errno;
    ssize_t n = n_rules > 0 ? readlink(link, path, sizeof path - 1) : -1;
    path[n > 0 ? n : 0] = '\0';
    errno = before;
    return fault(call, path);
}

/* The function that this library stands before. */
#define REAL(name, result, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, name)

#define OPEN(function)                                                                             \
    int function(const char *path, int flags, ...) {                                               \
        REAL(#function, int, const char *, int, ...);                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        return fault("open", path) == FAIL ? -1 : real(path, flags, mode);                         \
    }
#define OPENAT(function)                                                                           \
    int function(int dir, const char *path, int flags, ...) {                                      \
        REAL(#function, int, int, const char *, int, ...);                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        return fault("open", path) == FAIL ? -1 : real(dir, path, flags, mode);                    \
    }
#define FOPEN(function)                                                                            \
    FILE *function(const char *path, const char *mode) {                                           \
        REAL(#function, FILE *, const char *, const char *);                                       \
        return fault("open", path) == FAIL ? NULL : real(path, mode);                              \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)

static ssize_t spoil(int what, void *buf, ssize_t n) {
    if (what == FLIP && n > 0) ((unsigned char *)buf)[n / 2] ^= 1;
    return n;
}
ssize_t read(int fd, void *buf, size_t n) {
    REAL("read", ssize_t, int, void *, size_t);
    int what = fd_fault("read", fd);
    return what == FAIL ? -1 : what == END ? 0 : spoil(what, buf, real(fd, buf, n));
}
#define PREAD(function)                                                                            \
    ssize_t function(int fd, void *buf, size_t n, off_t offset) {                                  \
        REAL(#function, ssize_t, int, void *, size_t, off_t);                                      \
        int what = fd_fault("pread", fd);                                                          \
        return what == FAIL ? -1 : what == END ? 0 : spoil(what, buf, real(fd, buf, n, offset));   \
    }
PREAD(pread)
PREAD(pread64)

ssize_t write(int fd, const void *buf, size_t n) {
    REAL("write", ssize_t, int, const void *, size_t);
    return fd_fault("write", fd) == FAIL ? -1 : real(fd, buf, n);
}
#define PWRITE(function)                                                                           \
    ssize_t function(int fd, const void *buf, size_t n, off_t offset) {                            \
        REAL(#function, ssize_t, int, const void *, size_t, off_t);                                \
        return fd_fault("pwrite", fd) == FAIL ? -1 : real(fd, buf, n, offset);                     \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define ON_FD(function)                                                                            \
    int function(int fd) {                                                                         \
        REAL(#function, int, int);                                                                 \
        return fd_fault(#function, fd) == FAIL ? -1 : real(fd);                                    \
    }
ON_FD(fsync)
ON_FD(fdatasync)
ON_FD(close)

int ftruncate(int fd, off_t length) {
    REAL("ftruncate", int, int, off_t);
    return fd_fault("ftruncate", fd) == FAIL ? -1 : real(fd, length);
}
int flock(int fd, int operation) {
    REAL("flock", int, int, int);
    return fd_fault("flock", fd) == FAIL ? -1 : real(fd, operation);
}
int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    return fault("rename", from) == FAIL ? -1 : real(from, to);
}
int unlink(const char *path) {
    REAL("unlink", int, const char *);
    return fault("unlink", path) == FAIL ? -1 : real(path);
}
DIR *opendir(const char *path) {
    REAL("opendir", DIR *, const char *);
    return fault("opendir", path) == FAIL ? NULL : real(path);
}
#define READDIR(function, entry)                                                                   \
    struct entry *function(DIR *dir) {                                                             \
        REAL(#function, struct entry *, DIR *);                                                    \
        return fd_fault("readdir", dirfd(dir)) != PASS ? NULL : real(dir);                         \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)

static double skew(const char *call, double x) {
    return fault(call, NULL) == SKEW ? x * 1.000001 : x;
}
double cos(double x) {
    REAL("cos", double, double);
    return skew("cos", real(x));
}
double pow(double x, double y) {
    REAL("pow", double, double, double);
    return skew("pow", real(x, y));
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags) {
    REAL("GOMP_parallel", void, void (*)(void *), void *, unsigned, unsigned);
    fault("GOMP_parallel", NULL);
    real(body, data, threads, flags);
}

int MPI_Init_thread(int *argc, char ***argv, int want, int *got) {
    return fault("MPI_Init_thread", NULL) == FAIL ? MPI_ERR_OTHER
                                                  : PMPI_Init_thread(argc, argv, want, got);
}
int MPI_Finalize(void) {
    return fault("MPI_Finalize", NULL) == FAIL ? MPI_ERR_OTHER : PMPI_Finalize();
}
int MPI_Abort(MPI_Comm comm, int code) {
    return fault("MPI_Abort", NULL) == FAIL ? MPI_ERR_OTHER : PMPI_Abort(comm, code);
}
