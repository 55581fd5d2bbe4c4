#include "data/gzip_index.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"

_Static_assert(sizeof(GzipPoint) == 32, "a point is written as it is");
_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "token files and indices are little-endian");

typedef struct {
    char magic[8];
    int64_t bytes; /* of the gzip file */
    int64_t size, n_points, window_bytes;
    uint32_t fingerprint, crc; /* of the gzip file; of all that follows */
} Header;
_Static_assert(sizeof(Header) == 48, "the header is written as it is");

static const char magic[8] = "CRIAGZ1\n";

/* ---- building ------------------------------------------------------------------------------ */

enum { CHUNK = 1 << 18, MOST_WINDOWS = 4096 };

typedef struct {
    GzipPoint point;
    unsigned char *window; /* compressed; NULL at the start of a member */
} NewPoint;

typedef struct {
    NewPoint *points;
    int64_t n, cap, n_windows;
    int64_t span; /* least distance between points that need a window */
} Builder;

static void add_point(Builder *b, NewPoint p) {
    GROW(b->points, b->n, b->cap);
    b->points[b->n++] = p;
    b->n_windows += p.window != NULL;
}

/* Keeps the windows of the largest files below 128 MiB: twice the span, half the windows. */
static void thin_out(Builder *b) {
    int64_t kept = 0, last = -b->span;
    b->span *= 2;
    b->n_windows = 0;
    for (int64_t i = 0; i < b->n; i++) {
        NewPoint *p = &b->points[i];
        if (p->window != NULL && p->point.out - last < b->span) {
            free(p->window);
            continue;
        }
        last = p->point.out;
        b->n_windows += p->window != NULL;
        b->points[kept++] = *p;
    }
    b->n = kept;
}

/* The last 32 KiB of output lie in a ring that ends at `filled`. */
static void add_window(Builder *b, GzipPoint point, const unsigned char *ring, size_t filled) {
    unsigned char straight[GZIP_WINDOW];
    size_t len = (size_t)i64_min(GZIP_WINDOW, point.out), old = GZIP_WINDOW - filled;
    memcpy(straight, ring + filled, old);
    memcpy(straight + old, ring, filled);
    uLongf packed = compressBound(GZIP_WINDOW);
    unsigned char *window = NEW(unsigned char, (int64_t)packed);
    REQUIRE(compress2(window, &packed, straight + GZIP_WINDOW - len, len, 1) == Z_OK);
    point.window_bytes = (uint32_t)packed;
    add_point(b, (NewPoint){point, mem_grow(window, (int64_t)packed, 1)});
    if (b->n_windows > MOST_WINDOWS) thin_out(b);
}

static Status damaged(const char *path, int64_t at, const char *what) {
    return status_fail(ERR_USER,
                       "%s is not a sound gzip file: %s at byte %lld; make it again, or fetch it "
                       "again if it is a copy",
                       path, what, (long long)at);
}

/* Some tapes and tools fill a file up with zeros, which gzip itself passes over. *at: the first
 * byte behind the zeros, or the end of the file. */
static Status skip_zeros(int fd, const char *path, int64_t bytes, int64_t *at) {
    unsigned char block[65536];
    while (*at < bytes) {
        int64_t n = file_read_some(fd, block, sizeof block, *at);
        if (n < 0) return status_fail(ERR_ENV, "cannot read %s: %s", path, strerror(errno));
        if (n == 0) return OK;
        for (int64_t i = 0; i < n; i++, (*at)++)
            if (block[i] != 0) return OK;
    }
    return OK;
}

static Status scan(Builder *b, z_stream *z, int fd, const char *path, int64_t bytes,
                   int64_t *size) {
    unsigned char *in = NEW(unsigned char, CHUNK), ring[GZIP_WINDOW] = {0};
    int64_t read_to = 0, out = 0, last = 0;
    bool inside = false; /* a member, after its first byte */
    Status st = OK;
    z->avail_out = 0;
    for (;;) {
        if (z->avail_in == 0) {
            int64_t got = file_read_some(fd, in, CHUNK, read_to);
            if (got < 0) {
                st = status_fail(ERR_ENV, "cannot read %s: %s", path, strerror(errno));
                break;
            }
            if (got == 0) {
                if (inside || read_to < bytes) st = damaged(path, read_to, "it ends early");
                break;
            }
            read_to += got;
            z->next_in = in;
            z->avail_in = (uInt)got;
        }
        int64_t at = read_to - z->avail_in;
        if (!inside && b->n > 0 && *z->next_in == 0) {
            int64_t end = at;
            st = skip_zeros(fd, path, bytes, &end);
            if (st != OK || end == bytes) break;
        }
        if (!inside) {
            inside = true;
            add_point(b, (NewPoint){.point = {.out = out, .in = at}});
            last = out;
        }
        if (z->avail_out == 0) {
            z->next_out = ring;
            z->avail_out = GZIP_WINDOW;
        }
        uInt room = z->avail_out;
        int rc = inflate(z, Z_BLOCK);
        out += room - z->avail_out;
        at = read_to - z->avail_in;
        if (rc == Z_STREAM_END) {
            inside = false;
            inflateReset(z);
        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            st = damaged(path, at, z->msg != NULL ? z->msg : "no gzip header");
            break;
        } else if ((z->data_type & 0xc0) == 0x80 && out - last >= b->span) {
            add_window(b, (GzipPoint){.out = out, .in = at, .bits = z->data_type & 7}, ring,
                       GZIP_WINDOW - z->avail_out);
            last = out;
        }
    }
    free(in);
    *size = out;
    return st;
}

Status gzip_index_build(GzipIndex *x, int fd, const char *path, int64_t bytes) {
    Builder b = {.span = 1 << 20};
    z_stream z = {0};
    *x = (GzipIndex){0};
    REQUIRE(inflateInit2(&z, 15 + 16) == Z_OK);
    Status st = scan(&b, &z, fd, path, bytes, &x->size);
    inflateEnd(&z);
    for (int64_t i = 0; i < b.n; i++) {
        b.points[i].point.window = x->window_bytes;
        x->window_bytes += b.points[i].point.window_bytes;
    }
    x->n_points = b.n;
    x->memory = NEW(char, b.n *(int64_t)sizeof(GzipPoint) + x->window_bytes);
    GzipPoint *points = x->memory;
    unsigned char *windows = (unsigned char *)(points + b.n);
    for (int64_t i = 0; i < b.n; i++) {
        const NewPoint *p = &b.points[i];
        points[i] = p->point;
        if (p->window != NULL) memcpy(windows + p->point.window, p->window, p->point.window_bytes);
        free(p->window);
    }
    free(b.points);
    x->points = points;
    x->windows = windows;
    if (st != OK) gzip_index_free(x);
    return st;
}

/* ---- the file ------------------------------------------------------------------------------ */

static bool points_are_sound(const GzipIndex *x, int64_t bytes) {
    int64_t windows = 0;
    if (x->n_points < 1 || x->points[0].out != 0) return false;
    for (int64_t i = 0; i < x->n_points; i++) {
        const GzipPoint *p = &x->points[i];
        int64_t least = i > 0 ? x->points[i - 1].out : 0;
        if (p->out < least || p->out > x->size || p->in < 0 || p->in > bytes) return false;
        if (p->window != windows || p->window_bytes > x->window_bytes - windows) return false;
        if (p->bits > 7 || (p->bits > 0 && p->in == 0)) return false;
        windows += p->window_bytes;
    }
    return windows == x->window_bytes;
}

/* What an index of so many bytes of gzip can have: a member takes 18 bytes or more, and of places
 * with windows there are MOST_WINDOWS. */
static bool header_is_sound(const Header *h, int64_t len, int64_t bytes, uint32_t fingerprint) {
    if (memcmp(h->magic, magic, sizeof magic) != 0 || h->bytes != bytes ||
        h->fingerprint != fingerprint || h->size < 0)
        return false;
    int64_t rest = len - (int64_t)sizeof *h;
    return h->n_points >= 1 && h->n_points <= bytes / 18 + MOST_WINDOWS + 1 &&
           h->window_bytes >= 0 &&
           h->window_bytes <= (MOST_WINDOWS + 1) * (int64_t)compressBound(GZIP_WINDOW) &&
           rest == h->n_points * (int64_t)sizeof(GzipPoint) + h->window_bytes;
}

typedef struct {
    const char *path;
    int fd;
    int64_t bytes;
    uint32_t crc;
} SavedIndex;

static Status read_saved(void *ctx, void *data) {
    const SavedIndex *s = ctx;
    int error = file_read_at(s->fd, data, s->bytes, sizeof(Header));
    if (error == 0 && crc32_z(0, data, (size_t)s->bytes) == s->crc) return OK;
    return status_fail(ERR_ENV, "%s: %s", s->path,
                       error != 0 ? file_error(error) : "its checksum is wrong");
}

static Status load(GzipIndex *x, int fd, const char *path, int64_t bytes, uint32_t fingerprint) {
    Header h = {0};
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || file_read_at(fd, &h, sizeof h, 0) != 0 ||
        !header_is_sound(&h, info.st_size, bytes, fingerprint))
        return status_fail(ERR_ENV, "%s is not the index of this file", path);
    SavedIndex saved = {path, fd, info.st_size - (int64_t)sizeof h, h.crc};
    char *name = mem_printf("gzip index %s of %lld bytes, %08x, %08x", path, (long long)bytes,
                            fingerprint, h.crc);
    Status st = share_open(&x->share, name, saved.bytes, read_saved, &saved);
    free(name);
    CHECK(st);
    const unsigned char *data = share_data(x->share);
    x->size = h.size;
    x->n_points = h.n_points;
    x->window_bytes = h.window_bytes;
    x->points = (const void *)data;
    x->windows = data + h.n_points * (int64_t)sizeof(GzipPoint);
    if (points_are_sound(x, bytes)) return OK;
    return status_fail(ERR_ENV, "%s is damaged", path);
}

bool gzip_index_load(GzipIndex *x, const char *index_path, int64_t bytes, uint32_t fingerprint) {
    *x = (GzipIndex){0};
    int fd = open(index_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    Status st = load(x, fd, index_path, bytes, fingerprint);
    close(fd);
    if (st == OK) return true;
    status_ignore(st); /* it is made anew */
    gzip_index_free(x);
    return false;
}

int gzip_index_save(const GzipIndex *x, const char *index_path, int64_t bytes,
                    uint32_t fingerprint) {
    int64_t rest = x->n_points * (int64_t)sizeof(GzipPoint) + x->window_bytes;
    Header h = {.bytes = bytes,
                .size = x->size,
                .n_points = x->n_points,
                .window_bytes = x->window_bytes,
                .fingerprint = fingerprint,
                .crc = (uint32_t)crc32_z(0, (const Bytef *)x->points, (size_t)rest)};
    memcpy(h.magic, magic, sizeof magic);
    char *temporary = mem_printf("%s.%lld.tmp", index_path, (long long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    int error = fd < 0 ? errno : file_write_at(fd, &h, sizeof h, 0);
    if (error == 0) error = file_write_at(fd, x->points, rest, sizeof h);
    if (fd >= 0) error = file_commit(fd, temporary, index_path, error);
    free(temporary);
    return error;
}

void gzip_index_free(GzipIndex *x) {
    share_close(x->share);
    free(x->memory);
    *x = (GzipIndex){0};
}
