#include "data/megatron.h"

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

static Status parse_header(MegatronIndex *x, const char *path, const unsigned char *data,
                           int64_t n) {
    if (n < MEGATRON_HEADER || memcmp(data, MEGATRON_MAGIC, 9) != 0)
        return status_fail(
            ERR_USER,
            "%s does not begin with Megatron's header (MMIDIDX, %d bytes): it is not "
            "the index of a .bin/.idx pair, or .bin and .idx are swapped",
            path, MEGATRON_HEADER);
    int64_t version = megatron_i64(data + 9, 0);
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
    int64_t sequences = megatron_i64(data + 18, 0), ends = megatron_i64(data + 26, 0);
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

/* Lengths and pointers say the same twice: sequences lie back to back from the start of the .bin.
 */
static Status check_sequences(MegatronIndex *x, const char *path, const unsigned char *lengths,
                              const char *data_path, int64_t data_bytes) {
    int64_t size = id_type_bytes(x->type), at = 0;
    for (int64_t i = 0; i < x->sequences; i++) {
        int32_t length;
        memcpy(&length, lengths + 4 * i, sizeof length);
        int64_t pointer = megatron_i64(x->pointers, i);
        if (length < 0)
            return status_fail(
                ERR_USER,
                "%s has length %d for sequence %lld at byte %lld, expected 0 or more: "
                "%s",
                path, length, (long long)i, (long long)(MEGATRON_HEADER + 4 * i), REMEDY);
        if (pointer != at)
            return status_fail(
                ERR_USER,
                "%s says at byte %lld that sequence %lld starts at byte %lld of %s (%lld bytes), "
                "expected %lld, the end of the one before: %s",
                path, (long long)(MEGATRON_HEADER + 4 * x->sequences + 8 * i), (long long)i,
                (long long)pointer, data_path, (long long)data_bytes, (long long)at, REMEDY);
        at += length * size;
    }
    x->tokens = at / size;
    if (at != data_bytes)
        return status_fail(
            ERR_USER,
            "%s has %lld bytes, but its index %s describes %lld (%lld sequences of %s "
            "ids): one of the two is cut short or belongs to another pair; %s",
            data_path, (long long)data_bytes, path, (long long)at, (long long)x->sequences,
            id_type_name(x->type), REMEDY);
    return OK;
}

static Status check_documents(MegatronIndex *x, const char *path) {
    int64_t at = MEGATRON_HEADER + 12 * x->sequences, before = 0;
    bool one_each = x->documents == x->sequences;
    for (int64_t d = 0; d <= x->documents; d++) {
        int64_t first = megatron_i64(x->firsts, d);
        bool last = d == x->documents;
        if (first < before || first > x->sequences || (d == 0 && first != 0) ||
            (last && first != x->sequences))
            return status_fail(ERR_USER,
                               "%s says at byte %lld that document %lld starts with sequence %lld, "
                               "expected %lld%s: %s",
                               path, (long long)(at + 8 * d), (long long)d, (long long)first,
                               (long long)(last ? x->sequences : before),
                               d == 0 || last ? "" : " or more", REMEDY);
        before = first;
        one_each = one_each && first == d;
    }
    if (one_each) x->firsts = NULL;
    return OK;
}

Status megatron_parse(MegatronIndex *x, const char *path, const unsigned char *data, int64_t n,
                      const char *data_path, int64_t data_bytes) {
    *x = (MegatronIndex){0};
    CHECK(parse_header(x, path, data, n));
    const unsigned char *lengths = data + MEGATRON_HEADER;
    x->pointers = lengths + 4 * x->sequences;
    x->firsts = x->pointers + 8 * x->sequences;
    CHECK(check_sequences(x, path, lengths, data_path, data_bytes));
    if (x->tokens == 0)
        return status_fail(ERR_USER, "%s has %lld documents, all of them empty", path,
                           (long long)x->documents);
    return check_documents(x, path);
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
