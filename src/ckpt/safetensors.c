#include "ckpt/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

/* The types of safetensors 0.8 that cria does not read, some of which it computes in, and their
 * bits */
/* clang-format off */
#define UNREAD_TYPES(X)                                                                            \
    X(BOOL, 8) X(F4, 4) X(F6_E2M3, 6) X(F6_E3M2, 6) X(F8_E4M3, 8) X(F8_E5M2, 8) X(F8_E8M0, 8)      \
    X(F8_E4M3FNUZ, 8) X(F8_E5M2FNUZ, 8) X(I8, 8) X(I16, 16) X(U16, 16) X(U32, 32) X(U64, 64)       \
    X(C64, 64)
/* clang-format on */

#define READ(name, bytes)  {#name, 8 * bytes, DT_##name},
#define UNREAD(name, bits) {#name, bits, DT_OTHER},
static const struct {
    const char *name;
    int bits;
    Dtype dtype;
} types[] = {UNREAD_TYPES(UNREAD) DTYPE_LIST(READ)}; /* the first of a name counts */
enum { N_TYPES = sizeof types / sizeof *types };

const char *safetensors_dtype_name(Dtype t) {
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].dtype == t && t != DT_OTHER) return types[i].name;
    return "other";
}

/* Bits of an element; 0 when the type is not known. */
static int type_bits(const char *name) {
    for (int i = 0; i < N_TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return types[i].bits;
    return 0;
}

static Dtype type_dtype(const char *name) {
    for (int i = 0; i < N_TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return types[i].dtype;
    return DT_OTHER;
}

int64_t safetensors_count(const SafeTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct {
    SafeFile *f;
    const char *name; /* of the file, for messages */
    int64_t tensors_cap, entries_cap;
    Json j;
} Parser;

static Status not_json(const Parser *p) {
    return status_fail(ERR_USER, "%s: not a safetensors header: %s at byte %lld", p->name,
                       p->j.error, (long long)(8 + p->j.pos));
}

static Status tensor_fail(const Parser *p, const SafeTensor *t, const char *what) {
    return status_fail(ERR_USER, "%s: tensor '%.200s': %s", p->name, t->name, what);
}

/* Names are printed and looked up, so they hold no control characters. */
static bool printable(const char *s) {
    return text_is_printable(s, strlen(s));
}

static Status parse_dtype(Parser *p, SafeTensor *t) {
    Status st = OK;
    char *text = json_string(&p->j);
    if (text == NULL) return OK; /* the caller words JSON errors */
    if (text[0] == '\0' || strlen(text) >= SAFE_TYPE_MAX || !printable(text))
        st = status_fail(ERR_USER,
                         "%s: tensor '%.200s' has dtype '%.20s', expected one such as F32, BF16 "
                         "or F16",
                         p->name, t->name, printable(text) ? text : "?");
    else
        memcpy(t->type, text, strlen(text) + 1);
    t->dtype = type_dtype(t->type);
    free(text);
    return st;
}

/* An array of at most max non-negative integers. */
static Status parse_ints(Parser *p, const SafeTensor *t, const char *what, int64_t *out, int max,
                         int *n) {
    *n = 0;
    for (json_array(&p->j); json_array_next(&p->j);) {
        int64_t value = json_int(&p->j);
        if (p->j.error == NULL && (*n == max || value < 0))
            return status_fail(ERR_USER, "%s: tensor '%.200s': %s must be at most %d numbers >= 0",
                               p->name, t->name, what, max);
        if (p->j.error == NULL) out[(*n)++] = value;
    }
    return OK;
}

static Status parse_tensor(Parser *p, SafeTensor *t) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0;
    char *key;
    Status st = OK;
    for (json_object(&p->j); st == OK && json_object_next(&p->j, &key); free(key)) {
        int field = strcmp(key, "dtype") == 0          ? DTYPE
                    : strcmp(key, "shape") == 0        ? SHAPE
                    : strcmp(key, "data_offsets") == 0 ? OFFSETS
                                                       : 0;
        int64_t range[2] = {0, 0};
        int n = 0;
        if (field == 0 || (seen & field) != 0)
            st = tensor_fail(p, t, "needs exactly dtype, shape and data_offsets, once each");
        else if (field == DTYPE)
            st = parse_dtype(p, t);
        else if (field == SHAPE)
            st = parse_ints(p, t, "shape", t->shape, SAFE_MAX_DIMS, &t->ndim);
        else
            st = parse_ints(p, t, "data_offsets", range, 2, &n);
        if (st == OK && p->j.error == NULL && field == OFFSETS) {
            if (n != 2 || range[1] < range[0])
                st = tensor_fail(p, t, "data_offsets must be [begin, end] with begin <= end");
            t->begin = range[0];
            t->end = range[1];
        }
        seen |= field;
    }
    if (st != OK || p->j.error != NULL) return st; /* the caller words JSON errors */
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return tensor_fail(p, t, "needs exactly dtype, shape and data_offsets, once each");
    const bool known = type_bits(t->type) > 0;
    const int bits = known ? type_bits(t->type) : 1; /* an unknown type has at least that */
    const int unit = bits % 8 == 0 ? 8 : 1; /* bits; counting bits would reach 2^63 sooner */
    int64_t bytes = bits / unit;
    for (int i = 0; i < t->ndim; i++)
        if (!checked_mul(bytes, t->shape[i], &bytes))
            return tensor_fail(p, t, "its shape has more bytes than 64 bits can count");
    if (known && unit == 1 && bytes % 8 != 0)
        return tensor_fail(p, t, "its elements do not fill whole bytes");
    if (unit == 1) bytes /= 8;
    if (known ? bytes != t->end - t->begin : bytes > t->end - t->begin)
        return status_fail(ERR_USER,
                           "%s: tensor '%.200s': shape and dtype need %lld bytes, data_offsets "
                           "[%lld, %lld] hold %lld",
                           p->name, t->name, (long long)bytes, (long long)t->begin,
                           (long long)t->end, (long long)(t->end - t->begin));
    return OK;
}

/* Before another element: frees its key when there are too many. */
static Status check_room(const Parser *p, int n, const char *what, char *key) {
    if (n < SAFE_MAX_LIST) return OK;
    free(key);
    return status_fail(ERR_USER, "%s: its header lists more than %d %s", p->name, SAFE_MAX_LIST,
                       what);
}

static Status parse_metadata(Parser *p) {
    SafeFile *f = p->f;
    char *key;
    for (json_object(&p->j); json_object_next(&p->j, &key);) {
        CHECK(check_room(p, f->n_entries, "metadata keys", key));
        GROW(f->entries, f->n_entries, p->entries_cap);
        SafeEntry *e = &f->entries[f->n_entries++];
        *e = (SafeEntry){.key = key, .value = json_string(&p->j)};
        if (e->value == NULL) break;
        if (!printable(key))
            return status_fail(ERR_USER, "%s: a metadata key holds control characters", p->name);
    }
    return OK;
}

static int by_begin(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end != y->end ? (x->end < y->end ? -1 : 1) : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    const SafeTensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b) {
    const SafeEntry *x = a, *y = b;
    return strcmp(x->key, y->key);
}

/* qsort and bsearch want a pointer even for nothing. */
static void sort(void *list, int64_t n, size_t size, int (*order)(const void *, const void *)) {
    if (n > 1) qsort(list, (size_t)n, size, order);
}

/* Sorts for the lookups; names must be unique, and the tensors must fill the data section. */
static Status check_file(const Parser *p, int64_t data_bytes) {
    SafeFile *f = p->f;
    sort(f->entries, f->n_entries, sizeof *f->entries, by_key);
    for (int i = 1; i < f->n_entries; i++)
        if (by_key(&f->entries[i - 1], &f->entries[i]) == 0)
            return status_fail(ERR_USER, "%s: metadata key '%.200s' appears twice", p->name,
                               f->entries[i].key);
    sort(f->tensors, f->n_tensors, sizeof *f->tensors, by_begin);
    f->by_name = NEW(SafeTensor *, f->n_tensors);
    for (int i = 0; i < f->n_tensors; i++) f->by_name[i] = &f->tensors[i];
    sort(f->by_name, f->n_tensors, sizeof *f->by_name, by_name);
    for (int i = 1; i < f->n_tensors; i++)
        if (by_name(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return tensor_fail(p, f->by_name[i], "its name appears twice");
    int64_t filled = 0;
    for (int i = 0; i < f->n_tensors; i++) {
        const SafeTensor *t = &f->tensors[i];
        if (t->begin != filled)
            return status_fail(ERR_USER, "%s: tensor '%.200s' begins at data byte %lld, %s %lld",
                               p->name, t->name, (long long)t->begin,
                               t->begin < filled ? "inside another that ends at"
                                                 : "behind a hole from",
                               (long long)filled);
        filled = t->end;
    }
    if (filled != data_bytes)
        return status_fail(ERR_USER,
                           "%s: tensors take %lld bytes but the file has %lld for them: "
                           "it is %s",
                           p->name, (long long)filled, (long long)data_bytes,
                           filled > data_bytes ? "cut short" : "followed by something else");
    return OK;
}

static Status parse(Parser *p, int64_t len, int64_t file_size) {
    SafeFile *f = p->f;
    bool metadata = false;
    char *key;
    if (len < 1 || p->j.text[0] != '{')
        return status_fail(ERR_USER, "%s: not a safetensors file: its header does not start with {",
                           p->name);
    json_object(&p->j);
    while (json_object_next(&p->j, &key)) {
        if (strcmp(key, "__metadata__") == 0) {
            free(key);
            if (metadata) return status_fail(ERR_USER, "%s: __metadata__ appears twice", p->name);
            metadata = true;
            CHECK(parse_metadata(p));
            continue;
        }
        CHECK(check_room(p, f->n_tensors, "tensors", key));
        GROW(f->tensors, f->n_tensors, p->tensors_cap);
        SafeTensor *t = &f->tensors[f->n_tensors++];
        *t = (SafeTensor){.name = key};
        if (!printable(key))
            return status_fail(ERR_USER, "%s: a tensor's name holds control characters", p->name);
        CHECK(parse_tensor(p, t));
    }
    json_end(&p->j);
    if (p->j.error != NULL) return not_json(p);
    f->data_start = 8 + len;
    return check_file(p, file_size - f->data_start);
}

Status safetensors_parse(SafeFile *f, const char *name, const char *json, int64_t len,
                         int64_t file_size) {
    *f = (SafeFile){0};
    Parser p = {.f = f, .name = name};
    json_start(&p.j, json, len);
    Status st = parse(&p, len, file_size);
    if (st != OK) safetensors_free(f);
    return st;
}

Status safetensors_read(SafeFile *f, const char *path, int fd) {
    *f = (SafeFile){0};
    struct stat info;
    if (fstat(fd, &info) != 0)
        return status_fail(ERR_ENV, "cannot stat %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return status_fail(ERR_USER, "%s is not a regular file", path);
    unsigned char head[64] = {0};
    uint64_t len = 0;
    int64_t n = i64_min(info.st_size, (int64_t)sizeof head);
    int error = n < 8 ? FILE_ENDS : file_read_at(fd, head, n, 0);
    if (error == 0 && file_is_lfs_pointer((const char *)head, n)) return file_lfs_fail(path);
    if (error == FILE_ENDS)
        return status_fail(ERR_USER, "%s: not a safetensors file: %lld bytes, at least 10 expected",
                           path, (long long)info.st_size);
    if (error != 0) return status_fail(ERR_ENV, "cannot read %s: %s", path, file_error(error));
    for (int i = 7; i >= 0; i--) len = len << 8 | head[i];
    if (len > SAFE_MAX_HEADER && n > 8 && head[8] != '{') /* text, or another format: no length */
        return status_fail(ERR_USER, "%s: not a safetensors file: its header does not start with {",
                           path);
    if (len > SAFE_MAX_HEADER || len > (uint64_t)info.st_size - 8)
        return status_fail(ERR_USER,
                           "%s: not a safetensors file, or cut short: its header claims %llu "
                           "bytes, the file has %lld and the limit is %lld",
                           path, (unsigned long long)len, (long long)info.st_size,
                           (long long)SAFE_MAX_HEADER);
    char *json = NEW(char, (int64_t)len);
    error = file_read_at(fd, json, (int64_t)len, 8);
    Status st = error == 0 ? safetensors_parse(f, path, json, (int64_t)len, info.st_size)
                           : status_fail(ERR_ENV, "cannot read %s: %s", path, file_error(error));
    f->header_crc = (uint32_t)crc32_z(0, (const Bytef *)json, (z_size_t)len);
    free(json);
    return st;
}

void safetensors_free(SafeFile *f) {
    for (int i = 0; i < f->n_tensors; i++) free(f->tensors[i].name);
    for (int i = 0; i < f->n_entries; i++) {
        free(f->entries[i].key);
        free(f->entries[i].value);
    }
    free(f->tensors);
    free(f->by_name);
    free(f->entries);
    *f = (SafeFile){0};
}

const SafeTensor *safetensors_find(const SafeFile *f, const char *name) {
    const SafeTensor key = {.name = (char *)name}, *wanted = &key;
    if (f->n_tensors == 0) return NULL;
    SafeTensor *const *t =
        bsearch(&wanted, f->by_name, (size_t)f->n_tensors, sizeof *f->by_name, by_name);
    return t != NULL ? *t : NULL;
}

const char *safetensors_entry(const SafeFile *f, const char *key) {
    const SafeEntry wanted = {.key = (char *)key};
    if (f->n_entries == 0) return NULL;
    const SafeEntry *e =
        bsearch(&wanted, f->entries, (size_t)f->n_entries, sizeof *f->entries, by_key);
    return e != NULL ? e->value : NULL;
}

/* ---- writing -------------------------------------------------------------------------------- */

void safetensors_layout(SafeTensor *tensors, int n_tensors) {
    int64_t at = 0;
    for (int i = 0; i < n_tensors; i++) {
        tensors[i].begin = at;
        at += safetensors_count(&tensors[i]) * dtype_bytes(tensors[i].dtype);
        tensors[i].end = at;
    }
}

static void append_tensor(StrBuf *out, const SafeTensor *t) {
    strbuf_json_string(out, t->name);
    strbuf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", safetensors_dtype_name(t->dtype));
    for (int d = 0; d < t->ndim; d++)
        strbuf_printf(out, "%s%lld", d > 0 ? "," : "", (long long)t->shape[d]);
    strbuf_printf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)t->begin, (long long)t->end);
}

void safetensors_header(StrBuf *out, const SafeTensor *tensors, int n_tensors,
                        const SafeEntry *entries, int n_entries) {
    size_t start = out->len;
    const char *separator = "";
    strbuf_append(out, "\0\0\0\0\0\0\0\0{", 9);
    if (n_entries > 0) {
        strbuf_printf(out, "\"__metadata__\":{");
        for (int i = 0; i < n_entries; i++) {
            if (i > 0) strbuf_append(out, ",", 1);
            strbuf_json_string(out, entries[i].key);
            strbuf_append(out, ":", 1);
            strbuf_json_string(out, entries[i].value);
        }
        strbuf_append(out, "}", 1);
        separator = ",";
    }
    for (int i = 0; i < n_tensors; i++, separator = ",") {
        strbuf_printf(out, "%s", separator);
        append_tensor(out, &tensors[i]);
    }
    strbuf_append(out, "}", 1);
    while ((out->len - start) % 64 != 0) strbuf_append(out, " ", 1);
    uint64_t len = out->len - start - 8;
    for (int i = 0; i < 8; i++) out->text[start + (size_t)i] = (char)(len >> (8 * i) & 0xff);
}
