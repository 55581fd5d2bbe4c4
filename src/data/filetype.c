#include "data/filetype.h"

#include <string.h>
#include <zlib.h>

#include "data/gzip.h"
#include "data/megatron.h"
#include "base/text.h"

/* What is looked at. */
typedef struct {
    const unsigned char *bytes;
    int64_t n;    /* the first ones */
    int64_t size; /* all; -1: not known */
} Head;

static uint64_t little_endian(const Head *h, int64_t at, int bytes) {
    uint64_t v = 0;
    for (int b = 0; b < bytes && at + b < h->n; b++) v |= (uint64_t)h->bytes[at + b] << 8 * b;
    return v;
}

static bool has(const Head *h, int64_t at, const char *text, int64_t len) {
    return at + len <= h->n && memcmp(h->bytes + at, text, (size_t)len) == 0;
}

/* ---- text -------------------------------------------------------------------------------------
 */

static bool is_control(unsigned char c) {
    return (c < 0x20 && !(c >= 9 && c <= 13)) || c == 0x7f;
}

/* Bytes of the longest beginning that is UTF-8 but for a character that the end cuts. */
static int64_t utf8_bytes(const char *text, int64_t n) {
    int64_t at = 0;
    while (at < n) {
        size_t len = utf8_length(text + at, (size_t)(n - at));
        if (len == 0) return n - at < 4 ? n : at;
        at += (int64_t)len;
    }
    return at;
}

/* Without control characters, and UTF-8 or mostly ASCII (as Latin-1 is). Raw ids of a real text are
 * never that: their upper bytes are small. */
static bool is_text(const Head *h) {
    int64_t n = i64_min(h->n, 4096), ascii = 0;
    for (int64_t i = 0; i < n; i++) {
        if (is_control(h->bytes[i])) return false;
        ascii += h->bytes[i] < 0x80;
    }
    return n >= 8 && (utf8_bytes((const char *)h->bytes, n) == n || ascii >= n - n / 4);
}

/* With a byte order mark; most of it are characters of one byte and a zero. */
static bool is_utf16(const Head *h) {
    int64_t n = h->n / 2, plain = 0;
    if (n < 16 || !(has(h, 0, "\xff\xfe", 2) || has(h, 0, "\xfe\xff", 2))) return false;
    int low = h->bytes[0] == 0xff ? 0 : 1;
    for (int64_t i = 1; i < n; i++)
        plain += h->bytes[2 * i + 1 - low] == 0 && !is_control(h->bytes[2 * i + low]);
    return plain >= n - n / 4;
}

static bool begins_with_word(const Head *h, int64_t at, const char *word) {
    for (; *word != '\0'; word++, at++) {
        if (at >= h->n) return false;
        unsigned char c = h->bytes[at];
        if ((c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c) != (unsigned char)*word) return false;
    }
    return true;
}

#define PREPARE "scripts/prepare.py turns it into tokens"
#define UNPACK  "unpack it and name the token files inside"
#define AGAIN   "fetch the file again"

static bool find_text(FileType *type, const Head *h) {
    *type = (FileType){"text", PREPARE, true};
    if (is_utf16(h)) {
        *type = (FileType){"text (UTF-16)", "save it as UTF-8; " PREPARE, true};
        return true;
    }
    if (!is_text(h)) return false;
    type->certain = h->n >= 256;
    int64_t at = has(h, 0, "\xef\xbb\xbf", 3) ? 3 : 0; /* a byte order mark */
    while (at < h->n && strchr(" \t\r\n", h->bytes[at]) != NULL) at++;
    if (has(h, at, "version https://git-lfs.github.com/spec/", 40))
        *type = (FileType){"a git-lfs pointer, not the file it stands for",
                           "`git lfs pull` fetches that", true};
    else if (begins_with_word(h, at, "<!doctype html") || begins_with_word(h, at, "<html"))
        type->name = "an HTML page, as a failed download leaves", type->advice = AGAIN;
    else if (begins_with_word(h, at, "<?xml"))
        type->name = "an XML document", type->advice = AGAIN;
    else if (at < h->n && (h->bytes[at] == '{' || h->bytes[at] == '['))
        type->name = "text (JSON)";
    return true;
}

/* ---- types with a structure to check -----------------------------------------------------------
 */

/* A header of JSON behind its length: weights, or a checkpoint of cria. */
static bool is_safetensors(const Head *h) {
    uint64_t len = little_endian(h, 0, 8);
    if (h->n < 16 || len < 2 || len > 100 << 20 || h->bytes[8] != '{') return false;
    if (h->size >= 0 && (int64_t)len > h->size - 8) return false;
    Head json = {h->bytes + 8, i64_min(h->n - 8, (int64_t)len), -1};
    return json.n < 8 || is_text(&json);
}

/* The sum of a header's bytes, with blanks in place of the sum, in octal. */
static bool is_tar(const Head *h) {
    enum { BLOCK = 512, SUM = 148, SUM_BYTES = 8 };
    if (h->n < BLOCK || h->bytes[0] == 0) return false;
    int64_t sum = 0, said = 0;
    for (int i = 0; i < BLOCK; i++) sum += i >= SUM && i < SUM + SUM_BYTES ? ' ' : h->bytes[i];
    int i = SUM;
    while (i < SUM + SUM_BYTES && h->bytes[i] == ' ') i++;
    for (; i < SUM + SUM_BYTES && h->bytes[i] >= '0' && h->bytes[i] <= '7'; i++)
        said = said * 8 + h->bytes[i] - '0';
    return said == sum;
}

/* A first entry with a method that exists and a printable name. */
static bool is_zip(const Head *h) {
    if (has(h, 0, "PK\5\6\0\0\0\0\0\0", 10)) return true; /* empty */
    int64_t name = (int64_t)little_endian(h, 26, 2);
    return has(h, 0, "PK\3\4", 4) && h->n > 30 && little_endian(h, 4, 2) <= 63 &&
           little_endian(h, 8, 2) <= 99 && name > 0 &&
           text_is_printable((const char *)h->bytes + 30, (size_t)i64_min(name, h->n - 30));
}

static bool is_xz(const Head *h) { /* magic, flags, their CRC-32 */
    return has(h, 0,
               "\xfd"
               "7zXZ\0",
               6) &&
           h->n >= 12 && crc32_z(0, h->bytes + 6, 2) == little_endian(h, 8, 4);
}

/* Protocol 4 or 5: the length of a frame; 2 or 3: what pickled objects begin with. */
static bool is_pickle(const Head *h) {
    if (h->n < 12 || h->bytes[0] != 0x80) return false;
    int64_t frame = (int64_t)little_endian(h, 3, 8);
    if (h->bytes[1] >= 4 && h->bytes[1] <= 5)
        return h->bytes[2] == 0x95 && frame > 0 &&
               (h->size >= 0 ? frame <= h->size - 11 : frame < INT64_C(1) << 40);
    if (h->bytes[1] < 2 || h->bytes[1] > 3) return false;
    if (has(h, 2, "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12)) return true; /* torch */
    const char *line = (const char *)h->bytes + 3, *end = memchr(line, '\n', (size_t)h->n - 3);
    if (h->bytes[2] == 'c') /* "cMODULE\nNAME\n" */
        return end != NULL && end - line >= 6 && text_is_printable(line, (size_t)(end - line));
    return has(h, 2, "]q\0(", 4) || has(h, 2, "}q\0(", 4);
}

/* A stream of Arrow: 0xffffffff, the length of a flatbuffer, its root. Hugging Face's `datasets`
 * write that. */
static bool is_arrow_stream(const Head *h) {
    uint64_t len = little_endian(h, 4, 4), root = little_endian(h, 8, 4);
    return has(h, 0, "\xff\xff\xff\xff", 4) && h->n >= 16 && len >= 8 && len < 16 << 20 &&
           len % 8 == 0 && root >= 4 && root < 256 && root % 2 == 0;
}

/* The literals of a compressed block (RFC 8878, 3.1.1.3.1): how many there are, in how many bytes.
 */
static bool zstd_literals_fit(const Head *h, int64_t at, uint64_t block) {
    static const int bits_of_raw[] = {5, 12, 5, 20}, bytes_of_raw[] = {1, 2, 1, 3};
    static const int bits_of_packed[] = {10, 10, 14, 18}, bytes_of_packed[] = {3, 3, 4, 5};
    uint64_t head = little_endian(h, at, 5);
    int type = head & 3, format = head >> 2 & 3;
    if (type == 3) return false; /* with the tree of an earlier block */
    bool packed = type == 2;
    int bits = packed ? bits_of_packed[format] : bits_of_raw[format];
    uint64_t size = head >> (packed || (format & 1) ? 4 : 3) & ((1u << bits) - 1);
    uint64_t taken = (uint64_t)(packed ? bytes_of_packed : bytes_of_raw)[format];
    if (packed)
        taken += head >> (4 + bits) & ((1u << bits) - 1);
    else
        taken += type == 0 ? size : 1;
    return size <= 128 << 10 && taken < block && (!packed || size > taken);
}

/* A frame header without reserved bits and dictionary, and a first block that can be one. */
static bool is_zstd(const Head *h) {
    static const int content_size[] = {0, 2, 4, 8};
    if (!has(h, 0, "\x28\xb5\x2f\xfd", 4) || h->n < 9) return false;
    int descriptor = h->bytes[4];
    if ((descriptor & 0x1b) != 0) return false;
    bool single = (descriptor & 0x20) != 0;
    int size = content_size[descriptor >> 6];
    if (single && size == 0) size = 1;
    int64_t at = 5 + !single + size;
    uint64_t block = little_endian(h, at, 3);
    bool last = block & 1;
    int type = block >> 1 & 3;
    block >>= 3;
    if (type == 2) return block >= 2 && block <= 128 << 10 && zstd_literals_fit(h, at + 3, block);
    int64_t end = at + 3 + (type == 0 ? (int64_t)block : 1) + ((descriptor & 4) != 0 ? 4 : 0);
    return type <= 1 && (last ? h->size < 0 || h->size == end : block == 128 << 10);
}

/* Likewise; blocks have 4 MiB at most. */
static bool is_lz4(const Head *h) {
    if (!has(h, 0, "\x04\x22\x4d\x18", 4) || h->n < 24) return false;
    int flags = h->bytes[4], block = h->bytes[5];
    if ((flags & 0xc3) != 0x40 || (block & 0x8f) != 0 || block >> 4 < 4) return false;
    uint64_t first = little_endian(h, (flags & 0x08) != 0 ? 15 : 7, 4) & 0x7fffffff;
    return first <= 4 << 20;
}

/* The header of the first page: its type and size as numbers of Thrift's compact protocol. */
static bool is_parquet(const Head *h) {
    return has(h, 0, "PAR1\x15", 5) && h->n > 6 && (h->bytes[5] & 0xf9) == 0 && h->bytes[6] == 0x15;
}

static bool is_inner_gzip(const Head *h) {
    unsigned char out[4096];
    return gzip_inflate_head(h->bytes, h->n, out, sizeof out) > 0;
}

static bool is_gguf(const Head *h) {
    uint64_t version = little_endian(h, 4, 4);
    return has(h, 0, "GGUF", 4) && h->n >= 24 && version >= 1 && version <= 16;
}

static bool is_riff(const Head *h) {
    return has(h, 0, "RIFF", 4) && (has(h, 8, "WEBP", 4) || has(h, 8, "WAVE", 4));
}

/* The name of the first segment, or a second one right behind it. */
static bool is_jpeg(const Head *h) {
    if (!has(h, 0, "\xff\xd8\xff", 3) || h->n < 12) return false;
    int64_t next = 4 + ((int64_t)h->bytes[4] << 8 | h->bytes[5]);
    return has(h, 6, "JFIF", 5) || has(h, 6, "Exif", 5) ||
           (h->bytes[3] >= 0xc0 && has(h, next, "\xff", 1) &&
            little_endian(h, next + 1, 1) >= 0xc0);
}

static bool is_bzip2(const Head *h) {
    return has(h, 0, "BZh", 3) && has(h, 4, "\x31\x41\x59\x26\x53\x59", 6);
}

/* llm.c's header counts the ids. */
static bool is_llmc(const Head *h) {
    bool narrow = has(h, 0, "\x88\xd8\x34\x01\x01\0\0\0", 8);
    if (!narrow && !has(h, 0, "\xa1\xd9\x34\x01\x07\0\0\0", 8)) return false;
    int64_t bytes = 1024 + (int64_t)little_endian(h, 8, 4) * (narrow ? 2 : 4);
    return h->size < 0 || h->size == bytes;
}

static bool has_small_version(const Head *h) {
    return h->n >= 12 && little_endian(h, 4, 4) < 256;
}

static bool is_any(const Head *h) {
    (void)h;
    return true;
}

/* ---- the table --------------------------------------------------------------------------------
 */

#define ELF_64                                                                                     \
    "\x7f"                                                                                         \
    "ELF\x02\x01\x01"
#define LLMC_BAD "an llm.c shard that is cut short or of an unknown version"
#define NUMPY    "write the bare ids: array.astype('<u2').tofile(PATH)"
#define WEIGHTS                                                                                    \
    "token files go into data.train and data.val; --resume, cria check and cria export "           \
    "take checkpoints, cria import takes a Hugging Face directory"
#define DATASET                                                                                    \
    "`datasets` writes the texts as .jsonl or .parquet (to_json, to_parquet), which "              \
    "scripts/prepare.py turns into tokens"

/* First what is recognized by its structure, then by magic bytes alone. */
static const struct {
    bool (*check)(const Head *h);
    const char *magic;
    int64_t len;
    const char *name, *advice;
} types[] = {
    {is_inner_gzip, "\x1f\x8b", 2, "a gzip file inside another", "decompress it once"},
    {is_llmc, "", 0, "an llm.c shard", "set data.format auto or llmc"},
    {is_safetensors, "", 0, "a safetensors file (weights or a checkpoint)", WEIGHTS},
    {is_gguf, "GGUF", 4, "a GGUF file (weights)", WEIGHTS},
    {is_zip, "PK", 2, "a zip archive (as .npz and .pt files are)", UNPACK},
    {is_tar, "", 0, "a tar archive", UNPACK},
    {is_xz, "\xfd", 1, "an xz file", UNPACK},
    {is_bzip2, "BZh", 3, "a bzip2 file", UNPACK},
    {is_zstd, "\x28\xb5", 2, "a zstd file", UNPACK},
    {is_lz4, "\x04\x22", 2, "an lz4 file", UNPACK},
    {is_any, "7z\xbc\xaf\x27\x1c", 6, "a 7-Zip archive", UNPACK},
    {is_any, "Rar!\x1a\x07", 6, "a RAR archive", UNPACK},
    {is_any, "\x89PNG\r\n\x1a\n", 8, "a PNG image", NULL},
    {is_jpeg, "\xff\xd8\xff", 3, "a JPEG image", NULL},
    {is_any, "GIF87a", 6, "a GIF image", NULL},
    {is_any, "GIF89a", 6, "a GIF image", NULL},
    {is_riff, "RIFF", 4, "a WebP image or WAVE sound", NULL},
    {is_any, "%PDF-1.", 7, "a PDF document", PREPARE " once its text is extracted"},
    {is_any, "%PDF-2.", 7, "a PDF document", PREPARE " once its text is extracted"},
    {is_any, ELF_64, 7, "a program", NULL},
    {is_any, "SQLite format 3", 16, "an SQLite database", NULL},
    {is_any, "\x0a\x0e\x0a\x05<unk>", 9, "a SentencePiece tokenizer", NULL},
    {is_any, "ARROW1\0\0", 8, "an Arrow file", DATASET},
    {is_arrow_stream, "\xff\xff\xff\xff", 4, "an Arrow file", DATASET},
    {is_parquet, "PAR1", 4, "a parquet file", PREPARE},
    {is_any, "\x89HDF\r\n\x1a\n", 8, "an HDF5 file", NUMPY},
    {is_any, "\x93NUMPY", 6, "a NumPy .npy file", NUMPY},
    {is_pickle, "\x80", 1, "a Python pickle", NUMPY},
    {is_any, MEGATRON_MAGIC, 9, "a Megatron index whose .bin is missing", NULL},
    {is_any, "BIN.TOK\n", 8, "an LLM.Q token file", "cria does not read it; convert it"},
    {has_small_version, "\x8a\xd8\x34\x01", 4, "an llm.c evaluation file", NULL},
    {has_small_version, "\x88\xd8\x34\x01", 4, LLMC_BAD, NULL},
    {has_small_version, "\xa1\xd9\x34\x01", 4, LLMC_BAD, NULL},
};

bool filetype_find(FileType *type, const unsigned char *head, int64_t n, int64_t size) {
    Head h = {head, n, size};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (has(&h, 0, types[i].magic, types[i].len) && types[i].check(&h)) {
            *type = (FileType){types[i].name, types[i].advice, true};
            return true;
        }
    return find_text(type, &h);
}

/* ---- wider ids --------------------------------------------------------------------------------
 */

int filetype_id_bytes(const unsigned char *head, int64_t n) {
    enum { LEAST = 128, SMALL = 16 }; /* ids that tell; the upper half of an id below 2^20 */
    uint64_t upper = 0, lower = 0, quarters[4] = {0};
    Head h = {head, n, -1};
    for (int64_t i = 0; i < n / 8; i++)
        for (int q = 0; q < 4; q++) quarters[q] |= little_endian(&h, 8 * i + 2 * q, 2);
    if (n / 8 >= LEAST && quarters[0] >= 16 * SMALL && quarters[1] < SMALL && quarters[2] == 0 &&
        quarters[3] == 0)
        return 8;
    for (int64_t i = 0; i < n / 4; i++) {
        uint64_t u = little_endian(&h, 4 * i + 2, 2), l = little_endian(&h, 4 * i, 2);
        upper = u > upper ? u : upper;
        lower = l > lower ? l : lower;
    }
    return n / 4 >= LEAST && upper < SMALL && lower >= 16 * SMALL ? 4 : 0;
}
