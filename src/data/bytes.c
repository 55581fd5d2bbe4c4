#include "data/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data/gzip.h"
#include "base/file.h"
#include "base/text.h"

struct ByteFile {
    char *path;
    int fd;
    struct stat info;
    int64_t disk; /* bytes of the file */
    uint32_t fingerprint;
    bool is_gzip;
    Gzip *gzip; /* NULL: plain, or not indexed */
    unsigned char head[BYTES_HEAD];
    int64_t head_bytes;
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
        return status_fail(file_open_status(errno), "cannot open token file %s: %s%s", f->path,
                           strerror(errno),
                           errno == ENOENT ? "; scripts/prepare.py makes token files of texts "
                                             "(data/README.md)"
                                           : "");
    if (fstat(f->fd, &f->info) != 0)
        return status_fail(ERR_ENV, "cannot stat token file %s: %s", f->path, strerror(errno));
    if (!S_ISREG(f->info.st_mode))
        return status_fail(ERR_USER, "%s is %s, but a token file is expected", f->path,
                           S_ISDIR(f->info.st_mode) ? "a directory" : "not a regular file");
    if (f->info.st_size == 0)
        return status_fail(ERR_USER, "token file %s is empty (0 bytes)", f->path);
    f->disk = f->info.st_size;
    return OK;
}

static Status read_file(const ByteFile *f, int64_t offset, int64_t n, void *out) {
    int error = file_read_at(f->fd, out, n, offset);
    if (error == 0) return OK;
    if (error != FILE_ENDS)
        return status_fail(ERR_ENV, "cannot read %s at byte %lld: %s", f->path, (long long)offset,
                           strerror(error));
    struct stat info = {0};
    fstat(f->fd, &info);
    return status_fail(ERR_ENV,
                       "token file %s shrank from %lld to %lld bytes while in use; restore it and "
                       "resume",
                       f->path, (long long)f->disk, (long long)info.st_size);
}

/* Both ends, where preparation scripts differ first, and blocks spread over the rest. */
static Status sample_contents(ByteFile *f) {
    enum { END = 65536, BLOCK = 4096, BLOCKS = 16 };
    const char *base = file_name(f->path);
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

/* Ids 35615 and 8 begin like gzip, too: only what inflates is taken for it. */
static Status read_head(ByteFile *f, bool raw) {
    enum { COMPRESSED = 65536 };
    unsigned char first[COMPRESSED];
    int64_t n = i64_min(f->disk, COMPRESSED);
    CHECK(read_file(f, 0, n, first));
    f->head_bytes = i64_min(n, BYTES_HEAD);
    memcpy(f->head, first, (size_t)f->head_bytes);
    if (!gzip_has_magic(first, n)) return OK;
    unsigned char head[BYTES_HEAD];
    int64_t inflated = gzip_inflate_head(first, n, head, BYTES_HEAD);
    if (inflated < 0 && raw && !text_ends_with(f->path, ".gz")) return OK;
    f->is_gzip = true;
    f->head_bytes = i64_max(0, inflated);
    memcpy(f->head, head, (size_t)f->head_bytes);
    return OK;
}

Status bytes_open(ByteFile **out, const char *path, bool raw) {
    ByteFile *f = NEW(ByteFile, 1);
    f->path = mem_strdup(path);
    f->fd = -1;
    Status st = open_file(f);
    if (st == OK) st = sample_contents(f);
    if (st == OK) st = read_head(f, raw);
    if (st != OK) {
        bytes_close(f);
        f = NULL;
    }
    *out = f;
    return st;
}

Status bytes_index(ByteFile *f) {
    if (!f->is_gzip || f->gzip != NULL) return OK;
    Status st = gzip_open(&f->gzip, f->fd, f->path, f->disk, f->fingerprint);
    if (st == ERR_USER && !text_ends_with(f->path, ".gz"))
        status_suffix("; if it holds raw uint16 ids that only begin like gzip, set data.format "
                      "nanogpt");
    CHECK(st);
    if (gzip_size(f->gzip) == 0)
        return status_fail(ERR_USER, "token file %s is empty when decompressed", f->path);
    return OK;
}

void bytes_close(ByteFile *f) {
    if (f == NULL) return;
    gzip_close(f->gzip);
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f);
}

const char *bytes_path(const ByteFile *f) {
    return f->path;
}
bool bytes_is_gzip(const ByteFile *f) {
    return f->is_gzip;
}
const unsigned char *bytes_head(const ByteFile *f, int64_t *n) {
    *n = f->head_bytes;
    return f->head;
}
int64_t bytes_size(const ByteFile *f) {
    REQUIRE(!f->is_gzip || f->gzip != NULL);
    return f->is_gzip ? gzip_size(f->gzip) : f->disk;
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

bool bytes_modified(const ByteFile *f) {
    struct stat now;
    if (fstat(f->fd, &now) != 0) return false;
    return now.st_size != f->info.st_size || now.st_mtim.tv_sec != f->info.st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != f->info.st_mtim.tv_nsec;
}

void bytes_identify(const ByteFile *f, StrBuf *out) {
    strbuf_printf(out, "file %llx:%llx of %lld bytes, changed %lld.%09ld, %08x",
                  (unsigned long long)f->info.st_dev, (unsigned long long)f->info.st_ino,
                  (long long)f->disk, (long long)f->info.st_mtim.tv_sec,
                  (long)f->info.st_mtim.tv_nsec, f->fingerprint);
}
