#include "data/tokens.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct TokenFile {
    char *path;
    int fd;
    const unsigned char *map; /* the whole file */
    int64_t bytes, count;
    const uint16_t *ids; /* [count], little-endian, inside the map */
    uint32_t fingerprint;
};

/* ---- formats ------------------------------------------------------------------------------ */

typedef struct {
    DataFormat format;
    bool (*recognize)(const TokenFile *file); /* asked in table order under FORMAT_AUTO */
    Status (*locate)(TokenFile *file);        /* checks the layout, sets ids and count */
} TokenFormat;

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Content that cannot be meant as raw ids although it could be read as such: training on a header
 * or on compressed bytes would only show as a strange loss. */
static const char *foreign_content(const TokenFile *file) {
    static const struct {
        const char *magic;
        size_t len;
        const char *name;
    } known[] = {
        {"\x1f\x8b", 2, "a gzip file"},
        {"\x28\xb5\x2f\xfd", 4, "a zstd file"},
        {"\x88\xd8\x34\x01\x01\x00\x00\x00", 8, "an llm.c shard (GPT-2)"},
        {"\xc1\xda\x34\x01\x07\x00\x00\x00", 8, "an llm.c shard (Llama 3)"},
        {"MMIDIDX\0\0", 9, "a Megatron index"},
        {"\x93NUMPY", 6, "a NumPy .npy file"},
        {"PK\x03\x04", 4, "a zip archive"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (file->bytes >= (int64_t)known[i].len &&
            memcmp(file->map, known[i].magic, known[i].len) == 0)
            return known[i].name;
    if (ends_with(file->path, ".bin")) {
        char *index = mem_printf("%.*s.idx", (int)strlen(file->path) - 4, file->path);
        bool found = access(index, F_OK) == 0;
        free(index);
        if (found) return "the data of a Megatron .bin/.idx pair";
    }
    return NULL;
}

/* nanoGPT: raw little-endian uint16, no header. */
static bool nanogpt_recognize(const TokenFile *file) {
    return foreign_content(file) == NULL;
}

static Status nanogpt_locate(TokenFile *file) {
    if (file->bytes % 2 != 0)
        return status_fail(
            ERR_USER,
            "%s has an odd size of %lld bytes, but ids are 2 bytes each (raw uint16); "
            "is it cut short, or not a nanoGPT token file?",
            file->path, (long long)file->bytes);
    file->ids = (const uint16_t *)(const void *)file->map; /* a map starts on a page */
    file->count = file->bytes / 2;
    return OK;
}

static const TokenFormat formats[] = {
    {FORMAT_NANOGPT, nanogpt_recognize, nanogpt_locate},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static Status find_format(const TokenFile *file, DataFormat wanted, const TokenFormat **out) {
    static const char *const names[] = {"auto", "nanogpt", "megatron", "llmc"};
    for (int i = 0; i < N_FORMATS; i++) {
        *out = &formats[i];
        if (wanted == FORMAT_AUTO ? (*out)->recognize(file) : (*out)->format == wanted) return OK;
    }
    StrBuf known = {0};
    for (int i = 0; i < N_FORMATS; i++)
        strbuf_printf(&known, "%s%s", i > 0 ? ", " : "", names[formats[i].format]);
    if (wanted == FORMAT_AUTO)
        status_fail(ERR_USER,
                    "%s looks like %s, and this build reads: %s; convert it, or set data.format if "
                    "it is of a listed format after all",
                    file->path, foreign_content(file), strbuf_text(&known));
    else
        status_fail(ERR_USER, "%s: data.format is %s, and this build reads: %s", file->path,
                    names[wanted], strbuf_text(&known));
    strbuf_free(&known);
    return ERR_USER;
}

/* ---- files -------------------------------------------------------------------------------- */

static Status map_file(TokenFile *file) {
    /* O_NONBLOCK: opening a FIFO by mistake must not hang */
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0)
        return status_fail(ERR_USER, "cannot open token file %s: %s", file->path, strerror(errno));
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return status_fail(ERR_ENV, "cannot stat token file %s: %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return status_fail(ERR_USER, "%s is %s, but a token file is expected", file->path,
                           S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    if (info.st_size == 0)
        return status_fail(ERR_USER, "token file %s is empty (0 bytes)", file->path);
    file->bytes = info.st_size;
    void *map = mmap(NULL, (size_t)file->bytes, PROT_READ, MAP_SHARED, file->fd, 0);
    if (map == MAP_FAILED)
        return status_fail(ERR_ENV, "cannot map token file %s (%lld bytes): %s", file->path,
                           (long long)file->bytes, strerror(errno));
    file->map = map;
    /* tokens_read says itself what it needs, so a miss should not drag in its neighbourhood */
    madvise(map, (size_t)file->bytes, MADV_RANDOM);
    return OK;
}

/* Both ends, where preparation scripts differ first, and blocks spread over the rest. */
static uint32_t sample_contents(const TokenFile *file) {
    enum { END = 65536, BLOCK = 4096, BLOCKS = 16 };
    const char *slash = strrchr(file->path, '/'), *base = slash != NULL ? slash + 1 : file->path;
    uint64_t size = htole64((uint64_t)file->bytes);
    uLong crc = crc32(0, (const Bytef *)base, (uInt)strlen(base));
    crc = crc32(crc, (const Bytef *)&size, sizeof size);
    int64_t end = i64_min(END, file->bytes), block = i64_min(BLOCK, file->bytes);
    crc = crc32(crc, file->map, (uInt)end);
    for (int64_t i = 0; i < BLOCKS; i++)
        crc = crc32(crc, file->map + (file->bytes - block) / BLOCKS * i, (uInt)block);
    return (uint32_t)crc32(crc, file->map + file->bytes - end, (uInt)end);
}

Status tokens_open(TokenFile **out, const char *path, DataFormat format) {
    TokenFile *file = NEW(TokenFile, 1);
    const TokenFormat *found;
    Status st;
    file->path = mem_strdup(path);
    CHECK_GOTO(map_file(file), fail);
    CHECK_GOTO(find_format(file, format, &found), fail);
    CHECK_GOTO(found->locate(file), fail);
    file->fingerprint = sample_contents(file);
    *out = file;
    return OK;
fail:
    tokens_close(file);
    *out = NULL;
    return st;
}

void tokens_close(TokenFile *file) {
    if (file == NULL) return;
    if (file->map != NULL) munmap((void *)(uintptr_t)file->map, (size_t)file->bytes);
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    free(file);
}

const char *tokens_path(const TokenFile *file) {
    return file->path;
}
int64_t tokens_count(const TokenFile *file) {
    return file->count;
}
uint32_t tokens_fingerprint(const TokenFile *file) {
    return file->fingerprint;
}

/* Reading a mapped page that is no longer in the file raises SIGBUS. Looking at the size first
 * turns a file that was truncated or rewritten during a run into a sentence; what remains is a cut
 * in the microseconds between this and the copy, or a read error of the disk: those still end the
 * process. */
static Status check_size(const TokenFile *file) {
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return status_fail(ERR_ENV, "cannot stat token file %s: %s", file->path, strerror(errno));
    if (info.st_size < file->bytes)
        return status_fail(ERR_ENV,
                           "token file %s shrank from %lld to %lld bytes while in use; restore it "
                           "and resume",
                           file->path, (long long)file->bytes, (long long)info.st_size);
    return OK;
}

/* One request for the whole range instead of one page fault after the other. */
static void will_need(const void *begin, int64_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)begin;
    uintptr_t first = at / page * page;
    madvise((void *)first, (size_t)bytes + (at - first), MADV_WILLNEED);
}

Status tokens_read(const TokenFile *file, int64_t begin, int64_t n, int64_t vocab, int32_t *out) {
    REQUIRE(begin >= 0 && n >= 0 && begin <= file->count && n <= file->count - begin);
    if (n == 0) return OK;
    const uint16_t *ids = file->ids + begin;
    CHECK(check_size(file));
    will_need(ids, n * 2);
    int32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = le16toh(ids[i]);
        out[i] = id;
        largest = id > largest ? id : largest;
    }
    if (largest < vocab) return OK;
    int64_t i = 0;
    while (out[i] < vocab) i++;
    return status_fail(
        ERR_USER,
        "token file %s has id %d at byte %lld (token %lld), but model.vocab is %lld: the file was "
        "made with another tokenizer, is damaged, or is not raw uint16 ids",
        file->path, out[i], (long long)((const unsigned char *)(ids + i) - file->map),
        (long long)(begin + i), (long long)vocab);
}
