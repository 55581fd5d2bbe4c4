#include "data/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"

enum { BLOCK = 1 << 20 };

struct OutFile {
    char *path, *temporary;
    int fd;
    bool gzip, committed;
    int64_t header, size; /* bytes; of the file so far */
    unsigned char *buf;   /* [blocks * BLOCK] */
    int64_t blocks, filled;
    unsigned char **packed; /* [blocks], gzip: a compressed block each */
    int64_t *packed_bytes;
};

static Status failed(const OutFile *f, const char *what, int error) {
    return status_fail(ERR_ENV, "cannot %s %s: %s%s", what, f->temporary, strerror(error),
                       error == ENOSPC ? "; make room and run the command again" : "");
}

static Status write_at(const OutFile *f, const void *data, int64_t n, int64_t offset) {
    int error = file_write_at(f->fd, data, n, offset);
    return error == 0 ? OK : failed(f, "write", error);
}

static Status append(OutFile *f, const void *data, int64_t n) {
    CHECK(write_at(f, data, n, f->size));
    f->size += n;
    return OK;
}

/* One gzip member. Stored (level 0), its size depends on n alone. */
static int64_t pack(const void *data, int64_t n, int level, unsigned char **out) {
    z_stream z = {0};
    REQUIRE(deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    uLong most = deflateBound(&z, (uLong)n);
    *out = mem_grow(*out, (int64_t)most, 1);
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)n;
    z.next_out = *out;
    z.avail_out = (uInt)most;
    REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
    int64_t bytes = (int64_t)(most - z.avail_out);
    deflateEnd(&z);
    return bytes;
}

Status outfile_header(OutFile *f, const void *data) {
    unsigned char *member = NULL;
    int64_t n = f->gzip ? pack(data, f->header, 0, &member) : f->header;
    Status st = write_at(f, f->gzip ? member : data, n, 0);
    free(member);
    f->size = i64_max(f->size, n);
    return st;
}

static Status open_temporary(OutFile *f, bool replace) {
    struct stat info;
    if (stat(f->path, &info) == 0 && S_ISDIR(info.st_mode))
        return status_fail(ERR_USER, "%s is a directory; choose another --out", f->path);
    if (!replace && access(f->path, F_OK) == 0)
        return status_fail(ERR_USER, "%s exists; delete it, choose another --out, or say --force",
                           f->path);
    f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (f->fd < 0)
        return status_fail(file_create_status(errno), "cannot make %s: %s", f->temporary,
                           strerror(errno));
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(f->fd);
        f->fd = -1; /* so that it is not deleted */
        return status_fail(ERR_USER, "%s is being written by another process", f->temporary);
    }
    if (ftruncate(f->fd, 0) != 0) return failed(f, "write", errno);
    if (f->header == 0) return OK;
    char *zeros = NEW(char, f->header);
    Status st = outfile_header(f, zeros);
    free(zeros);
    return st;
}

Status outfile_open(OutFile **out, const char *path, int64_t header, bool gzip, bool replace) {
    OutFile *f = NEW(OutFile, 1);
    *f = (OutFile){.path = mem_printf("%s%s", path, gzip ? ".gz" : ""),
                   .fd = -1,
                   .gzip = gzip,
                   .header = header,
                   .blocks = gzip ? 2 * omp_get_max_threads() : 1};
    f->temporary = mem_printf("%s.tmp", f->path);
    f->buf = NEW(unsigned char, f->blocks *BLOCK);
    f->packed = NEW(unsigned char *, f->blocks);
    f->packed_bytes = NEW(int64_t, f->blocks);
    Status st = open_temporary(f, replace);
    if (st != OK) {
        outfile_free(f);
        f = NULL;
    }
    *out = f;
    return st;
}

static Status flush(OutFile *f) {
    int64_t n = ceil_div(f->filled, BLOCK);
    if (!f->gzip) {
        CHECK(append(f, f->buf, f->filled));
    } else {
#pragma omp parallel for schedule(dynamic, 1)
        for (int64_t b = 0; b < n; b++)
            f->packed_bytes[b] =
                pack(f->buf + b * BLOCK, i64_min(BLOCK, f->filled - b * BLOCK), 6, &f->packed[b]);
        for (int64_t b = 0; b < n; b++) CHECK(append(f, f->packed[b], f->packed_bytes[b]));
    }
    f->filled = 0;
    return OK;
}

Status outfile_write(OutFile *f, const void *data, int64_t n) {
    while (n > 0) {
        int64_t part = i64_min(n, f->blocks * BLOCK - f->filled);
        memcpy(f->buf + f->filled, data, (size_t)part);
        f->filled += part;
        data = (const char *)data + part;
        n -= part;
        if (f->filled == f->blocks * BLOCK) CHECK(flush(f));
    }
    return OK;
}

Status outfile_finish(OutFile *f) {
    CHECK(flush(f));
    return fsync(f->fd) == 0 ? OK : failed(f, "write", errno);
}

Status outfile_commit(OutFile *f) {
    if (rename(f->temporary, f->path) != 0) return failed(f, "rename", errno);
    f->committed = true;
    return OK;
}

const char *outfile_path(const OutFile *f) {
    return f->path;
}

void outfile_free(OutFile *f) {
    if (f == NULL) return;
    if (f->fd >= 0 && !f->committed) unlink(f->temporary);
    if (f->fd >= 0) close(f->fd);
    for (int64_t b = 0; b < f->blocks; b++) free(f->packed[b]);
    free(f->packed);
    free(f->packed_bytes);
    free(f->buf);
    free(f->path);
    free(f->temporary);
    free(f);
}
