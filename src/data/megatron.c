#include "data/megatron.h"

#include <stdlib.h>
#include <string.h>

#define REMEDY "make the pair again, or copy both files again"

int id_type_bytes(IdType type) {
    switch (type) {
    case ID_U8:
    case ID_I8:
        return 1;
    case ID_I16:
    case ID_U16:
        return 2;
    case ID_I32:
    case ID_U32:
        return 4;
    case ID_I64:
        return 8;
    }
    return 0;
}

const char *id_type_name(IdType type) {
    switch (type) {
    case ID_U8:
        return "uint8";
    case ID_I8:
        return "int8";
    case ID_I16:
        return "int16";
    case ID_I32:
        return "int32";
    case ID_I64:
        return "int64";
    case ID_U16:
        return "uint16";
    case ID_U32:
        return "uint32";
    }
    return "unknown";
}

int64_t id_type_largest(IdType type) {
    int bits = 8 * id_type_bytes(type) - (type == ID_I8 || type == ID_I16);
    return bits >= 31 ? INT32_MAX : ((int64_t)1 << bits) - 1;
}

static int64_t read_i64(const unsigned char *bytes) {
    int64_t v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

static Status parse_header(MegatronIndex *x, const char *path, const unsigned char *data,
                           int64_t n) {
    if (n < MEGATRON_HEADER || memcmp(data, MEGATRON_MAGIC, 9) != 0)
        return status_fail(
            ERR_USER,
            "%s does not begin with Megatron's header (MMIDIDX, %d bytes): it is not "
            "the index of a .bin/.idx pair, or .bin and .idx are swapped",
            path, MEGATRON_HEADER);
    int64_t version = read_i64(data + 9);
    if (version != 1)
        return status_fail(ERR_USER, "%s is of version %lld at byte 9, expected 1", path,
                           (long long)version);
    int code = data[17];
    x->type = (IdType)code;
    if (code == 6 || code == 7)
        return status_fail(ERR_USER, "%s says at byte 17 that it holds %s, expected token ids",
                           path, code == 6 ? "float64" : "float32");
    if (code > 8 || id_type_bytes(x->type) == 0)
        return status_fail(ERR_USER,
                           "%s has type code %d at byte 17, expected 1, 2, 3, 4, 5 or 8; %s", path,
                           code, REMEDY);
    int64_t sequences = read_i64(data + 18), ends = read_i64(data + 26);
    int64_t rest = n - MEGATRON_HEADER;
    if (sequences == 0)
        return status_fail(ERR_USER, "%s has no documents: nothing can be read from it", path);
    /* 12 bytes a sequence, 8 a document, and with a mode for each sequence (multimodal) 1 more */
    bool fits =
        sequences > 0 && sequences <= rest / 12 && ends >= 2 && ends <= (rest - 12 * sequences) / 8;
    int64_t left = fits ? rest - 12 * sequences - 8 * ends : 0;
    if (!fits || (left != 0 && left != sequences))
        return status_fail(ERR_USER,
                           "%s has %lld bytes, but its header (bytes 18 to 33) speaks of %lld "
                           "sequences and %lld document ends; it is cut short or damaged: %s",
                           path, (long long)n, (long long)sequences, (long long)ends, REMEDY);
    x->sequences = sequences;
    x->documents = ends - 1;
    return OK;
}

/* ---- the numbers behind the header ------------------------------------------------------------
 */

/* Numbers of `size` bytes each, one after the other. */
typedef struct {
    const ByteFile *file;
    int64_t offset, left; /* numbers that have not been read */
    int size;
    int next, n;
    unsigned char block[32768];
} Numbers;

static Numbers *numbers_from(const ByteFile *file, int64_t offset, int64_t n, int size) {
    Numbers *s = NEW(Numbers, 1);
    s->file = file;
    s->offset = offset;
    s->left = n;
    s->size = size;
    return s;
}

static Status numbers_next(Numbers *s, int64_t *out) {
    if (s->next == s->n) {
        s->n = (int)i64_min(s->left, (int64_t)sizeof s->block / s->size);
        s->next = 0;
        CHECK(bytes_read(s->file, s->offset, (int64_t)s->n * s->size, s->block));
        s->offset += (int64_t)s->n * s->size;
        s->left -= s->n;
    }
    const unsigned char *at = s->block + (int64_t)s->next++ * s->size;
    if (s->size == 4) {
        int32_t v;
        memcpy(&v, at, sizeof v);
        *out = v;
    } else {
        *out = read_i64(at);
    }
    return OK;
}

typedef struct {
    const MegatronIndex *index;
    const ByteFile *file;
    const char *data_path;
    int64_t data_bytes;
} Parser;

/* What one process finds out for all. */
typedef struct {
    int64_t one_each; /* is every document one sequence? */
    int64_t starts[]; /* [sequences + 1] */
} Checked;

/* Lengths and pointers say the same twice: sequences lie back to back from the start of the .bin.
 */
static Status read_sequences(const Parser *p, Numbers *lengths, Numbers *pointers,
                             int64_t *starts) {
    const MegatronIndex *x = p->index;
    const char *path = bytes_path(p->file);
    int64_t size = id_type_bytes(x->type), at = 0, length, pointer;
    for (int64_t i = 0; i < x->sequences; i++) {
        CHECK(numbers_next(lengths, &length));
        CHECK(numbers_next(pointers, &pointer));
        if (length < 0)
            return status_fail(
                ERR_USER,
                "%s has length %lld for sequence %lld at byte %lld, expected 0 or more: "
                "%s",
                path, (long long)length, (long long)i, (long long)(MEGATRON_HEADER + 4 * i),
                REMEDY);
        if (pointer != at)
            return status_fail(
                ERR_USER,
                "%s says at byte %lld that sequence %lld starts at byte %lld of %s (%lld bytes), "
                "expected %lld, the end of the one before: %s",
                path, (long long)(MEGATRON_HEADER + 4 * x->sequences + 8 * i), (long long)i,
                (long long)pointer, p->data_path, (long long)p->data_bytes, (long long)at, REMEDY);
        starts[i] = at / size;
        at += length * size;
    }
    starts[x->sequences] = at / size;
    if (at != p->data_bytes)
        return status_fail(
            ERR_USER,
            "%s has %lld bytes, but its index %s describes %lld (%lld sequences of %s "
            "ids): one of the two is cut short or belongs to another pair; %s",
            p->data_path, (long long)p->data_bytes, path, (long long)at, (long long)x->sequences,
            id_type_name(x->type), REMEDY);
    if (at == 0)
        return status_fail(ERR_USER, "%s has %lld documents, all of them empty", path,
                           (long long)x->documents);
    return OK;
}

static Numbers *document_numbers(const Parser *p) {
    return numbers_from(p->file, MEGATRON_HEADER + 12 * p->index->sequences,
                        p->index->documents + 1, 8);
}

/* firsts [documents + 1]; NULL: they are only checked. */
static Status read_documents(const Parser *p, int64_t *firsts, int64_t *one_each) {
    const MegatronIndex *x = p->index;
    int64_t at = MEGATRON_HEADER + 12 * x->sequences, before = 0, first;
    Numbers *numbers = document_numbers(p);
    Status st = OK;
    *one_each = x->documents == x->sequences;
    for (int64_t d = 0; d <= x->documents; d++) {
        st = numbers_next(numbers, &first);
        if (st != OK) break;
        bool last = d == x->documents;
        if (first < before || first > x->sequences || (d == 0 && first != 0) ||
            (last && first != x->sequences)) {
            st = status_fail(ERR_USER,
                             "%s says at byte %lld that document %lld starts with sequence %lld, "
                             "expected %lld%s: %s",
                             bytes_path(p->file), (long long)(at + 8 * d), (long long)d,
                             (long long)first, (long long)(last ? x->sequences : before),
                             d == 0 || last ? "" : " or more", REMEDY);
            break;
        }
        before = first;
        if (first != d) *one_each = 0;
        if (firsts != NULL) firsts[d] = first;
    }
    free(numbers);
    return st;
}

static Status fill_starts(void *ctx, void *data) {
    const Parser *p = ctx;
    int64_t n = p->index->sequences;
    Checked *checked = data;
    Numbers *lengths = numbers_from(p->file, MEGATRON_HEADER, n, 4);
    Numbers *pointers = numbers_from(p->file, MEGATRON_HEADER + 4 * n, n, 8);
    Status st = read_sequences(p, lengths, pointers, checked->starts);
    free(lengths);
    free(pointers);
    return st != OK ? st : read_documents(p, NULL, &checked->one_each);
}

static Status fill_firsts(void *ctx, void *data) {
    int64_t one_each;
    return read_documents(ctx, data, &one_each);
}

Status megatron_open(MegatronIndex *x, ByteFile *file, const char *data_path, int64_t data_bytes) {
    *x = (MegatronIndex){0};
    unsigned char header[MEGATRON_HEADER] = {0};
    int64_t n = bytes_size(file);
    CHECK(bytes_read(file, 0, i64_min(n, MEGATRON_HEADER), header));
    CHECK(parse_header(x, bytes_path(file), header, n));
    Parser p = {.index = x, .file = file, .data_path = data_path, .data_bytes = data_bytes};
    StrBuf name = {0};
    bytes_identify(file, &name);
    strbuf_printf(&name, " of %lld bytes", (long long)data_bytes);
    Status st = share_open(&x->starts_share, strbuf_text(&name),
                           (int64_t)sizeof(Checked) + 8 * (x->sequences + 1), fill_starts, &p);
    if (st == OK) {
        const Checked *checked = share_data(x->starts_share);
        x->starts = checked->starts;
        x->tokens = x->starts[x->sequences];
        strbuf_printf(&name, ", documents");
        if (!checked->one_each)
            st = share_open(&x->firsts_share, strbuf_text(&name), 8 * (x->documents + 1),
                            fill_firsts, &p);
    }
    if (st == OK && x->firsts_share != NULL) x->firsts = share_data(x->firsts_share);
    strbuf_free(&name);
    return st;
}

void megatron_close(MegatronIndex *x) {
    share_close(x->starts_share);
    share_close(x->firsts_share);
    *x = (MegatronIndex){0};
}

int64_t megatron_document_from(const MegatronIndex *x, int64_t token) {
    int64_t low = 0, high = x->documents;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (megatron_document_start(x, middle) < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
