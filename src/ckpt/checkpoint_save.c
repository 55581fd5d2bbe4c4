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

#include "ckpt/checkpoint_parts.h"
#include "base/file.h"

/* Written but not yet on disk at most. A system that keeps writes, such as an NFS client, takes
 * them at memory's speed and then sends them in one call, which shows no progress: the amount
 * halves after a sync that took longer than SLOW_SECONDS, and doubles after one of a quarter of
 * that. */
enum { FIRST_UNSYNCED = 4 << 20, LEAST_UNSYNCED = 1 << 20, MOST_UNSYNCED = 256 << 20 };
static const double SLOW_SECONDS = 2;

static const char NO_DIGITS[] = "00000000";

struct CkptSave {
    int rank;
    char *path, *tmp;
    SafeTensor *tensors; /* with their places in the file */
    int n_tensors;
    SafeEntry *entries; /* two, the caller's, and one per tensor */
    int n_entries;
    int weights_crc; /* the entry that is to get it; 0: none */
    uint32_t *crcs;  /* per tensor, on rank 0 from the gather on */
    StrBuf header;   /* the length and the JSON text, as in the file */
    int64_t size;    /* of the file */
    int fd;          /* -1: this rank has not written yet */
    int64_t unsynced, most_unsynced;
    CkptPart *written; /* this rank's */
    int64_t n_written, cap_written;
    bool published;
};

/* ---- the header ------------------------------------------------------------------------------ */

/* Names and CRCs have fixed lengths, so the header's size is known before the CRCs are. */
static void build_header(CkptSave *s) {
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

static void add_entry(CkptSave *s, char *key, const char *value) {
    s->entries[s->n_entries++] = (SafeEntry){key, mem_strdup(value)};
}

static CkptSave *save_create(const char *path, const SafeTensor *tensors, int n_tensors,
                             const CkptEntry *entries, int n_entries, int rank) {
    CkptSave *s = NEW(CkptSave, 1);
    *s = (CkptSave){.rank = rank,
                    .path = mem_strdup(path),
                    .tmp = mem_printf("%s.tmp", path),
                    .n_tensors = n_tensors,
                    .fd = -1,
                    .most_unsynced = FIRST_UNSYNCED};
    s->tensors = NEW(SafeTensor, n_tensors);
    s->crcs = NEW(uint32_t, n_tensors);
    s->entries = NEW(SafeEntry, 2 + (int64_t)n_entries + n_tensors);
    add_entry(s, mem_strdup("header_crc"), NO_DIGITS);
    add_entry(s, mem_strdup("format"), "pt");
    for (int i = 0; i < n_entries; i++) {
        const char *value = entries[i].value;
        REQUIRE(value != NULL || s->weights_crc == 0);
        if (value == NULL) s->weights_crc = s->n_entries;
        add_entry(s, mem_strdup(entries[i].key), value != NULL ? value : NO_DIGITS);
    }
    for (int i = 0; i < n_tensors; i++) {
        s->tensors[i] = tensors[i];
        s->tensors[i].name = mem_strdup(tensors[i].name);
        add_entry(s, mem_printf("crc.%s", tensors[i].name), NO_DIGITS);
    }
    safetensors_layout(s->tensors, n_tensors);
    build_header(s);
    s->size = (int64_t)s->header.len + (n_tensors > 0 ? s->tensors[n_tensors - 1].end : 0);
    return s;
}

void checkpoint_end(CkptSave *s) {
    if (s == NULL) return;
    if (s->fd >= 0) close(s->fd);
    if (s->rank == 0 && !s->published) unlink(s->tmp);
    for (int i = 0; i < s->n_entries; i++) {
        free(s->entries[i].key);
        free(s->entries[i].value);
    }
    for (int i = 0; i < s->n_tensors; i++) free(s->tensors[i].name);
    strbuf_free(&s->header);
    free(s->entries);
    free(s->crcs);
    free(s->tensors);
    free(s->written);
    free(s->path);
    free(s->tmp);
    free(s);
}

int64_t checkpoint_size(const CkptSave *s) {
    return s->size;
}

/* Whatever the tensors and entries hold, what is written must be readable. */
static Status check_header(const CkptSave *s) {
    SafeFile f;
    CHECK(safetensors_parse(&f, s->path, s->header.text + 8, (int64_t)s->header.len - 8, s->size));
    safetensors_free(&f);
    return OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static Status write_fail(const CkptSave *s, const char *what, int error) {
    return status_fail(ERR_ENV,
                       "cannot save %s (%" PRId64 " bytes): %s: %s; earlier checkpoints are "
                       "untouched",
                       s->path, s->size, what, file_error(error));
}

static Status check_space(const CkptSave *s) {
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

/* Rank 0: an empty file of the final size. */
static Status create_tmp(const CkptSave *s) {
    unlink(s->tmp); /* what an interrupted save left; its space counts again */
    CHECK(check_space(s));
    int fd = open(s->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return write_fail(s, "creating its .tmp", errno);
    int error = ftruncate(fd, (off_t)s->size) != 0 ? errno : 0;
    if (close(fd) != 0 && error == 0) error = errno;
    return error != 0 ? write_fail(s, "making its .tmp as long", error) : OK;
}

Status checkpoint_begin(CkptSave **save, const char *path, const SafeTensor *tensors, int n_tensors,
                        const CkptEntry *entries, int n_entries, Comm *host) {
    Status st;
    CkptSave *s = save_create(path, tensors, n_tensors, entries, n_entries, host->rank);
    uint32_t header = (uint32_t)crc32_z(0, (const Bytef *)s->header.text, (z_size_t)s->header.len);
    CHECK_GOTO(comm_agree_equal(host, header, "the checkpoint's header"), fail);
    CHECK_GOTO(comm_agree(host, check_header(s)), fail);
    CHECK_GOTO(comm_agree(host, host->rank == 0 ? create_tmp(s) : OK), fail);
    *save = s;
    return OK;
fail:
    checkpoint_end(s);
    *save = NULL;
    return st;
}

static int reserve_blocks(int fd, int64_t size) {
    int error;
    do error = fallocate(fd, 0, 0, (off_t)size) != 0 ? errno : 0;
    while (error == EINTR);
    return error == EOPNOTSUPP || error == ENOSYS ? 0 : error;
}

/* Before its first write. Rank 0 reserves the whole file's blocks where the file system can: here
 * and not in checkpoint_begin, because some take seconds for it. */
static Status open_tmp(CkptSave *s) {
    s->fd = open(s->tmp, O_WRONLY | O_CLOEXEC);
    if (s->fd < 0)
        return write_fail(s, "opening its .tmp (is the directory shared by all ranks?)", errno);
    int error = s->rank == 0 ? reserve_blocks(s->fd, s->size) : 0;
    return error != 0 ? write_fail(s, "reserving its space", error) : OK;
}

static int sync_data(CkptSave *s) {
    double begin = time_now();
    int error = fdatasync(s->fd) != 0 ? errno : 0;
    double seconds = time_now() - begin;
    if (seconds > SLOW_SECONDS)
        s->most_unsynced = i64_max(LEAST_UNSYNCED, s->most_unsynced / 2);
    else if (seconds < SLOW_SECONDS / 4)
        s->most_unsynced = i64_min(MOST_UNSYNCED, s->most_unsynced * 2);
    s->unsynced = 0;
    return error;
}

Status checkpoint_write(CkptSave *s, const CkptPiece *p) {
    REQUIRE(p->tensor >= 0 && p->tensor < s->n_tensors);
    const SafeTensor *t = &s->tensors[p->tensor];
    REQUIRE(p->begin >= 0 && p->count >= 0 && p->begin <= safetensors_count(t) - p->count);
    if (s->fd < 0) CHECK(open_tmp(s));
    int64_t size = dtype_bytes(t->dtype), bytes = p->count * size;
    int64_t at = (int64_t)s->header.len + t->begin + p->begin * size;
    uint32_t crc;
    int error = file_write_crc(s->fd, p->data, bytes, at, &crc);
    s->unsynced += bytes;
    if (error == 0 && s->unsynced >= s->most_unsynced) error = sync_data(s);
    if (error != 0) return write_fail(s, "writing", error);
    GROW(s->written, s->n_written, s->cap_written);
    s->written[s->n_written++] =
        (CkptPart){.tensor = p->tensor, .begin = p->begin, .count = p->count, .crc = crc};
    return OK;
}

Status checkpoint_flush(CkptSave *s) {
    if (s->fd < 0) return OK;
    int error = sync_data(s);
    if (close(s->fd) != 0 && error == 0) error = errno;
    s->fd = -1;
    return error != 0 ? write_fail(s, "writing", error) : OK;
}

/* ---- the CRCs -------------------------------------------------------------------------------- */

uint32_t checkpoint_weights_crc(const CkptSave *s) {
    return parts_weights_crc(s->tensors, s->n_tensors, s->crcs);
}

Status checkpoint_gather(CkptSave *s, Comm *host) {
    CkptPart *all;
    int64_t n;
    CHECK(parts_gather(host, s->written, s->n_written, &all, &n));
    if (s->rank == 0) parts_combine(all, n, s->tensors, s->n_tensors, s->crcs);
    free(all);
    return OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void set_digits(SafeEntry *e, uint32_t crc) {
    snprintf(e->value, sizeof NO_DIGITS, "%08" PRIx32, crc);
}

/* The header last, so that a .tmp is a readable file only when it is complete. */
Status checkpoint_publish(CkptSave *s) {
    SafeEntry *crcs = s->entries + s->n_entries - s->n_tensors;
    for (int i = 0; i < s->n_tensors; i++) set_digits(&crcs[i], s->crcs[i]);
    if (s->weights_crc > 0) set_digits(&s->entries[s->weights_crc], checkpoint_weights_crc(s));
    build_header(s);
    int fd = open(s->tmp, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return write_fail(s, "opening its .tmp", errno);
    int error = file_write_at(fd, s->header.text, (int64_t)s->header.len, 0);
    if (error == 0 && fsync(fd) != 0) error = errno;
    if (close(fd) != 0 && error == 0) error = errno;
    if (error != 0) return write_fail(s, "writing its header", error);
    if (rename(s->tmp, s->path) != 0) return write_fail(s, "renaming its .tmp", errno);
    s->published = true;
    error = file_sync_parent(s->path);
    return error != 0 ? write_fail(s, "syncing its directory", error) : OK;
}

Status checkpoint_save(const char *path, const SafeTensor *tensors, int n_tensors,
                       const CkptEntry *entries, int n_entries, const CkptPiece *pieces,
                       int n_pieces, Comm *host, int64_t *bytes) {
    CkptSave *s;
    CHECK(checkpoint_begin(&s, path, tensors, n_tensors, entries, n_entries, host));
    Status st = OK;
    for (int i = 0; i < n_pieces && st == OK; i++) st = checkpoint_write(s, &pieces[i]);
    if (st == OK) st = checkpoint_flush(s);
    st = comm_agree(host, st);
    if (st == OK) st = checkpoint_gather(s, host);
    if (st == OK) st = comm_agree(host, s->rank == 0 ? checkpoint_publish(s) : OK);
    *bytes = s->size;
    checkpoint_end(s);
    return st;
}
