#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 200, /* for a reader that is busy; a stalled one gets none */
    URGENT_MS = 500
};

typedef struct {
    int fd;       /* -1: closed */
    bool stalled; /* the last text could not be written */
    bool warned;
    long long left_out; /* lines, since the last text that was written */
    StrBuf rest;        /* of a text of which a part was written */
} Stream;

/* Of the process, like the streams themselves. */
static struct {
    pthread_mutex_t mutex;
    Stream streams[2];
    bool never_block;
    int error; /* errno of the first failure of stdout; 0: none */
} output = {.mutex = PTHREAD_MUTEX_INITIALIZER,
            .streams = {{.fd = STDOUT_FILENO}, {.fd = STDERR_FILENO}}};

/* ---- opening --------------------------------------------------------------------------------- */

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) != -1;
}

void output_open(void) {
    bool has_stdout = is_open(STDOUT_FILENO);
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (!is_open(fd) && open("/dev/null", O_RDWR) != fd)
            return; /* no /dev: leave all as it is */
    Stream *out = &output.streams[OUTPUT_STDOUT];
    out->fd = has_stdout ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) : -1;
    if (has_stdout && out->fd == -1) {
        out->fd = STDOUT_FILENO;
        return;
    }
    dup2(STDERR_FILENO, STDOUT_FILENO);
}

/* O_NONBLOCK belongs to the open file, which other processes share: pipes and terminals are opened
 * once more for this one alone. What cannot be is written when poll() says that there is room. */
static void open_without_blocking(Stream *s) {
    struct stat before, after;
    if (s->fd == -1 || fstat(s->fd, &before) != 0) return;
    if (!S_ISFIFO(before.st_mode) && !S_ISCHR(before.st_mode)) return;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->fd);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd == -1) return;
    bool same = fstat(fd, &after) == 0 && before.st_dev == after.st_dev &&
                before.st_ino == after.st_ino && before.st_rdev == after.st_rdev;
    int unused = same ? s->fd : fd;
    if (same) s->fd = fd;
    if (unused > STDERR_FILENO) close(unused);
}

void output_never_block(void) {
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is then an error of the write */
    pthread_mutex_lock(&output.mutex);
    if (!output.never_block)
        for (int i = 0; i < 2; i++) open_without_blocking(&output.streams[i]);
    output.never_block = true;
    pthread_mutex_unlock(&output.mutex);
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool has_room(int fd, int milliseconds) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int n;
    while ((n = poll(&p, 1, milliseconds)) == -1 && errno == EINTR && milliseconds < 0) {
    }
    return n > 0;
}

static ssize_t write_once(int fd, const char *text, size_t n, bool may_block) {
    if (!may_block) {
        ssize_t sent = send(fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0 || errno != ENOTSOCK) return sent;
    }
    return write(fd, text, n);
}

/* Returns how much was written; less than n when there was no room in time (errno EAGAIN) or the
 * write failed. milliseconds -1: waits for ever. */
static size_t write_until(int fd, const char *text, size_t n, int milliseconds) {
    size_t done = 0;
    while (done < n) {
        if (milliseconds >= 0 && !has_room(fd, milliseconds)) {
            errno = EAGAIN;
            break;
        }
        ssize_t k = write_once(fd, text + done, n - done, milliseconds < 0);
        if (k > 0) {
            done += (size_t)k;
        } else if (k == 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!has_room(fd, milliseconds)) {
                errno = EAGAIN;
                break;
            }
        } else if (errno != EINTR) {
            break;
        }
    }
    return done;
}

/* The rest of a text that was begun goes out before the next. */
static bool write_or_leave_out(Stream *s, const char *text, size_t n) {
    int patience = s->stalled ? 0 : PATIENCE_MS;
    if (s->rest.len > 0) {
        size_t done = write_until(s->fd, s->rest.text, s->rest.len, patience);
        memmove(s->rest.text, s->rest.text + done, s->rest.len - done + 1);
        s->rest.len -= done;
        if (s->rest.len > 0) return false;
    }
    size_t done = write_until(s->fd, text, n, patience);
    if (done == 0 && n > 0) return false;
    if (done < n) strbuf_append(&s->rest, text + done, n - done);
    return true;
}

static void write_patiently(OutputStream to, const char *text, size_t n) {
    Stream *s = &output.streams[to];
    if (s->fd != -1 && write_until(s->fd, text, n, -1) == n) return;
    if (to == OUTPUT_STDOUT && output.error == 0) output.error = s->fd == -1 ? EBADF : errno;
}

static long long count_lines(const char *text, size_t n) {
    long long lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines;
}

static void write_without_blocking(OutputStream to, const char *text, size_t n);

/* Once, and on stderr: which may be what nobody reads, too. */
static void warn_of_stdout(int error) {
    if (output.streams[OUTPUT_STDOUT].warned) return;
    output.streams[OUTPUT_STDOUT].warned = true;
    char text[256];
    int n = snprintf(text, sizeof text,
                     "cria: warning: %s%s: the run goes on without the lines that cannot be "
                     "printed; log.jsonl has its numbers\n",
                     error == EAGAIN  ? "nobody reads stdout"
                     : error == EPIPE ? "the reader of stdout has gone away"
                                      : "cannot write to stdout: ",
                     error == EAGAIN || error == EPIPE ? "" : strerror(error));
    write_without_blocking(OUTPUT_STDERR, text, (size_t)n);
}

static void write_without_blocking(OutputStream to, const char *text, size_t n) {
    Stream *s = &output.streams[to];
    if (s->fd == -1) return;
    bool written = true;
    if (s->left_out > 0 && to == OUTPUT_STDOUT) {
        char note[128];
        int length =
            snprintf(note, sizeof note, "(%lld lines are missing here: nobody read this output)\n",
                     s->left_out);
        written = write_or_leave_out(s, note, (size_t)length);
        if (written) s->left_out = 0;
    }
    written = written && write_or_leave_out(s, text, n);
    int error = errno;
    s->stalled = !written;
    if (written) return;
    s->left_out += count_lines(text, n);
    if (to == OUTPUT_STDOUT) warn_of_stdout(error);
}

void output_write(OutputStream to, const char *text, size_t n) {
    pthread_mutex_lock(&output.mutex);
    if (output.never_block)
        write_without_blocking(to, text, n);
    else
        write_patiently(to, text, n);
    pthread_mutex_unlock(&output.mutex);
}

void output_print(const char *fmt, ...) {
    StrBuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    output_write(OUTPUT_STDOUT, strbuf_text(&text), text.len);
    strbuf_free(&text);
}

int output_descriptor(void) {
    return output.streams[OUTPUT_STDOUT].fd;
}

/* Whether process `pid` is what started the ranks of an MPI job; sets *parent. */
static bool is_launcher(int pid, int *parent) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "prterun"};
    char path[64], text[256] = "";
    *parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) return false;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = '\0';
    close(fd);
    const char *name = strchr(text, '('), *end = strrchr(text, ')');
    if (name == NULL || end == NULL || sscanf(end, ") %*c %d", parent) != 1) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name + 1, names[i], strlen(names[i])) == 0) return true;
    return false;
}

static bool launcher_is_on_terminal(int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, STDOUT_FILENO);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    bool is = fd != -1 && isatty(fd) == 1;
    if (fd != -1) close(fd);
    return is;
}

bool output_is_terminal(void) {
    struct stat file;
    int fd = output_descriptor();
    if (fd == -1 || fstat(fd, &file) != 0) return false;
    bool passed_on = S_ISFIFO(file.st_mode) || S_ISSOCK(file.st_mode);
    for (int pid = getppid(), parent, i = 0; i < 8 && pid > 1; pid = parent, i++)
        if (is_launcher(pid, &parent))
            return (passed_on || isatty(fd) == 1) && launcher_is_on_terminal(pid);
    return isatty(fd) == 1;
}

void output_write_urgent(const char *text) {
    int before = errno;
    write_until(output.streams[OUTPUT_STDERR].fd, text, strlen(text), URGENT_MS);
    errno = before;
}

Status output_finish(void) {
    if (output.never_block) return OK;
    /* A file on a network may fail as late as when it is closed. */
    int fd = output_descriptor();
    if (fd != -1 && close(fd) != 0 && output.error == 0) output.error = errno;
    output.streams[OUTPUT_STDOUT].fd = -1;
    if (output.error == 0) return OK;
    return output.error == EPIPE
               ? ERR_ENV
               : status_fail(ERR_ENV, "cannot write to stdout: %s", strerror(output.error));
}
