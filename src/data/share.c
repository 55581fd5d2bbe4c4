#include "data/share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

enum {
    HEADER = 4096,       /* so that the data start on a page */
    SMALLEST = 64 << 10, /* bytes worth a file, a descriptor and a lock */
};

typedef struct {
    char name[HEADER - 16]; /* in full: the file's name is only its hash */
    int64_t bytes;
    int64_t complete; /* 1 after the data are all there */
} Header;
_Static_assert(sizeof(Header) == HEADER, "one page");

struct Share {
    char *path;
    int fd;    /* locked (shared) as long as it is used; -1: private memory */
    char *map; /* header and data; NULL: private memory */
    void *data;
    int64_t bytes;
    Share *next; /* of this process's files */
};

static Share *open_shares; /* that have a file */
static pthread_mutex_t open_shares_mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t hash(const char *text) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* After a crash of the machine a file may claim to be complete and not be: it then has another
 * boot's name. */
static void append_boot(StrBuf *name) {
    char id[BOOT_ID_SIZE];
    file_boot_id(id);
    strbuf_printf(name, " boot %s", id);
}

static int lock(int fd, int how) {
    int rc;
    do rc = flock(fd, how);
    while (rc != 0 && errno == EINTR);
    return rc;
}

/* Opens and locks; a file that its last user deleted meanwhile is opened anew. 0 or an errno. */
static int open_locked(Share *s, int how) {
    for (;;) {
        struct stat info;
        s->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (s->fd < 0) return errno;
        if (fstat(s->fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid())
            return EPERM; /* somebody else's */
        if (lock(s->fd, how) != 0 || fstat(s->fd, &info) != 0) return errno;
        if (info.st_nlink > 0) return 0;
        close(s->fd);
    }
}

static const char *temporary_folder(void) {
    const char *folder = getenv("TMPDIR");
    return folder != NULL && folder[0] != '\0' ? folder : "/tmp";
}

/* Is this file, open as fd, one of ours that no process uses? Then it is locked. */
static bool is_abandoned(int fd) {
    struct stat info;
    return fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid() &&
           lock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* Deletes what processes of this user that were killed have left. A process that is just opening
 * one of these files finds it deleted and makes another. */
static void delete_abandoned(void) {
    char *prefix = mem_printf("cria-%lld-", (long long)geteuid());
    DIR *folder = opendir(temporary_folder());
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
        int fd = openat(dirfd(folder), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (is_abandoned(fd)) unlinkat(dirfd(folder), e->d_name, 0);
        if (fd >= 0) close(fd);
    }
    if (folder != NULL) closedir(folder);
    free(prefix);
}

static int map_file(Share *s) {
    struct stat info;
    int64_t total = HEADER + s->bytes;
    void *map;
    if (fstat(s->fd, &info) != 0) return errno;
    bool create = info.st_size != total; /* new, or left by a process that died here */
    if (create && ftruncate(s->fd, 0) != 0) return errno;
    int error = file_map_shared(s->fd, total, create, &map);
    if (error != 0) return error;
    s->map = map;
    s->data = s->map + HEADER;
    return 0;
}

static bool is_complete(const Share *s, const char *name) {
    struct stat info;
    Header h;
    if (fstat(s->fd, &info) != 0 || info.st_size != HEADER + s->bytes) return false;
    if (pread(s->fd, &h, sizeof h, 0) != sizeof h) return false;
    return h.complete == 1 && h.bytes == s->bytes && strncmp(h.name, name, sizeof h.name) == 0;
}

/* Returns with a shared lock on complete data, or with the only lock (*fills) on a file to fill.
 * Must not wait for the only lock: who has filled keeps a shared one as long as it runs. 0 or an
 * errno. */
static int take_lock(Share *s, const char *name, bool *fills) {
    for (;;) {
        int error = open_locked(s, LOCK_SH); /* waits for a process that is filling */
        *fills = error == 0 && !is_complete(s, name);
        if (!*fills) return error;
        close(s->fd);
        error = open_locked(s, LOCK_EX | LOCK_NB);
        if (error == 0) *fills = !is_complete(s, name);
        if (error != EWOULDBLOCK) return error;
        close(s->fd);
        usleep(1000); /* others are where this one is, or one of them has begun to fill */
    }
}

static Status fill_file(Share *s, const char *name, Status (*fill)(void *ctx, void *data),
                        void *ctx) {
    REQUIRE(s->map != NULL);
    Header *h = (Header *)(void *)s->map;
    memset(s->map, 0, (size_t)(HEADER + s->bytes));
    Status st = fill(ctx, s->data);
    memcpy(h->name, name, strlen(name) + 1);
    h->bytes = s->bytes;
    h->complete = st == OK;
    return st;
}

/* 0 when s holds the shared data; an errno when it cannot, with nothing held. *st is what fill
 * said. */
static int share(Share *s, const char *name, Status (*fill)(void *ctx, void *data), void *ctx,
                 Status *st) {
    bool fills;
    int error = take_lock(s, name, &fills);
    if (error == 0 && fills) delete_abandoned();
    if (error == 0) error = map_file(s);
    if (error == 0 && fills) *st = fill_file(s, name, fill, ctx);
    if (error == 0) {
        lock(s->fd, LOCK_SH);
        mprotect(s->map, (size_t)(HEADER + s->bytes), PROT_READ);
    } else if (s->fd >= 0) {
        if (error == ENOSPC) unlink(s->path);
        close(s->fd);
        s->fd = -1;
    }
    return error;
}

static void add_to_list(Share *s) {
    pthread_mutex_lock(&open_shares_mutex);
    s->next = open_shares;
    open_shares = s;
    pthread_mutex_unlock(&open_shares_mutex);
}

static void remove_from_list(const Share *s) {
    pthread_mutex_lock(&open_shares_mutex);
    for (Share **at = &open_shares; *at != NULL; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_mutex_unlock(&open_shares_mutex);
}

Status share_open(Share **out, const char *what, int64_t bytes,
                  Status (*fill)(void *ctx, void *data), void *ctx) {
    Share *s = NEW(Share, 1);
    StrBuf name = {0};
    Status st = OK;
    *s = (Share){.fd = -1, .bytes = bytes};
    strbuf_printf(&name, "%s %lld bytes", what, (long long)bytes);
    append_boot(&name);
    s->path = mem_printf("%s/cria-%lld-%016llx", temporary_folder(), (long long)geteuid(),
                         (unsigned long long)hash(strbuf_text(&name)));
    int error = E2BIG;
    if (bytes >= SMALLEST && name.len < sizeof((Header *)0)->name)
        error = share(s, name.text, fill, ctx, &st);
    if (error != 0) {
        if (bytes >= SMALLEST)
            log_warn("cannot share %lld MB through %s (%s): every rank makes its own",
                     (long long)(bytes >> 20), s->path, strerror(error));
        s->data = NEW(char, bytes);
        st = fill(ctx, s->data);
    }
    strbuf_free(&name);
    if (s->map != NULL) add_to_list(s);
    if (st != OK) {
        share_close(s);
        s = NULL;
    }
    *out = s;
    return st;
}

const void *share_data(const Share *s) {
    return s->data;
}

/* Of a file of this path that another process has made meanwhile it is not. */
static void unlink_file(const Share *s) {
    struct stat mine, there;
    if (fstat(s->fd, &mine) == 0 && stat(s->path, &there) == 0 && mine.st_dev == there.st_dev &&
        mine.st_ino == there.st_ino)
        unlink(s->path);
}

void share_unlink_all(void) {
    pthread_mutex_lock(&open_shares_mutex);
    for (const Share *s = open_shares; s != NULL; s = s->next) unlink_file(s);
    pthread_mutex_unlock(&open_shares_mutex);
}

void share_close(Share *s) {
    if (s == NULL) return;
    if (s->map != NULL) {
        remove_from_list(s);
        munmap(s->map, (size_t)(HEADER + s->bytes));
        if (lock(s->fd, LOCK_EX | LOCK_NB) == 0) unlink_file(s); /* nobody else uses it */
        close(s->fd);
    } else {
        free(s->data);
    }
    free(s->path);
    free(s);
}
