/* clang-format off */
/* shared_storage.c: a folder as storage that hosts share, by FUSE, with the troubles of such storage.
 *
 *     shared_storage FOLDER TROUBLE MOUNTPOINT [options of FUSE]
 *
 * Two mounts of one FOLDER are two hosts. As on NFS a host keeps what it knows of names and attributes
 * (options entry_timeout, negative_timeout, attr_timeout), and the content of a file until it is opened again;
 * a host sees no lock of the other; no blocks can be reserved; with DELAYED set the bytes that are written to
 * checkpoints are sent at fsync or close, which then report what became of them.
 *
 * Files of the folder TROUBLE, which may come and go at any time:
 *   slow       holds a number: so many bytes a second are read and written, by all hosts together
 *   quota      holds a number: so many bytes can be written by a host from its mount on, then it is EDQUOT
 *   OPERATION  holds the name of the error with which it fails for checkpoints: create, open, read, write,
 *              truncate, fsync, flush (of close), rename, unlink */
/* clang-format on */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* An open file; what is written and kept. */
typedef struct Write {
    struct Write *next;
    off_t offset;
    size_t n;
    char bytes[];
} Write;
typedef struct {
    int fd;
    pthread_mutex_t lock;
    Write *first, **last;
} Handle;

static char *folder, *trouble;
static int delayed;
static pthread_mutex_t quota_lock = PTHREAD_MUTEX_INITIALIZER;
static long quota_used;

/* ---- troubles ----------------------------------------------------------------------------------
 */

/* The content of TROUBLE/NAME without its end of line; false: there is no such file. */
static int setting(const char *name, char value[32]) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", trouble, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    ssize_t n = read(fd, value, 31);
    close(fd);
    value[n > 0 ? n : 0] = '\0';
    value[strcspn(value, "\n")] = '\0';
    return n > 0;
}

/* 0, or the error, negative, that this operation is to have. */
static int fault(const char *operation, const char *path) {
    static const struct {
        const char *name;
        int value;
    } known[] = {{"EIO", EIO},
                 {"ENOSPC", ENOSPC},
                 {"EDQUOT", EDQUOT},
                 {"ESTALE", ESTALE},
                 {"EACCES", EACCES}};
    char value[32];
    if (strstr(path, ".safetensors") == NULL || !setting(operation, value)) return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, value) == 0) return -known[i].value;
    fprintf(stderr, "shared_storage: unknown error %s\n", value);
    return -EIO;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waits until the transfer's turn on the one line to the storage is over. A lock that both hosts
 * share keeps the time at which the line is free. */
static void transfer(size_t bytes) {
    char value[32], path[PATH_MAX];
    if (!setting("slow", value)) return;
    snprintf(path, sizeof path, "%s/.line", trouble);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return;
    double until = 0, begin = now();
    flock(fd, LOCK_EX);
    if (pread(fd, &until, sizeof until, 0) != sizeof until || until < begin) until = begin;
    until += (double)bytes / atof(value);
    if (pwrite(fd, &until, sizeof until, 0) != sizeof until) until = begin;
    close(fd);
    double left = until - now();
    if (left <= 0) return;
    nanosleep(&(struct timespec){(time_t)left, (long)(1e9 * (left - (double)(time_t)left))}, NULL);
}

static int over_quota(size_t bytes) {
    char value[32];
    if (!setting("quota", value)) return 0;
    pthread_mutex_lock(&quota_lock);
    int over = quota_used + (long)bytes > atol(value);
    if (!over) quota_used += (long)bytes;
    pthread_mutex_unlock(&quota_lock);
    return over;
}

/* ---- operations --------------------------------------------------------------------------------
 */

#define REAL(path)                                                                                 \
    char real[PATH_MAX];                                                                           \
    snprintf(real, sizeof real, "%s%s", folder, path)
#define RESULT(call) return (call) < 0 ? -errno : 0
#define FAULT(operation)                                                                           \
    do {                                                                                           \
        int error = fault(operation, path);                                                        \
        if (error != 0) return error;                                                              \
    } while (0)

static Handle *handle(const struct fuse_file_info *file) {
    return (Handle *)(uintptr_t)file->fh;
}

static int store(int fd, const char *path, const char *bytes, size_t n, off_t offset) {
    FAULT("write");
    if (over_quota(n)) return -EDQUOT;
    transfer(n);
    ssize_t put = pwrite(fd, bytes, n, offset);
    return put < 0 ? -errno : (int)put;
}
/* 0, or the first error of what was kept. */
static int send_kept(const char *path, Handle *h) {
    int error = 0;
    pthread_mutex_lock(&h->lock);
    for (Write *w; (w = h->first) != NULL; free(w)) {
        int put = error == 0 ? store(h->fd, path, w->bytes, w->n, w->offset) : 0;
        if (put < 0) error = put;
        h->first = w->next;
    }
    h->last = &h->first;
    pthread_mutex_unlock(&h->lock);
    return error;
}
static int do_getattr(const char *path, struct stat *out, struct fuse_file_info *file) {
    REAL(path);
    if (file != NULL) RESULT(fstat(handle(file)->fd, out));
    RESULT(lstat(real, out));
}
static int do_access(const char *path, int mode) {
    REAL(path);
    RESULT(access(real, mode));
}
static int do_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *file, enum fuse_readdir_flags flags) {
    (void)offset, (void)file, (void)flags;
    REAL(path);
    DIR *dir = opendir(real);
    if (dir == NULL) return -errno;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) fill(out, e->d_name, NULL, 0, 0);
    closedir(dir);
    return 0;
}
static int do_mkdir(const char *path, mode_t mode) {
    REAL(path);
    RESULT(mkdir(real, mode));
}
static int do_rmdir(const char *path) {
    REAL(path);
    RESULT(rmdir(real));
}
static int do_unlink(const char *path) {
    FAULT("unlink");
    REAL(path);
    RESULT(unlink(real));
}
static int do_rename(const char *from, const char *to, unsigned flags) {
    int error = fault("rename", from);
    if (error != 0) return error;
    REAL(from);
    char target[PATH_MAX];
    snprintf(target, sizeof target, "%s%s", folder, to);
    if (flags != 0) return -EINVAL;
    RESULT(rename(real, target));
}
static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *file) {
    (void)file;
    REAL(path);
    RESULT(chmod(real, mode));
}
static int do_utimens(const char *path, const struct timespec times[2],
                      struct fuse_file_info *file) {
    (void)file;
    REAL(path);
    RESULT(utimensat(AT_FDCWD, real, times, AT_SYMLINK_NOFOLLOW));
}
static int do_truncate(const char *path, off_t length, struct fuse_file_info *file) {
    FAULT("truncate");
    REAL(path);
    if (file != NULL) RESULT(ftruncate(handle(file)->fd, length));
    RESULT(truncate(real, length));
}
static int opened(const char *real, struct fuse_file_info *file, mode_t mode) {
    int fd = open(real, file->flags & ~O_NOFOLLOW, mode);
    if (fd < 0) return -errno;
    Handle *h = calloc(1, sizeof *h);
    h->fd = fd;
    h->last = &h->first;
    pthread_mutex_init(&h->lock, NULL);
    file->fh = (uint64_t)(uintptr_t)h;
    return 0;
}
static int do_open(const char *path, struct fuse_file_info *file) {
    FAULT("open");
    REAL(path);
    return opened(real, file, 0);
}
static int do_create(const char *path, mode_t mode, struct fuse_file_info *file) {
    FAULT("create");
    REAL(path);
    return opened(real, file, mode);
}
static int do_read(const char *path, char *out, size_t n, off_t offset,
                   struct fuse_file_info *file) {
    FAULT("read");
    transfer(n);
    ssize_t got = pread(handle(file)->fd, out, n, offset);
    return got < 0 ? -errno : (int)got;
}
static int do_write(const char *path, const char *bytes, size_t n, off_t offset,
                    struct fuse_file_info *file) {
    Handle *h = handle(file);
    /* Of checkpoints, whose length is known before they are written, and which nobody reads yet */
    if (!delayed || strstr(path, ".safetensors") == NULL)
        return store(h->fd, path, bytes, n, offset);
    Write *w = malloc(sizeof *w + n);
    *w = (Write){.offset = offset, .n = n};
    memcpy(w->bytes, bytes, n);
    pthread_mutex_lock(&h->lock);
    *h->last = w;
    h->last = &w->next;
    pthread_mutex_unlock(&h->lock);
    return (int)n;
}
static int do_flush(const char *path, struct fuse_file_info *file) {
    FAULT("flush");
    return send_kept(path, handle(file));
}
static int do_fsync(const char *path, int data_only, struct fuse_file_info *file) {
    (void)data_only;
    FAULT("fsync");
    int error = send_kept(path, handle(file));
    if (error != 0) return error;
    RESULT(fsync(handle(file)->fd));
}
static int do_release(const char *path, struct fuse_file_info *file) {
    (void)path;
    Handle *h = handle(file);
    while (h->first != NULL) { /* of a process that was killed */
        Write *next = h->first->next;
        free(h->first);
        h->first = next;
    }
    close(h->fd);
    free(h);
    return 0;
}
static int do_statfs(const char *path, struct statvfs *out) {
    REAL(path);
    RESULT(statvfs(real, out));
}

int main(int argc, char **argv) {
    static const struct fuse_operations operations = {.getattr = do_getattr,
                                                      .access = do_access,
                                                      .readdir = do_readdir,
                                                      .mkdir = do_mkdir,
                                                      .rmdir = do_rmdir,
                                                      .unlink = do_unlink,
                                                      .rename = do_rename,
                                                      .chmod = do_chmod,
                                                      .utimens = do_utimens,
                                                      .truncate = do_truncate,
                                                      .open = do_open,
                                                      .create = do_create,
                                                      .read = do_read,
                                                      .write = do_write,
                                                      .flush = do_flush,
                                                      .fsync = do_fsync,
                                                      .release = do_release,
                                                      .statfs = do_statfs};
    if (argc < 4) return 2;
    folder = argv[1];
    trouble = argv[2];
    delayed = getenv("DELAYED") != NULL;
    argv[2] = argv[0];
    return fuse_main(argc - 2, argv + 2, &operations, NULL);
}
