/* checkpoint_save.c: all ranks write one file, or none. */
#include "ckpt/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "ckpt/file.h"

typedef struct {
    const char *path;
    char *tmp;
    SafeTensor *tensors; /* with their places in the file */
    int n_tensors;
    SafeEntry *entries;
    int n_entries;
    char (*crcs)[9]; /* per tensor; zeros until all pieces are written */
    StrBuf header;   /* the length and the JSON text, as in the file */
    int64_t size;    /* of the whole file */
} Save;

/* Names and CRCs have fixed lengths, so the header's size is known before the CRCs are. */
static void build_header(Save *s) {
    s->header.len = 0;
    safetensors_header(&s->header, s->tensors, s->n_tensors, s->entries, s->n_entries);
    size_t digits = 8 + strlen(CKPT_HEADER_START);
    REQUIRE(memcmp(s->header.text + 8, CKPT_HEADER_START "00000000\"", digits + 1) == 0);
    uint32_t crc =
        (uint32_t)crc32_z(0, (const Bytef *)s->header.text + 8, (z_size_t)(s->header.len - 8));
    char hex[9];
    snprintf(hex, sizeof hex, "%08" PRIx32, crc);
    memcpy(s->header.text + digits, hex, 8);
}

static void save_init(Save *s, const char *path, const SafeTensor *tensors, int n_tensors,
                      const CkptEntry *entries, int n_entries) {
    *s = (Save){.path = path, .tmp = mem_printf("%s.tmp", path), .n_tensors = n_tensors};
    s->tensors = NEW(SafeTensor, n_tensors);
    s->crcs = mem_new(n_tensors, sizeof *s->crcs);
    s->entries = NEW(SafeEntry, 2 + (int64_t)n_entries + n_tensors);
    s->entries[s->n_entries++] = (SafeEntry){mem_strdup("header_crc"), "00000000"};
    s->entries[s->n_entries++] = (SafeEntry){mem_strdup("format"), "pt"};
    for (int i = 0; i < n_entries; i++)
        s->entries[s->n_entries++] =
            (SafeEntry){mem_strdup(entries[i].key), (char *)entries[i].value};
    for (int i = 0; i < n_tensors; i++) {
        s->tensors[i] = tensors[i];
        memcpy(s->crcs[i], "00000000", 9);
        s->entries[s->n_entries++] = (SafeEntry){mem_printf("crc.%s", tensors[i].name), s->crcs[i]};
    }
    safetensors_layout(s->tensors, n_tensors);
    build_header(s);
    s->size = (int64_t)s->header.len + (n_tensors > 0 ? s->tensors[n_tensors - 1].end : 0);
}

static void save_free(Save *s) {
    for (int i = 0; i < s->n_entries; i++) free(s->entries[i].key);
    free(s->entries);
    free(s->crcs);
    free(s->tensors);
    free(s->tmp);
    strbuf_free(&s->header);
}

/* Whatever the tensors and entries hold, what is written must be readable. */
static Status check_header(const Save *s) {
    SafeFile f;
    CHECK(safetensors_parse(&f, s->path, s->header.text + 8, (int64_t)s->header.len - 8, s->size));
    safetensors_free(&f);
    return OK;
}

static Status write_fail(const Save *s, const char *what, int error) {
    return status_fail(ERR_ENV,
                       "cannot save %s (%" PRId64 " bytes): %s: %s; earlier checkpoints are "
                       "untouched",
                       s->path, s->size, what, file_error(error));
}

static Status check_space(const Save *s) {
    struct statvfs fs;
    char *dir = file_parent(s->path);
    Status st = OK;
    if (statvfs(dir, &fs) != 0) {
        st = write_fail(s, dir, errno);
    } else {
        uint64_t have = (uint64_t)fs.f_bavail * fs.f_frsize;
        if ((uint64_t)s->size > have)
            st = status_fail(ERR_ENV,
                             "cannot save %s: it needs %" PRId64 " bytes and %s has %" PRIu64
                             " available; free some or lower run.keep_last",
                             s->path, s->size, dir, have);
    }
    free(dir);
    return st;
}

/* Rank 0: an empty file of the final size, with its blocks reserved where the file system can. */
static Status create_tmp(const Save *s) {
    unlink(s->tmp); /* what an interrupted save left; its space counts again */
    CHECK(check_space(s));
    int fd = open(s->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return write_fail(s, "creating its .tmp", errno);
    int error;
    do error = fallocate(fd, 0, 0, (off_t)s->size) != 0 ? errno : 0;
    while (error == EINTR);
    if (error == EOPNOTSUPP || error == ENOSYS)
        error = ftruncate(fd, (off_t)s->size) != 0 ? errno : 0;
    if (close(fd) != 0 && error == 0) error = errno;
    return error != 0 ? write_fail(s, "reserving its space", error) : OK;
}

/* This rank's pieces, on disk when it returns; crcs[i] is the CRC of pieces[i]. */
static Status write_pieces(const Save *s, const CkptPiece *pieces, int n_pieces, uint32_t *crcs) {
    int fd = open(s->tmp, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return write_fail(s, "opening its .tmp (is the directory shared by all ranks?)", errno);
    int error = 0;
    for (int i = 0; i < n_pieces && error == 0; i++) {
        const SafeTensor *t = &s->tensors[pieces[i].tensor];
        int64_t size = dtype_bytes(t->dtype);
        int64_t at = (int64_t)s->header.len + t->begin + pieces[i].begin * size;
        error = file_write_crc(fd, pieces[i].data, pieces[i].count * size, at, &crcs[i]);
    }
    if (error == 0 && fsync(fd) != 0) error = errno;
    if (close(fd) != 0 && error == 0) error = errno;
    return error != 0 ? write_fail(s, "writing", error) : OK;
}

typedef struct {
    int64_t tensor, begin, count, crc; /* count 0: nothing */
} PieceCrc;

/* Every rank's pieces to all ranks. */
static Status gather_crcs(const CkptPiece *pieces, const uint32_t *crcs, int n_pieces, Comm *host,
                          PieceCrc **all, int64_t *n) {
    const int64_t fields = sizeof(PieceCrc) / sizeof(int64_t);
    int64_t most = n_pieces;
    CHECK(comm_all_reduce(host, &most, 1, DT_I64, COMM_MAX, NULL));
    *n = most * host->size;
    *all = NEW(PieceCrc, *n);
    for (int i = 0; i < n_pieces; i++)
        (*all)[most * host->rank + i] =
            (PieceCrc){pieces[i].tensor, pieces[i].begin, pieces[i].count, crcs[i]};
    return comm_all_gather(host, *all, most * fields, DT_I64, COMM_KIND_OTHER, NULL);
}

static int by_place(const void *a, const void *b) {
    const PieceCrc *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* The CRC of each tensor from those of its pieces, which must cover it exactly once. */
static void combine_crcs(Save *s, PieceCrc *all, int64_t n) {
    if (n > 0) qsort(all, (size_t)n, sizeof *all, by_place);
    const PieceCrc *p = all, *end = all + n;
    for (int i = 0; i < s->n_tensors; i++) {
        const SafeTensor *t = &s->tensors[i];
        int64_t covered = 0;
        uint32_t crc = 0;
        for (; p < end && p->tensor == i; p++) {
            if (p->count == 0) continue;
            REQUIRE(p->begin == covered);
            crc = (uint32_t)crc32_combine(crc, (uint32_t)p->crc, p->count * dtype_bytes(t->dtype));
            covered += p->count;
        }
        REQUIRE(covered == safetensors_count(t));
        snprintf(s->crcs[i], sizeof s->crcs[i], "%08" PRIx32, crc);
    }
}

/* Rank 0: the header last, so that a .tmp is a readable file only when it is complete. */
static Status publish(Save *s, PieceCrc *all, int64_t n) {
    combine_crcs(s, all, n);
    build_header(s);
    int fd = open(s->tmp, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return write_fail(s, "opening its .tmp", errno);
    int error = file_write_at(fd, s->header.text, (int64_t)s->header.len, 0);
    if (error == 0 && fsync(fd) != 0) error = errno;
    if (close(fd) != 0 && error == 0) error = errno;
    if (error != 0) return write_fail(s, "writing its header", error);
    if (rename(s->tmp, s->path) != 0) return write_fail(s, "renaming its .tmp", errno);
    error = file_sync_parent(s->path);
    return error != 0 ? write_fail(s, "syncing its directory", error) : OK;
}

static Status save(Save *s, const CkptPiece *pieces, int n_pieces, uint32_t *crcs, Comm *host) {
    PieceCrc *all = NULL;
    int64_t n = 0;
    uint32_t header = (uint32_t)crc32_z(0, (const Bytef *)s->header.text, (z_size_t)s->header.len);
    CHECK(comm_agree_equal(host, header, "the checkpoint's header"));
    CHECK(check_header(s));
    CHECK(comm_agree(host, host->rank == 0 ? create_tmp(s) : OK));
    CHECK(comm_agree(host, write_pieces(s, pieces, n_pieces, crcs)));
    Status st = gather_crcs(pieces, crcs, n_pieces, host, &all, &n);
    if (st == OK) st = comm_agree(host, host->rank == 0 ? publish(s, all, n) : OK);
    free(all);
    return st;
}

Status checkpoint_save(const char *path, const SafeTensor *tensors, int n_tensors,
                       const CkptEntry *entries, int n_entries, const CkptPiece *pieces,
                       int n_pieces, Comm *host, int64_t *bytes) {
    for (int i = 0; i < n_pieces; i++) {
        const CkptPiece *p = &pieces[i];
        REQUIRE(p->tensor >= 0 && p->tensor < n_tensors);
        int64_t total = safetensors_count(&tensors[p->tensor]);
        REQUIRE(p->begin >= 0 && p->count >= 0 && p->begin <= total - p->count);
    }
    Save s;
    save_init(&s, path, tensors, n_tensors, entries, n_entries);
    uint32_t *crcs = NEW(uint32_t, n_pieces);
    Status st = save(&s, pieces, n_pieces, crcs, host);
    if (st != OK && host->rank == 0) unlink(s.tmp);
    *bytes = s.size;
    free(crcs);
    save_free(&s);
    return st;
}
