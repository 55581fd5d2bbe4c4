#include "data/tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "data/bytes.h"
#include "data/filetype.h"
#include "data/gzip.h"
#include "base/file.h"
#include "base/text.h"
#include "base/log.h"

struct TokenFile {
    ByteFile *bytes;
    ByteFile *index_bytes; /* NULL: the format has no index */
    MegatronIndex index;
    const unsigned char *head; /* the first bytes of the content: */
    int64_t head_bytes;
    DataFormat format;
    IdType type;
    int64_t begin; /* byte offset of the first id in the content */
    int64_t count;
    bool eod_first; /* the eod id opens a document instead of ending one */
};

/* ---- formats ------------------------------------------------------------------------------ */

typedef struct {
    DataFormat format;
    bool (*recognize)(const TokenFile *file); /* asked in table order under FORMAT_AUTO */
    /* Checks the layout, sets type, begin and count. `wanted` is what the user said. */
    Status (*locate)(TokenFile *file, DataFormat wanted);
} TokenFormat;

/* A file that cannot be looked at now is there, too: opening it then says why. */
static bool exists(const char *path) {
    return access(path, F_OK) == 0 || file_open_status(errno) == ERR_ENV;
}

static bool begins_with(const TokenFile *f, const void *magic, int64_t n) {
    return f->head_bytes >= n && memcmp(f->head, magic, (size_t)n) == 0;
}

#define EXPECTED "expected token ids (nanogpt, megatron or llmc)"

/* Refuses what is certainly something else. */
static Status refuse_other_type(const TokenFile *f) {
    FileType type;
    int64_t size = bytes_is_gzip(f->bytes) ? -1 : bytes_size(f->bytes);
    if (!filetype_find(&type, f->head, f->head_bytes, size) || !type.certain) return OK;
    return status_fail(ERR_USER, "%s is %s%s, " EXPECTED "%s%s", bytes_path(f->bytes), type.name,
                       bytes_is_gzip(f->bytes) ? ", compressed with gzip" : "",
                       type.advice != NULL ? "; " : "", type.advice != NULL ? type.advice : "");
}

/* PREFIX.bin[.gz] -> PREFIX.idx, or PREFIX.idx.gz when only that exists; NULL for other names. */
static char *index_path(const char *data_path) {
    size_t n = strlen(data_path);
    if (text_ends_with(data_path, ".gz")) n -= 3;
    if (n < 4 || memcmp(data_path + n - 4, ".bin", 4) != 0) return NULL;
    char *plain = mem_printf("%.*s.idx", (int)n - 4, data_path);
    char *packed = mem_printf("%s.gz", plain);
    bool use_packed = !exists(plain) && exists(packed);
    free(use_packed ? plain : packed);
    return use_packed ? packed : plain;
}

/* The file of ids that a name stands for: itself, or of a pair the .bin. */
static char *data_path(const char *path) {
    static const char *const ends[] = {".bin", ".bin.gz"};
    size_t n = strlen(path);
    if (text_ends_with(path, ".idx.gz"))
        n -= 7;
    else if (text_ends_with(path, ".idx"))
        n -= 4;
    else if (exists(path))
        return mem_strdup(path);
    for (int i = 0; i < 2; i++) {
        char *candidate = mem_printf("%.*s%s", (int)n, path, ends[i]);
        if (exists(candidate)) return candidate;
        free(candidate);
    }
    return mem_strdup(path);
}

static bool megatron_recognize(const TokenFile *f) {
    char *path = index_path(bytes_path(f->bytes));
    bool found = path != NULL && exists(path);
    free(path);
    return found;
}

static Status megatron_locate(TokenFile *f, DataFormat wanted) {
    (void)wanted;
    const char *path = bytes_path(f->bytes);
    if (begins_with(f, MEGATRON_MAGIC, 9))
        return status_fail(
            ERR_USER,
            "%s is a Megatron index, expected token ids: name the .bin beside it (are "
            "the two swapped?)",
            path);
    if (!megatron_recognize(f)) CHECK(refuse_other_type(f));
    char *of_index = index_path(path);
    if (of_index == NULL)
        return status_fail(
            ERR_USER, "%s is not named PREFIX.bin, by which Megatron's index PREFIX.idx is found",
            path);
    Status st = bytes_open(&f->index_bytes, of_index, false);
    free(of_index);
    CHECK(st);
    CHECK(bytes_index(f->index_bytes));
    CHECK(bytes_index(f->bytes));
    CHECK(megatron_open(&f->index, f->index_bytes, path, bytes_size(f->bytes)));
    f->type = f->index.type;
    f->count = f->index.tokens;
    return OK;
}

/* llm.c: 256 int32 (magic, version, number of ids), then the ids. */
enum { LLMC_HEADER = 1024 };
static const struct {
    const char *magic; /* with the version: 8 bytes */
    IdType type;
} llmc_kinds[] = {{"\x88\xd8\x34\x01\x01\0\0\0", ID_U16},  /* 20240520, 1: GPT-2 ids */
                  {"\xa1\xd9\x34\x01\x07\0\0\0", ID_U32}}; /* 20240801, 7: Llama-3 ids */

static int llmc_kind(const TokenFile *f) {
    for (int k = 0; k < 2; k++)
        if (begins_with(f, llmc_kinds[k].magic, 8)) return k;
    return -1;
}

static bool llmc_recognize(const TokenFile *f) {
    return llmc_kind(f) >= 0;
}

static Status llmc_locate(TokenFile *f, DataFormat wanted) {
    (void)wanted;
    const char *path = bytes_path(f->bytes);
    int kind = llmc_kind(f);
    int32_t count = 0;
    if (f->head_bytes >= 12) memcpy(&count, f->head + 8, sizeof count);
    if (kind < 0 && !begins_with(f, llmc_kinds[0].magic, 4) &&
        !begins_with(f, llmc_kinds[1].magic, 4))
        CHECK(refuse_other_type(f));
    if (kind < 0)
        return status_fail(
            ERR_USER,
            "%s does not begin with llm.c's header (20240520 and 1, or 20240801 and 7, "
            "as int32): it is of another format or version; data.format auto looks",
            path);
    CHECK(bytes_index(f->bytes));
    f->type = llmc_kinds[kind].type;
    f->begin = LLMC_HEADER;
    f->count = count;
    f->eod_first = true;
    int64_t expected = LLMC_HEADER + count * (int64_t)id_type_bytes(f->type);
    if (count < 0 || bytes_size(f->bytes) != expected)
        return status_fail(
            ERR_USER,
            "%s has %lld bytes, but its header (byte 8) speaks of %d ids of %d bytes, "
            "which makes %lld: it is cut short or damaged; make or fetch it again",
            path, (long long)bytes_size(f->bytes), count, id_type_bytes(f->type),
            (long long)expected);
    if (count == 0) return status_fail(ERR_USER, "%s holds no ids, only a header", path);
    return OK;
}

/* What a file of raw ids may yet be: `format` auto refuses it, nanogpt is the user's word. */
static Status doubt(DataFormat format, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static Status doubt(DataFormat format, const char *fmt, ...) {
    StrBuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    Status st = OK;
    if (format == FORMAT_NANOGPT)
        log_warn_once("%s; it is read as raw uint16 ids, as data.format nanogpt says", text.text);
    else
        st = status_fail(ERR_USER,
                         "%s; if it holds raw uint16 ids after all, set data.format "
                         "nanogpt",
                         text.text);
    strbuf_free(&text);
    return st;
}

/* Raw ids of 4 or 8 bytes, as a .bin of Megatron's without its index. */
static Status doubt_width(const TokenFile *f, DataFormat format) {
    int bytes = filetype_id_bytes(f->head, f->head_bytes);
    const char *path = bytes_path(f->bytes);
    if (bytes == 0) return OK;
    char *index = index_path(path);
    Status st =
        doubt(format,
              "%s looks like %d-bit ids: %s 16-bit numbers of its first %lld bytes are "
              "below 16, expected uint16 ids. cria reads wider ids as a Megatron pair%s%s%s "
              "or in llm.c shards (data/README.md)",
              path, 8 * bytes, bytes == 4 ? "every second of the" : "three of four",
              (long long)f->head_bytes, index != NULL ? ", whose " : "", index != NULL ? index : "",
              index != NULL ? " is not there," : "");
    free(index);
    return st;
}

static Status doubt_type(const TokenFile *f, DataFormat format) {
    FileType type;
    if (!filetype_find(&type, f->head, f->head_bytes, -1)) return OK;
    return doubt(format, "%s looks like %s, " EXPECTED, bytes_path(f->bytes), type.name);
}

/* nanoGPT: raw little-endian uint16, no header: any bytes could be it. */
static bool nanogpt_recognize(const TokenFile *f) {
    (void)f;
    return true;
}

static Status nanogpt_locate(TokenFile *f, DataFormat wanted) {
    CHECK(refuse_other_type(f));
    CHECK(doubt_type(f, wanted));
    CHECK(doubt_width(f, wanted));
    if (!bytes_is_gzip(f->bytes) && gzip_has_magic(f->head, f->head_bytes))
        log_warn_once("%s begins like gzip, but cannot be decompressed; it is read as raw uint16 "
                      "ids, as data.format nanogpt says",
                      bytes_path(f->bytes));
    CHECK(bytes_index(f->bytes));
    int64_t n = bytes_size(f->bytes);
    if (n % 2 != 0)
        return status_fail(
            ERR_USER,
            "%s has an odd size of %lld bytes, but ids are 2 bytes each (raw uint16); "
            "is it cut short, or not a nanoGPT token file?",
            bytes_path(f->bytes), (long long)n);
    f->type = ID_U16;
    f->count = n / 2;
    return OK;
}

/* In order of certainty; nanoGPT's files have nothing to be known by. */
static const TokenFormat formats[] = {
    {FORMAT_LLMC, llmc_recognize, llmc_locate},
    {FORMAT_MEGATRON, megatron_recognize, megatron_locate},
    {FORMAT_NANOGPT, nanogpt_recognize, nanogpt_locate},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static Status locate(TokenFile *f, DataFormat wanted) {
    int i = 0;
    while (wanted == FORMAT_AUTO ? !formats[i].recognize(f) : formats[i].format != wanted) i++;
    REQUIRE(i < N_FORMATS);
    f->format = formats[i].format;
    return formats[i].locate(f, wanted);
}

/* ---- files -------------------------------------------------------------------------------- */

static Status open_file(TokenFile *f, const char *path, DataFormat format) {
    char *of_data = data_path(path);
    Status st = bytes_open(&f->bytes, of_data, format == FORMAT_NANOGPT);
    free(of_data);
    CHECK(st);
    f->head = bytes_head(f->bytes, &f->head_bytes);
    return locate(f, format);
}

Status tokens_open(TokenFile **out, const char *path, DataFormat format) {
    TokenFile *f = NEW(TokenFile, 1);
    Status st = open_file(f, path, format);
    if (st != OK) {
        tokens_close(f);
        f = NULL;
    }
    *out = f;
    return st;
}

void tokens_close(TokenFile *f) {
    if (f == NULL) return;
    megatron_close(&f->index);
    bytes_close(f->bytes);
    bytes_close(f->index_bytes);
    free(f);
}

const char *tokens_path(const TokenFile *f) {
    return bytes_path(f->bytes);
}
int64_t tokens_count(const TokenFile *f) {
    return f->count;
}
DataFormat tokens_format(const TokenFile *f) {
    return f->format;
}
IdType tokens_id_type(const TokenFile *f) {
    return f->type;
}
const MegatronIndex *tokens_index(const TokenFile *f) {
    return f->index_bytes != NULL ? &f->index : NULL;
}
bool tokens_is_gzip(const TokenFile *f) {
    return bytes_is_gzip(f->bytes);
}
int64_t tokens_bytes(const TokenFile *f) {
    return bytes_on_disk(f->bytes);
}

uint32_t tokens_fingerprint(const TokenFile *f) {
    uint32_t crc = bytes_fingerprint(f->bytes);
    if (f->index_bytes == NULL) return crc;
    uint32_t of_index = bytes_fingerprint(f->index_bytes);
    return (uint32_t)crc32(crc, (const Bytef *)&of_index, sizeof of_index);
}

bool tokens_modified(const TokenFile *f, bool *index) {
    *index = f->index_bytes != NULL && bytes_modified(f->index_bytes);
    return *index || bytes_modified(f->bytes);
}

Status tokens_check_eod(const TokenFile *f, int64_t eod, const char *name) {
    int64_t largest = id_type_largest(f->type);
    if (eod <= largest) return OK;
    return status_fail(
        ERR_USER,
        "%s is %lld, which cannot occur in %s: its ids are %s, at most %lld; either it "
        "was made with another tokenizer, or it holds wider ids, which cria reads as a "
        "Megatron pair or in llm.c shards (data/README.md)",
        name, (long long)eod, tokens_path(f), id_type_name(f->type), (long long)largest);
}

/* ---- ids ---------------------------------------------------------------------------------- */

/* An id outside 0 <= id < vocab sets `bad`; the loops vectorize. */
#define WIDEN(T)                                                                                   \
    do {                                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                          \
            T id;                                                                                  \
            memcpy(&id, raw + i * (int64_t)sizeof id, sizeof id);                                  \
            out[i] = (int32_t)id;                                                                  \
            bad |= (uint64_t)(int64_t)id >= (uint64_t)vocab;                                       \
        }                                                                                          \
    } while (0)

/* Most ids are 2 or 4 bytes: compared as 32 bits, twice as many at a time. */
#define WIDEN32(T)                                                                                 \
    do {                                                                                           \
        const uint32_t limit = (uint32_t)vocab;                                                    \
        for (int64_t i = 0; i < n; i++) {                                                          \
            T id;                                                                                  \
            memcpy(&id, raw + i * (int64_t)sizeof id, sizeof id);                                  \
            out[i] = (int32_t)id;                                                                  \
            bad |= (uint32_t)id >= limit;                                                          \
        }                                                                                          \
    } while (0)

static bool widen(IdType type, const unsigned char *restrict raw, int64_t n, int64_t vocab,
                  int32_t *restrict out) {
    int bad = 0;
    switch (type) {
    case ID_U8:
        WIDEN32(uint8_t);
        break;
    case ID_I8:
        WIDEN32(int8_t);
        break;
    case ID_I16:
        WIDEN32(int16_t);
        break;
    case ID_I32:
        WIDEN32(int32_t);
        break;
    case ID_U16:
        WIDEN32(uint16_t);
        break;
    case ID_U32:
        WIDEN32(uint32_t);
        break;
    case ID_I64:
        WIDEN(int64_t);
        break;
    }
    return bad == 0;
}

static int64_t id_at(IdType type, const unsigned char *raw, int64_t i) {
    int bytes = id_type_bytes(type);
    bool is_signed = type != ID_U8 && type != ID_U16 && type != ID_U32;
    uint64_t v = 0;
    for (int b = 0; b < bytes; b++) v |= (uint64_t)raw[i * bytes + b] << 8 * b;
    if (is_signed && bytes < 8 && v >> (8 * bytes - 1) != 0) v |= UINT64_MAX << 8 * bytes;
    return (int64_t)v;
}

static Status bad_id(const TokenFile *f, const unsigned char *raw, int64_t begin, int64_t vocab) {
    int64_t i = 0, id;
    while (id = id_at(f->type, raw, i), id >= 0 && id < vocab) i++;
    StrBuf expected = {0};
    if (vocab == INT32_MAX)
        strbuf_printf(&expected, "ids are from 0 to %d", INT32_MAX - 1);
    else
        strbuf_printf(&expected, "model.vocab is %lld", (long long)vocab);
    status_fail(ERR_USER,
                "token file %s has id %lld at byte %lld%s (token %lld), but %s: the file was "
                "made with another tokenizer, is damaged, or does not hold %s ids",
                tokens_path(f), (long long)id,
                (long long)(f->begin + (begin + i) * id_type_bytes(f->type)),
                tokens_is_gzip(f) ? " of its content" : "", (long long)(begin + i), expected.text,
                id_type_name(f->type));
    strbuf_free(&expected);
    return ERR_USER;
}

Status tokens_read(const TokenFile *f, int64_t begin, int64_t n, int64_t vocab, int32_t *out) {
    REQUIRE(begin >= 0 && n >= 0 && begin <= f->count && n <= f->count - begin);
    unsigned char raw[32768]; /* stays in the first-level cache */
    vocab = i64_min(vocab, INT32_MAX);
    const int64_t size = id_type_bytes(f->type), most = (int64_t)sizeof raw / size;
    for (int64_t done = 0; done < n;) {
        int64_t part = i64_min(most, n - done);
        CHECK(bytes_read(f->bytes, f->begin + (begin + done) * size, part * size, raw));
        if (!widen(f->type, raw, part, vocab, out + done))
            return bad_id(f, raw, begin + done, vocab);
        done += part;
    }
    return OK;
}

/* ---- documents ------------------------------------------------------------------------------ */

int64_t tokens_boundaries(const TokenFile *f, int64_t begin, int64_t n, int64_t eod,
                          const int32_t *ids, int32_t *out) {
    int64_t found = 0;
    if (f->index_bytes != NULL) {
        int64_t last = -1; /* empty documents begin where the next one does */
        int64_t d = megatron_document_from(&f->index, begin + 1);
        for (; d < f->index.documents; d++) {
            int64_t p = megatron_document_start(&f->index, d) - begin;
            if (p > n || begin + p == f->count) break;
            if (p != last) out[found++] = (int32_t)p;
            last = p;
        }
        return found;
    }
    if (eod < 0) return 0;
    int64_t shift = f->eod_first ? 0 : 1, end = i64_min(n, f->count - 1 - begin);
    const int32_t mark = (int32_t)eod;
    for (int64_t p = 1, next; p <= end; p = next) {
        next = i64_min(p + 64, end + 1);
        int any = 0; /* most stretches have none: this loop vectorizes */
        /* ids has the token behind the n-th, too, unless the file ends there */
        /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
        for (int64_t i = p; i < next; i++) any |= ids[i - shift] == mark;
        for (int64_t i = p; any && i < next; i++)
            if (ids[i - shift] == mark) out[found++] = (int32_t)i;
    }
    return found;
}

Status tokens_document_from(const TokenFile *f, int64_t token, int64_t eod, int64_t *out) {
    enum { STEP = 8192 };
    *out = 0;
    if (token == 0) return OK;
    if (f->index_bytes != NULL) {
        *out = megatron_document_start(&f->index, megatron_document_from(&f->index, token));
        return OK;
    }
    int32_t ids[STEP + 1], found[STEP];
    for (int64_t begin = token - 1; begin < f->count; begin += STEP) {
        int64_t n = i64_min(STEP, f->count - begin);
        CHECK(tokens_read(f, begin, i64_min(n + 1, f->count - begin), INT32_MAX, ids));
        if (tokens_boundaries(f, begin, n, eod, ids, found) > 0) {
            *out = begin + found[0];
            return OK;
        }
    }
    *out = f->count;
    return OK;
}
