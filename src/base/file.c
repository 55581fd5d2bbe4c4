#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/progress.h"

/* One read or write is at most this long: it is still in cache when its CRC is computed. */
enum { BLOCK = 4 << 20 };

Status file_open_status(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO: /* a socket, or a FIFO without a reader */
    case EINVAL:
        return ERR_USER;
    default:
        return ERR_ENV;
    }
}

Status file_open(const char *path, int *fd) {
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return status_fail(file_open_status(errno), "cannot open %s: %s", path, strerror(errno));
    Status st = OK;
    if (fstat(*fd, &info) != 0)
        st = status_fail(ERR_ENV, "cannot stat %s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        st = status_fail(ERR_USER, "%s is %s, expected a file", path,
                         S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    if (st == OK) return OK;
    close(*fd);
    *fd = -1;
    return st;
}

Status file_create_status(int error) {
    bool mistake = error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG || error == ELOOP ||
                   error == EISDIR;
    return mistake ? ERR_USER : ERR_ENV;
}

/* ---- whole files ----------------------------------------------------------------------------- */

/* A FIFO has a name in a folder; a pipe of the shell has none. */
static bool is_anonymous_pipe(int fd) {
    char link[64], target[16] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, target, sizeof target - 1) > 0 && strncmp(target, "pipe:[", 6) == 0;
}

/* Opened with O_NONBLOCK: is it of a kind that ends and does not wait for a writer that may never
 * come? */
static Status check_kind(int fd, const char *path, const char *what) {
    struct stat info;
    if (fstat(fd, &info) != 0)
        return status_fail(ERR_ENV, "%s: cannot stat %s: %s", path, what, strerror(errno));
    if (S_ISREG(info.st_mode)) return OK;
    if (S_ISFIFO(info.st_mode) && is_anonymous_pipe(fd)) {
        if (fcntl(fd, F_SETFL, 0) == 0) return OK; /* read waits for the command behind it */
        return status_fail(ERR_ENV, "%s: cannot read %s: %s", path, what, strerror(errno));
    }
    return status_fail(ERR_USER, "%s: cannot read %s: it is %s, expected a regular file", path,
                       what,
                       S_ISDIR(info.st_mode)    ? "a directory"
                       : S_ISFIFO(info.st_mode) ? "a FIFO"
                                                : "a device or socket");
}

static Status read_to_end(int fd, StrBuf *text, const char *path, const char *what, int64_t limit) {
    char block[65536];
    int64_t left = limit;
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return status_fail(ERR_ENV, "%s: cannot read %s: %s", path, what, strerror(errno));
        if (n == 0) return OK;
        if ((left -= n) < 0)
            return status_fail(ERR_USER, "%s: found more than %lld bytes, expected %s", path,
                               (long long)limit, what);
        strbuf_append(text, block, (size_t)n);
    }
}

Status file_read_all(StrBuf *text, const char *path, const char *what, int64_t limit) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return status_fail(file_open_status(errno), "%s: cannot open %s: %s", path, what,
                           strerror(errno));
    Status st = check_kind(fd, path, what);
    if (st == OK) st = read_to_end(fd, text, path, what, limit);
    close(fd);
    return st;
}

bool file_is_lfs_pointer(const char *bytes, int64_t n) {
    static const char start[] = "version https://git-lfs.github.com/";
    const int64_t len = (int64_t)sizeof start - 1;
    return n >= len && memcmp(bytes, start, (size_t)len) == 0;
}

Status file_lfs_fail(const char *path) {
    return status_fail(ERR_USER,
                       "%s is a Git LFS pointer, not the file itself: run `git lfs pull` in its "
                       "folder, or download it again",
                       path);
}

/* ---- transfers ------------------------------------------------------------------------------- */

int64_t file_read_some(int fd, void *dst, int64_t n, int64_t offset) {
    ssize_t got;
    do got = pread(fd, dst, (size_t)i64_min(n, BLOCK), (off_t)offset);
    while (got < 0 && errno == EINTR);
    progress_note();
    return got;
}

int file_read_at(int fd, void *dst, int64_t n, int64_t offset) {
    for (int64_t done = 0, got; done < n; done += got) {
        got = file_read_some(fd, (char *)dst + done, n - done, offset + done);
        if (got <= 0) return got == 0 ? FILE_ENDS : errno;
    }
    return 0;
}

int file_write_at(int fd, const void *src, int64_t n, int64_t offset) {
    for (int64_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const char *)src + done, (size_t)i64_min(n - done, BLOCK),
                             (off_t)(offset + done));
        if (put == 0) return EIO; /* never for n > 0 on a sane file system, but would loop */
        if (put < 0 && errno != EINTR) return errno;
        if (put > 0) done += put;
    }
    return 0;
}

/* Writes src, or, where that is NULL, reads into dst, or nowhere where that is NULL, too. */
static int transfer(int fd, const char *src, char *dst, int64_t n, int64_t offset, uint32_t *crc) {
    int64_t blocks = ceil_div(n, BLOCK);
    uint32_t *crcs = NEW(uint32_t, blocks);
    int *errors = NEW(int, blocks), error = 0;
#pragma omp parallel if (blocks > 1)
    {
        char *buf = src == NULL && dst == NULL ? NEW(char, i64_min(n, BLOCK)) : NULL;
#pragma omp for schedule(static, 1)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t begin = b * BLOCK, len = i64_min(n - begin, BLOCK);
            char *into = dst != NULL ? dst + begin : buf;
            const char *bytes = src != NULL ? src + begin : into;
            errors[b] = src != NULL ? file_write_at(fd, bytes, len, offset + begin)
                                    : file_read_at(fd, into, len, offset + begin);
            crcs[b] = (uint32_t)crc32_z(0, (const Bytef *)bytes, (size_t)len);
        }
        free(buf);
    }
    *crc = 0;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t len = i64_min(n - b * BLOCK, BLOCK);
        *crc = (uint32_t)crc32_combine(*crc, crcs[b], len);
        if (error == 0) error = errors[b];
    }
    free(crcs);
    free(errors);
    return error;
}

int file_read_crc(int fd, void *dst, int64_t n, int64_t offset, uint32_t *crc) {
    return transfer(fd, NULL, dst, n, offset, crc);
}

int file_write_crc(int fd, const void *src, int64_t n, int64_t offset, uint32_t *crc) {
    REQUIRE(src != NULL || n == 0);
    return transfer(fd, src != NULL ? src : "", NULL, n, offset, crc);
}

int file_write_atomic(const char *path, const void *bytes, int64_t n) {
    char *tmp = mem_printf("%s.tmp", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    int error = fd < 0 ? errno : file_commit(fd, tmp, path, file_write_at(fd, bytes, n, 0));
    free(tmp);
    return error;
}

int file_commit(int fd, const char *tmp, const char *path, int error) {
    if (error == 0 && fsync(fd) != 0) error = errno;
    if (close(fd) != 0 && error == 0) error = errno;
    if (error == 0 && rename(tmp, path) != 0) error = errno;
    if (error == 0) return file_sync_parent(path);
    unlink(tmp);
    return error;
}

Status file_write_text(const char *path, const StrBuf *text, const char *what) {
    FILE *f = fopen(path, "w");
    Status failure = f == NULL ? file_create_status(errno) : ERR_ENV;
    bool written = f != NULL && fwrite(strbuf_text(text), 1, text->len, f) == text->len;
    if (f != NULL) written = fclose(f) == 0 && written;
    if (written) return OK;
    return status_fail(failure, "cannot write %s %s: %s", what, path, strerror(errno));
}

const char *file_error(int error) {
    return error == FILE_ENDS ? "the file ends early" : strerror(error);
}

const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

char *file_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return mem_strdup(".");
    return mem_printf("%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int file_sync_parent(const char *path) {
    char *dir = file_parent(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) close(fd);
    free(dir);
    return error == EINVAL ? 0 : error; /* a file system whose directories cannot be synced */
}

/* ---- shared memory --------------------------------------------------------------------------- */

int file_map_shared(int fd, int64_t bytes, bool reserve, void **memory) {
    int error = reserve ? posix_fallocate(fd, 0, (off_t)bytes) : 0;
    if (error != 0) return error;
    void *map = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return errno;
    *memory = map;
    return 0;
}

void file_boot_id(char id[BOOT_ID_SIZE]) {
    memset(id, 0, BOOT_ID_SIZE);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, id, BOOT_ID_SIZE - 1) != BOOT_ID_SIZE - 1) id[0] = '\0';
    if (fd >= 0) close(fd);
}
