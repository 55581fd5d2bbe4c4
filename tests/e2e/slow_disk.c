/* Preloaded by saves_beside_training.sh: a disk and a host with troubles. While the file that
 * DISK_TROUBLE names exists, what is written to checkpoints that are not complete yet
 *   DISK_MODE=hold        waits, after DISK_AFTER writes of the process
 *   DISK_MODE=nap         takes 0.3 s a write
 *   DISK_MODE=full        does not fit, on the rank DISK_RANK
 *   DISK_MODE=sync        cannot be brought to disk there
 * and with DISK_MODE=memory the host has 1 MB to spare. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

static int in_trouble(const char *mode) {
    return strcmp(setting("DISK_MODE", ""), mode) == 0 &&
           access(setting("DISK_TROUBLE", "/none"), F_OK) == 0;
}

static int on_rank(void) {
    const char *rank = setting("PMI_RANK", setting("OMPI_COMM_WORLD_RANK", "0"));
    return strcmp(rank, setting("DISK_RANK", "0")) == 0;
}

static int is_unfinished(int fd) {
    static const char end[] = ".safetensors.tmp";
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < (ssize_t)strlen(end)) return 0;
    path[n] = '\0';
    return strcmp(path + n - strlen(end), end) == 0;
}

static void nap(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset) {
    static int writes;
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    if (is_unfinished(fd)) {
        if (++writes > atoi(setting("DISK_AFTER", "0")))
            while (in_trouble("hold")) nap(5);
        if (in_trouble("nap")) nap(300);
        if (on_rank() && in_trouble("full")) {
            errno = ENOSPC;
            return -1;
        }
    }
    return real(fd, buf, n, offset);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (is_unfinished(fd) && on_rank() && in_trouble("sync")) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

FILE *fopen(const char *path, const char *mode) {
    static char meminfo[] = "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n";
    FILE *(*real)(const char *, const char *) =
        (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
    if (strcmp(path, "/proc/meminfo") == 0 && in_trouble("memory"))
        return fmemopen(meminfo, strlen(meminfo), "r");
    return real(path, mode);
}
