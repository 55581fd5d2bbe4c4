/* checkpoint_read.c: opening, reading, verifying and describing one checkpoint. */
#include "ckpt/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/text.h"
#include "optim/optimizer.h"

struct Checkpoint {
    SafeFile file;
    char *path;
    int fd;
    enum { UNVERIFIED, GOOD, BAD } verdict; /* of checkpoint_verify() */
};

Status checkpoint_open(Checkpoint **ck, const char *path) {
    *ck = NULL;
    int fd;
    CHECK(file_open(path, &fd));
    Checkpoint c = {.fd = fd};
    Status st = safetensors_read(&c.file, path, fd);
    if (st != OK) {
        close(fd);
        return st;
    }
    c.path = mem_strdup(path);
    *ck = NEW(Checkpoint, 1);
    **ck = c;
    return OK;
}

void checkpoint_close(Checkpoint *ck) {
    if (ck == NULL) return;
    safetensors_free(&ck->file);
    close(ck->fd);
    free(ck->path);
    free(ck);
}

const SafeFile *checkpoint_file(const Checkpoint *ck) {
    return &ck->file;
}

const char *checkpoint_entry(const Checkpoint *ck, const char *key) {
    return safetensors_entry(&ck->file, key);
}

int64_t checkpoint_step(const Checkpoint *ck) {
    const char *step = checkpoint_entry(ck, "cria.step");
    return step != NULL ? strtoll(step, NULL, 10) : 0;
}

static Status read_fail(const Checkpoint *ck, const char *what, int error) {
    return status_fail(ERR_ENV, "cannot read %.200s from %s: %s", what, ck->path,
                       file_error(error));
}

/* dst NULL: only the CRC is wanted. */
static Status read_crc(const Checkpoint *ck, const SafeTensor *t, int64_t begin, int64_t count,
                       void *dst, uint32_t *crc) {
    int64_t total = safetensors_count(t), size = dtype_bytes(t->dtype);
    if (t->dtype == DT_OTHER)
        return status_fail(ERR_USER, "%s: tensor '%s' is of type %s, which cria does not read",
                           ck->path, t->name, t->type);
    if (begin < 0 || count < 0 || count > total || begin > total - count)
        return status_fail(ERR_USER,
                           "%s: tensor '%s' has %" PRId64 " elements, %" PRId64 " from %" PRId64
                           " on were asked for; was it saved by another model configuration?",
                           ck->path, t->name, total, count, begin);
    int error = file_read_crc(ck->fd, dst, count * size,
                              ck->file.data_start + t->begin + begin * size, crc);
    return error != 0 ? read_fail(ck, t->name, error) : OK;
}

Status checkpoint_read_crc(Checkpoint *ck, const char *name, int64_t begin, int64_t count,
                           void *dst, uint32_t *crc) {
    const SafeTensor *t = safetensors_find(&ck->file, name);
    if (t == NULL) return status_fail(ERR_USER, "%s has no tensor '%s'", ck->path, name);
    return read_crc(ck, t, begin, count, dst, crc);
}

Status checkpoint_read(Checkpoint *ck, const char *name, int64_t begin, int64_t count, void *dst) {
    uint32_t crc;
    return checkpoint_read_crc(ck, name, begin, count, dst, &crc);
}

Status checkpoint_verify_header(Checkpoint *ck) {
    const int64_t len = ck->file.data_start - 8, digits = (int64_t)strlen(CKPT_HEADER_START);
    char *json = NEW(char, len), found[9];
    int error = file_read_at(ck->fd, json, len, 8);
    Status st = OK;
    if (error != 0) {
        st = read_fail(ck, "the header", error);
    } else if (crc32_z(0, (const Bytef *)json, (z_size_t)len) != ck->file.header_crc) {
        st = status_fail(ERR_USER,
                         "%s is damaged, or memory, storage or the network is faulty: two reads of "
                         "its header differ",
                         ck->path);
    } else if (len < digits + 8 || memcmp(json, CKPT_HEADER_START, (size_t)digits) != 0) {
        st = status_fail(ERR_USER,
                         "%s cannot be verified: it has no checksums where cria writes them; a "
                         "Hugging Face model becomes a checkpoint by cria import",
                         ck->path);
    } else {
        char *recorded = json + digits;
        char expected[9] = {0};
        memcpy(expected, recorded, 8);
        memset(recorded, '0', 8);
        snprintf(found, sizeof found, "%08lx", crc32_z(0, (const Bytef *)json, (z_size_t)len));
        if (strcmp(found, expected) != 0)
            st = status_fail(ERR_USER,
                             "%s is damaged: its header (bytes [8, %" PRId64
                             ")) has CRC-32 %s, expected %s; use another checkpoint",
                             ck->path, ck->file.data_start, found, expected);
    }
    free(json);
    return st;
}

static const char *tensor_crc(const Checkpoint *ck, const SafeTensor *t) {
    char *key = mem_printf("crc.%s", t->name);
    const char *crc = safetensors_entry(&ck->file, key);
    free(key);
    return crc;
}

Status checkpoint_check_crc(const Checkpoint *ck, const SafeTensor *t, uint32_t crc) {
    const char *expected = tensor_crc(ck, t);
    if (expected == NULL)
        return status_fail(ERR_USER, "%s: tensor '%.200s' has no checksum", ck->path, t->name);
    char found[9];
    snprintf(found, sizeof found, "%08" PRIx32, crc);
    if (strcmp(found, expected) == 0) return OK;
    int64_t begin = ck->file.data_start + t->begin;
    return status_fail(ERR_USER,
                       "%s is damaged: tensor '%.200s' (bytes [%" PRId64 ", %" PRId64
                       ")) has CRC-32 %s, expected %.20s; use another checkpoint",
                       ck->path, t->name, begin, begin + t->end - t->begin, found, expected);
}

static Status verify(Checkpoint *ck) {
    CHECK(checkpoint_verify_header(ck));
    for (int i = 0; i < ck->file.n_tensors; i++) {
        const SafeTensor *t = &ck->file.tensors[i];
        uint32_t crc;
        CHECK(read_crc(ck, t, 0, safetensors_count(t), NULL, &crc));
        CHECK(checkpoint_check_crc(ck, t, crc));
    }
    return OK;
}

Status checkpoint_verify(Checkpoint *ck) {
    Status st = verify(ck);
    if (st != ERR_ENV) ck->verdict = st == OK ? GOOD : BAD;
    return st;
}

/* ---- for people ----------------------------------------------------------------------------- */

/* The optimizer's states, of which the first are the weights, then what no optimizer of this
 * version has. */
static int group_of(const SafeTensor *t) {
    for (int g = 1; g < optim_adamw.n_states; g++)
        if (text_starts_with(t->name, optim_adamw.states[g].prefix)) return g;
    return text_starts_with(t->name, "optim.") ? optim_adamw.n_states : 0;
}

static const char *group_label(int group) {
    if (group == 0) return "weights";
    return group < optim_adamw.n_states ? optim_adamw.states[group].label : "other state";
}

static void describe_bytes(StrBuf *out, int64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    strbuf_printf(out, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
}

static void describe_group(const Checkpoint *ck, int group, StrBuf *out) {
    int64_t tensors = 0, elements = 0, bytes = 0;
    bool seen[16] = {false}; /* dtypes */
    for (int i = 0; i < ck->file.n_tensors; i++) {
        const SafeTensor *t = &ck->file.tensors[i];
        if (group_of(t) != group) continue;
        tensors++;
        elements += safetensors_count(t);
        bytes += t->end - t->begin;
        seen[t->dtype] = true;
    }
    if (tensors == 0) return;
    strbuf_printf(out, "  %-16s %6" PRId64 " tensors %16" PRId64 " elements  ", group_label(group),
                  tensors, elements);
    describe_bytes(out, bytes);
    for (int d = 0; d <= DT_OTHER; d++)
        if (seen[d]) strbuf_printf(out, " %s", safetensors_dtype_name((Dtype)d));
    strbuf_printf(out, "\n");
}

/* Short single-line values are shown, others by size; the values of CRCs say nothing to people. */
static void describe_entries(const Checkpoint *ck, StrBuf *out) {
    for (int i = 0; i < ck->file.n_entries; i++) {
        const SafeEntry *e = &ck->file.entries[i];
        if (strncmp(e->key, "crc.", 4) == 0) continue;
        size_t n = strlen(e->value);
        bool shown = n <= 60;
        for (const char *c = e->value; shown && *c != '\0'; c++)
            shown = (unsigned char)*c >= 0x20 && *c != 0x7f;
        if (shown)
            strbuf_printf(out, "  %-16.200s %s\n", e->key, e->value);
        else
            strbuf_printf(out, "  %-16.200s (%zu bytes)\n", e->key, n);
    }
}

void checkpoint_describe(const Checkpoint *ck, StrBuf *out) {
    struct stat info;
    struct tm when;
    char date[64] = "at an unknown time";
    if (fstat(ck->fd, &info) == 0 && gmtime_r(&info.st_mtime, &when) != NULL)
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", &when);
    int64_t data = 0, with_crc = 0;
    for (int i = 0; i < ck->file.n_tensors; i++) {
        data = i64_max(data, ck->file.tensors[i].end);
        with_crc += tensor_crc(ck, &ck->file.tensors[i]) != NULL;
    }
    strbuf_printf(out, "%s: ", ck->path);
    describe_bytes(out, ck->file.data_start + data);
    strbuf_printf(out, ", written %s\n", date);
    for (int g = 0; g <= optim_adamw.n_states; g++) describe_group(ck, g, out);
    describe_entries(ck, out);
    strbuf_printf(out, "  %-16s %" PRId64 " of %d tensors have one, %s\n", "checksums", with_crc,
                  ck->file.n_tensors,
                  ck->verdict == GOOD  ? "all match"
                  : ck->verdict == BAD ? "but the file is damaged"
                                       : "not compared");
}
