#include "data/gzip.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <zlib.h>

#include "data/gzip_index.h"
#include "base/log.h"
#include "base/file.h"

enum { CHUNK = 1 << 16 };

struct Gzip {
    int fd;
    const char *path;
    GzipIndex index;
    pthread_mutex_t lock; /* guards what follows */
    z_stream stream;
    bool started, raw; /* raw: from the middle of a member, without its header and trailer */
    int64_t at;        /* content offset of the stream */
    int64_t read_to;   /* file offset behind the bytes in `in` */
    unsigned char in[CHUNK];
};

bool gzip_has_magic(const unsigned char *bytes, int64_t n) {
    return n >= 4 && bytes[0] == 0x1f && bytes[1] == 0x8b && bytes[2] == Z_DEFLATED &&
           (bytes[3] & 0xe0) == 0; /* reserved flags */
}

int64_t gzip_inflate_head(const unsigned char *bytes, int64_t n, unsigned char *out, int64_t room) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)n};
    z.next_out = out;
    z.avail_out = (uInt)room;
    if (!gzip_has_magic(bytes, n) || inflateInit2(&z, 15 + 16) != Z_OK) return -1;
    int rc, members = 0;
    do {
        rc = inflate(&z, Z_NO_FLUSH);
        if (rc == Z_STREAM_END) members++;
        if (rc == Z_STREAM_END && z.avail_in > 0) rc = inflateReset(&z);
    } while (rc == Z_OK && z.avail_in > 0 && z.avail_out > 0);
    bool padded = rc == Z_DATA_ERROR && members > 0 && z.total_out == 0;
    int64_t inflated = room - z.avail_out;
    inflateEnd(&z);
    return rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR || padded ? inflated : -1;
}

/* ---- the index ------------------------------------------------------------------------------ */

static Status make_index(Gzip *g, const char *index_path, int64_t bytes, uint32_t fingerprint) {
    if (bytes >= 1 << 28) log_info("%s: reading all of it once to make %s", g->path, index_path);
    CHECK(gzip_index_build(&g->index, g->fd, g->path, bytes));
    int error = gzip_index_save(&g->index, index_path, bytes, fingerprint);
    if (error != 0)
        log_warn("cannot write %s (%s): the index will be made anew at every start", index_path,
                 strerror(error));
    return OK;
}

Status gzip_open(Gzip **out, int fd, const char *path, int64_t bytes, uint32_t fingerprint) {
    Gzip *g = NEW(Gzip, 1);
    char *index_path = mem_printf("%s.index", path);
    Status st = OK;
    g->fd = fd;
    g->path = path;
    pthread_mutex_init(&g->lock, NULL);
    if (!gzip_index_load(&g->index, index_path, bytes, fingerprint)) {
        /* One process makes it, the others wait; where locks do not work each makes its own. */
        bool locked = flock(fd, LOCK_EX) == 0;
        if (!locked || !gzip_index_load(&g->index, index_path, bytes, fingerprint))
            st = make_index(g, index_path, bytes, fingerprint);
        if (locked) flock(fd, LOCK_UN);
    }
    free(index_path);
    if (st != OK) {
        gzip_close(g);
        g = NULL;
    }
    *out = g;
    return st;
}

void gzip_close(Gzip *g) {
    if (g == NULL) return;
    if (g->started) inflateEnd(&g->stream);
    gzip_index_free(&g->index);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

int64_t gzip_size(const Gzip *g) {
    return g->index.size;
}

/* ---- reading -------------------------------------------------------------------------------- */

static Status damaged(const Gzip *g, const char *what) {
    return status_fail(
        ERR_USER,
        "%s cannot be decompressed near byte %lld (%s): it is damaged, or was changed "
        "after its index was made; delete %s.index, or fetch the file again",
        g->path, (long long)(g->read_to - g->stream.avail_in), what, g->path);
}

static Status refill(Gzip *g) {
    int64_t got = file_read_some(g->fd, g->in, CHUNK, g->read_to);
    if (got < 0) return status_fail(ERR_ENV, "cannot read %s: %s", g->path, strerror(errno));
    if (got == 0) return damaged(g, "it ends early");
    g->read_to += got;
    g->stream.next_in = g->in;
    g->stream.avail_in = (uInt)got;
    return OK;
}

static const GzipPoint *find_point(const GzipIndex *x, int64_t offset) {
    int64_t low = 0, high = x->n_points;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (x->points[middle].out <= offset)
            low = middle;
        else
            high = middle;
    }
    return &x->points[low];
}

static Status go_to(Gzip *g, const GzipPoint *p) {
    z_stream *z = &g->stream;
    g->raw = p->window_bytes > 0;
    if (!g->started) {
        if (inflateInit2(z, g->raw ? -15 : 15 + 16) != Z_OK)
            return status_fail(ERR_ENV, "zlib cannot start: out of memory");
        g->started = true;
    } else {
        inflateReset2(z, g->raw ? -15 : 15 + 16);
    }
    g->at = p->out;
    g->read_to = p->in - (p->bits > 0);
    z->avail_in = 0;
    if (!g->raw) return OK;
    unsigned char window[GZIP_WINDOW];
    uLongf len = sizeof window;
    if (uncompress(window, &len, g->index.windows + p->window, p->window_bytes) != Z_OK)
        return damaged(g, "its index is damaged");
    if (p->bits > 0) {
        CHECK(refill(g));
        inflatePrime(z, (int)p->bits, *z->next_in >> (8 - p->bits));
        z->next_in++;
        z->avail_in--;
    }
    inflateSetDictionary(z, window, (uInt)len);
    return OK;
}

/* After the last block of a member: the trailer of a raw one, then the next member's header. */
static Status next_member(Gzip *g) {
    for (int left = g->raw ? 8 : 0; left > 0;) {
        if (g->stream.avail_in == 0) CHECK(refill(g));
        uInt step = (uInt)i64_min(left, g->stream.avail_in);
        g->stream.next_in += step;
        g->stream.avail_in -= step;
        left -= (int)step;
    }
    g->raw = false;
    inflateReset2(&g->stream, 15 + 16);
    return OK;
}

/* The next n bytes of content; out NULL: drop them. */
static Status take(Gzip *g, int64_t n, unsigned char *out) {
    unsigned char dropped[16384];
    while (n > 0) {
        if (g->stream.avail_in == 0) CHECK(refill(g));
        int64_t room = i64_min(n, out != NULL ? 1 << 30 : (int64_t)sizeof dropped);
        g->stream.next_out = out != NULL ? out : dropped;
        g->stream.avail_out = (uInt)room;
        int rc = inflate(&g->stream, Z_NO_FLUSH);
        int64_t got = room - g->stream.avail_out;
        if (rc == Z_STREAM_END)
            CHECK(next_member(g));
        else if (rc != Z_OK && rc != Z_BUF_ERROR)
            return damaged(g, g->stream.msg != NULL ? g->stream.msg : "not deflate data");
        g->at += got;
        n -= got;
        if (out != NULL) out += got;
    }
    return OK;
}

static Status read_locked(Gzip *g, int64_t offset, int64_t n, unsigned char *out) {
    const GzipPoint *p = find_point(&g->index, offset);
    if (!g->started || g->at > offset || g->at < p->out) CHECK(go_to(g, p));
    CHECK(take(g, offset - g->at, NULL));
    return take(g, n, out);
}

Status gzip_read(Gzip *g, int64_t offset, int64_t n, void *out) {
    REQUIRE(offset >= 0 && n >= 0 && n <= gzip_size(g) - offset);
    pthread_mutex_lock(&g->lock);
    Status st = read_locked(g, offset, n, out);
    if (st != OK) g->at = INT64_MAX; /* the next read starts from the index */
    pthread_mutex_unlock(&g->lock);
    return st;
}
