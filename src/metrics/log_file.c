#include "metrics/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

Status log_file_open(LogFile *f, const char *path) {
    *f = (LogFile){.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)};
    if (f->fd == -1)
        return status_fail(ERR_ENV, "cannot write the log %s: %s", path, strerror(errno));
    f->path = mem_strdup(path);
    f->end = lseek(f->fd, 0, SEEK_END);
    return OK;
}

/* errno says why not. */
static bool write_all(int fd, const char *data, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, data, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        data += k;
        n -= (size_t)k;
    }
    return true;
}

void log_file_append(LogFile *f, const void *record, size_t n) {
    bool written = write_all(f->fd, record, n);
    int error = errno;
    if (written && f->end >= 0) f->end += (off_t)n;
    if (!written && f->end >= 0 && ftruncate(f->fd, f->end) != 0)
        f->end = lseek(f->fd, 0, SEEK_END);
    if (!written && !f->failed)
        log_warn("%s cannot be written and lacks records from here on: %s", f->path,
                 strerror(error));
    f->failed = !written;
}

void log_file_close(LogFile *f) {
    if (f->fd != -1) close(f->fd);
    free(f->path);
    *f = (LogFile){.fd = -1};
}
