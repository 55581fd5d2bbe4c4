#include "data/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data/gzip.h"
#include "data/share.h"
#include "file.h"

struct ByteFile {
    char *path;
    int fd;
    int64_t disk; /* bytes of the file */
    uint32_t fingerprint;
    Gzip *gzip;               /* NULL: plain */
    const unsigned char *map; /* plain, after bytes_map */
    Share *inflated;          /* gzip, after bytes_map */
};

/* A corpus of a thousand shards needs more than the usual 1,024 descriptors. */
static bool raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static Status open_file(ByteFile *f) {
    /* O_NONBLOCK: opening a FIFO by mistake must not hang */
    enum { FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK };
    f->fd = open(f->path, FLAGS);
    if (f->fd < 0 && errno == EMFILE && raise_file_limit()) f->fd = open(f->path, FLAGS);
    if (f->fd < 0)
        return status_fail(file_open_status(errno), "cannot open token file %s: %s", f->path,
                           strerror(errno));
    struct stat info;
    if (fstat(f->fd, &info) != 0)
        return status_fail(ERR_ENV, "cannot stat token file %s: %s", f->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_fail(ERR_USER, "%s is %s, but a token file is expected", f->path,
                           S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    if (info.st_size == 0)
        return status_fail(ERR_USER, "token file %s is empty (0 bytes)", f->path);
    f->disk = info.st_size;
    return OK;
}

static Status read_file(const ByteFile *f, int64_t offset, int64_t n, void *out) {
    for (int64_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (char *)out + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno != EINTR)
            return status_fail(ERR_ENV, "cannot read %s at byte %lld: %s", f->path,
                               (long long)(offset + done), strerror(errno));
        if (got == 0) {
            struct stat info = {0};
            fstat(f->fd, &info);
            return status_fail(ERR_ENV,
                               "token file %s shrank from %lld to %lld bytes while in use; restore "
                               "it and resume",
                               f->path, (long long)f->disk, (long long)info.st_size);
        }
        if (got > 0) done += got;
    }
    return OK;
}

/* Both ends, where preparation scripts differ first, and blocks spread over the rest. */
static Status sample_contents(ByteFile *f) {
    enum { END = 65536, BLOCK = 4096, BLOCKS = 16 };
    const char *slash = strrchr(f->path, '/'), *base = slash != NULL ? slash + 1 : f->path;
    uLong crc = crc32(0, (const Bytef *)base, (uInt)strlen(base));
    crc = crc32(crc, (const Bytef *)&f->disk, sizeof f->disk);
    int64_t end = i64_min(END, f->disk), block = i64_min(BLOCK, f->disk);
    unsigned char buf[END];
    for (int64_t i = 0; i < BLOCKS + 2; i++) {
        bool is_end = i == 0 || i == BLOCKS + 1;
        int64_t n = is_end ? end : block;
        int64_t at = i == 0 ? 0 : is_end ? f->disk - end : (f->disk - block) / BLOCKS * (i - 1);
        CHECK(read_file(f, at, n, buf));
        crc = crc32(crc, buf, (uInt)n);
    }
    f->fingerprint = (uint32_t)crc;
    return OK;
}

static Status open_content(ByteFile *f) {
    unsigned char head[3] = {0};
    CHECK(open_file(f));
    CHECK(sample_contents(f));
    CHECK(read_file(f, 0, i64_min(3, f->disk), head));
    if (head[0] != 0x1f || head[1] != 0x8b || head[2] != 8) return OK;
    CHECK(gzip_open(&f->gzip, f->fd, f->path, f->disk, f->fingerprint));
    if (gzip_size(f->gzip) == 0)
        return status_fail(ERR_USER, "token file %s is empty when decompressed", f->path);
    return OK;
}

Status bytes_open(ByteFile **out, const char *path) {
    ByteFile *f = NEW(ByteFile, 1);
    f->path = mem_strdup(path);
    f->fd = -1;
    Status st = open_content(f);
    if (st != OK) {
        bytes_close(f);
        f = NULL;
    }
    *out = f;
    return st;
}

void bytes_close(ByteFile *f) {
    if (f == NULL) return;
    if (f->map != NULL) munmap((void *)(uintptr_t)f->map, (size_t)f->disk);
    share_close(f->inflated);
    gzip_close(f->gzip);
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f);
}

const char *bytes_path(const ByteFile *f) {
    return f->path;
}
int64_t bytes_size(const ByteFile *f) {
    return f->gzip != NULL ? gzip_size(f->gzip) : f->disk;
}
bool bytes_is_gzip(const ByteFile *f) {
    return f->gzip != NULL;
}
uint32_t bytes_fingerprint(const ByteFile *f) {
    return f->fingerprint;
}
int64_t bytes_on_disk(const ByteFile *f) {
    return f->disk;
}

Status bytes_read(const ByteFile *f, int64_t offset, int64_t n, void *out) {
    REQUIRE(offset >= 0 && n >= 0 && n <= bytes_size(f) - offset);
    return f->gzip != NULL ? gzip_read(f->gzip, offset, n, out) : read_file(f, offset, n, out);
}

static Status inflate_all(void *ctx, void *data) {
    const ByteFile *f = ctx;
    return gzip_read(f->gzip, 0, gzip_size(f->gzip), data);
}

Status bytes_map(ByteFile *f, const unsigned char **data) {
    if (f->gzip != NULL && f->inflated == NULL) {
        char *name =
            mem_printf("inflated %s %lld %08x", f->path, (long long)f->disk, f->fingerprint);
        Status st = share_open(&f->inflated, name, gzip_size(f->gzip), inflate_all, f);
        free(name);
        CHECK(st);
    } else if (f->gzip == NULL && f->map == NULL) {
        void *map = mmap(NULL, (size_t)f->disk, PROT_READ, MAP_SHARED, f->fd, 0);
        if (map == MAP_FAILED)
            return status_fail(ERR_ENV, "cannot map %s (%lld bytes): %s", f->path,
                               (long long)f->disk, strerror(errno));
        f->map = map;
    }
    *data = f->gzip != NULL ? share_data(f->inflated) : f->map;
    return OK;
}

void bytes_map_release(const ByteFile *f) {
    if (f->map != NULL) madvise((void *)(uintptr_t)f->map, (size_t)f->disk, MADV_DONTNEED);
}
