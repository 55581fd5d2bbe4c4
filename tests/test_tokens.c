#include "data/tokens.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "token_files.h"

static void reads_little_endian_ids_anywhere_in_the_file(void **state) {
    (void)state;
    const unsigned char bytes[] = {0x01, 0x00, 0x50, 0xc4, 0xff, 0xff, 0x00, 0x80, 0x34, 0x12};
    const int32_t ids[] = {1, 50256, 65535, 32768, 0x1234};
    TokenFile *f;
    assert_status_ok(tokens_open(&f, write_bytes("a.bin", bytes, sizeof bytes), FORMAT_AUTO));
    assert_int_equal(tokens_count(f), 5);
    assert_string_equal(tokens_path(f), in_folder("a.bin"));
    for (int begin = 0; begin <= 5; begin++)
        for (int n = 0; n <= 5 - begin; n++) {
            int32_t out[6] = {-7, -7, -7, -7, -7, -7};
            assert_status_ok(tokens_read(f, begin, n, 65536, out));
            assert_memory_equal(out, ids + begin, (size_t)n * sizeof *out);
            assert_int_equal(out[n], -7);
        }
    tokens_close(f);
}

static void bad_files_are_refused_with_a_sentence(void **state) {
    (void)state;
    TokenFile *f;
    assert_status_fails(tokens_open(&f, in_folder("none.bin"), FORMAT_AUTO), ERR_USER,
                        "none.bin: No such file");
    assert_null(f);
    assert_status_fails(tokens_open(&f, folder, FORMAT_AUTO), ERR_USER, "is a directory");
    assert_status_fails(tokens_open(&f, "/dev/null", FORMAT_AUTO), ERR_USER, "not a regular file");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_status_fails(tokens_open(&f, in_folder("fifo"), FORMAT_AUTO), ERR_USER,
                        "not a regular file");
    assert_status_fails(tokens_open(&f, write_bytes("empty.bin", "", 0), FORMAT_AUTO), ERR_USER,
                        "empty.bin is empty");
    assert_status_fails(tokens_open(&f, write_bytes("odd.bin", "abc", 3), FORMAT_AUTO), ERR_USER,
                        "odd size of 3 bytes");
    const char *closed = write_bytes("closed.bin", "ab", 2);
    chmod(closed, 0);
    if (access(closed, R_OK) != 0) /* root may read everything */
        assert_status_fails(tokens_open(&f, closed, FORMAT_AUTO), ERR_USER, "Permission denied");
}

static void an_id_outside_the_vocabulary_is_named_with_its_place(void **state) {
    (void)state;
    enum { N = 1000, AT = 777 };
    uint16_t ids[N] = {0};
    ids[AT] = 50257;
    ids[AT + 5] = 60000;
    TokenFile *f;
    int32_t out[N];
    assert_status_ok(tokens_open(&f, write_ids("ids.bin", ids, N), FORMAT_NANOGPT));
    assert_status_fails(tokens_read(f, 100, N - 100, 50257, out), ERR_USER,
                        "ids.bin has id 50257 at byte 1554 (token 777), but model.vocab is 50257");
    assert_status_ok(tokens_read(f, 0, AT, 50257, out));
    assert_status_ok(tokens_read(f, AT, 1, 50258, out));
    tokens_close(f);
}

typedef struct {
    const char *bytes;
    size_t n;
    const char *text; /* in the message */
} Content;
#define CONTENT(bytes, text)                                                                       \
    { bytes, sizeof bytes - 1, text }

static const Content others[] = {
    CONTENT("\x28\xb5\x2f\xfd\x24\x05\x29\0\0hello\xa2\x10\x05\x4f", "a zstd file"),
    CONTENT("\x04\x22\x4d\x18\x64\x40\xa7\x09\0\0\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "an lz4 file"),
    CONTENT("\x88\xd8\x34\x01\x02\0\0\0\0\0\0\0",
            "an llm.c shard that is cut short or of an unknown version"),
    CONTENT("\x8a\xd8\x34\x01\x01\0\0\0\0\0\0\0", "an llm.c evaluation file"),
    CONTENT("MMIDIDX\0\0\1", "a Megatron index whose .bin is missing"),
    CONTENT("\x93NUMPY\1\0v\0{'descr': '<u2'", "a NumPy .npy file, expected token ids (nanogpt, "
                                               "megatron or llmc); write the bare ids: array.asty"),
    CONTENT("BIN.TOK\n\2\0", "an LLM.Q token file"),
    CONTENT("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "a PNG image"),
    CONTENT("\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0", "a JPEG image"),
    CONTENT("\xff\xd8\xff\xdb\0\x06\1\2\3\4\xff\xc0\0\x10", "a JPEG image"),
    CONTENT("GIF89a\1\0\1\0", "a GIF image"),
    CONTENT("PK\3\4\x14\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txthello",
            "a zip archive"),
    CONTENT("\xfd"
            "7zXZ\0\0\4\xe6\xd6\xb4\x46\2\0\x21\1",
            "an xz file"),
    CONTENT("BZh91AY&SY\x8e\xd3\x4a\x9c\0\1", "a bzip2 file"),
    CONTENT("7z\xbc\xaf\x27\x1c\0\4", "a 7-Zip archive"),
    CONTENT("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
    CONTENT("\x7f"
            "ELF\2\1\1\0\0\0\0\0\0\0\0\0",
            "a program"),
    CONTENT("SQLite format 3\0\x10\0", "an SQLite database"),
    CONTENT("\x0a\x0e\x0a\5<unk>\x15\0\0\0\0\x18\2", "a SentencePiece tokenizer"),
    CONTENT("ARROW1\0\0\xff\xff\xff\xff", "an Arrow file"),
    CONTENT("\xff\xff\xff\xff\xb0\1\0\0\x10\0\0\0\0\0\x0a\0", "an Arrow file"),
    CONTENT("PAR1\x15\4\x15\x80\x80\4", "a parquet file"),
    CONTENT("\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0", "an HDF5 file"),
    CONTENT("\x80\4\x95\7\0\0\0\0\0\0\0]\x94(K\1K\2e.", "a Python pickle"),
    CONTENT("\x80\2]q\0(K\1K\2K\3e.\0\0", "a Python pickle"),
    CONTENT("\x80\3cnumpy.core.multiarray\n_reconstruct\nq\0", "a Python pickle"),
    CONTENT("\x40\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"F32\","
            "\"shape\":[1], "
            "   }}\0\0\0\0\0\0\0\0",
            "a safetensors file (weights or a checkpoint), expected"),
    CONTENT("GGUF\3\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", "a GGUF file"),
    CONTENT(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        "a git-lfs pointer, not the file it stands for, expected token ids (nanogpt, megatron or "
        "llmc); `git lfs pull` fetches that"),
    CONTENT("\xff\xfeT\0h\0e\0 \0U\0n\0i\0o\0n\0 \0i\0s\0 \0o\0l\0d\0", "text (UTF-16)"),
};

/* What stands before the first comma. */
static const char *before_comma(const char *text) {
    static char name[128];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, ","), text);
    return name;
}

/* Also compressed, and whatever data.format says, as what is read would be trained on. */
static void other_files_are_named_for_what_they_are(void **state) {
    (void)state;
    static const DataFormat formats[] = {FORMAT_AUTO, FORMAT_NANOGPT, FORMAT_LLMC, FORMAT_MEGATRON};
    TokenFile *f;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        for (int packed = 0; packed < 2; packed++) {
            write_bytes("other", others[i].bytes, others[i].n);
            if (packed) assert_int_equal(run_in_folder("gzip -f other"), 0);
            const char *path = in_folder(packed ? "other.gz" : "other");
            for (int k = 0; k < 4; k++) {
                bool own = formats[k] == FORMAT_LLMC && strstr(others[i].text, "llm.c shard");
                own = own || (formats[k] == FORMAT_MEGATRON && strstr(others[i].text, "Megatron"));
                if (own) continue; /* these have messages of their own */
                const char *text = packed ? before_comma(others[i].text) : others[i].text;
                char *expected = mem_printf("%s is %s", path, text);
                const char *end = packed ? ", compressed with gzip, expected" : ", expected";
                Status st = tokens_open(&f, path, formats[k]);
                if (st != ERR_USER || strstr(status_message(), expected) == NULL ||
                    strstr(status_message(), end) == NULL)
                    fail_msg("status %d, '%s' should contain '%s'", st, status_message(), expected);
                status_clear();
                free(expected);
            }
        }
}

static const char *write_text(const char *name, const char *line, int64_t n) {
    StrBuf text = {0};
    while ((int64_t)text.len < n) strbuf_printf(&text, "%s", line);
    const char *path = write_bytes(name, text.text, (size_t)n);
    strbuf_free(&text);
    return path;
}

static void text_is_not_taken_for_ids(void **state) {
    (void)state;
    static const struct {
        const char *line, *name;
    } cases[] = {
        {"Fellow-Citizens of the Senate and House:\n", "is text, expected token ids"},
        {"\xd0\x94\xd0\xbe\xd0\xb1\xd1\x80\xd1\x8b\xd0\xb9 \xe4\xbd\xa0\xe5\xa5\xbd ", "is text, "},
        {"caf\xe9 au lait, in Latin-1; ", "is text, "},
        {"{ \"text\": \"hello\"}\n", "is text (JSON), "},
        {"<!DOCTYPE html>\n<html><head>", "is an HTML page, as a failed download leaves, "},
        {"<?xml version=\"1.0\"?>", "is an XML document, "},
    };
    static const int64_t sizes[] = {256, 257, 4095, 4096, 100001};
    TokenFile *f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            const char *path = write_text("text", cases[i].line, sizes[k]);
            assert_status_fails(tokens_open(&f, path, FORMAT_AUTO), ERR_USER, cases[i].name);
            assert_status_fails(tokens_open(&f, path, FORMAT_NANOGPT), ERR_USER, cases[i].name);
        }
    write_text("text", cases[0].line, 50000);
    assert_int_equal(run_in_folder("gzip -f text"), 0);
    assert_status_fails(tokens_open(&f, in_folder("text.gz"), FORMAT_NANOGPT), ERR_USER,
                        "is text, compressed with gzip, expected");
    assert_int_not_equal(access(in_folder("text.gz.index"), F_OK),
                         0); /* told without reading all */
    /* a few bytes prove little: the user's word counts */
    const char *path = write_bytes("short", "{\"text\": \"", 10);
    assert_status_fails(
        tokens_open(&f, path, FORMAT_AUTO), ERR_USER,
        "looks like text (JSON), expected token ids (nanogpt, megatron or llmc); if it "
        "holds raw uint16 ids after all, set data.format nanogpt");
    assert_status_ok(tokens_open(&f, path, FORMAT_NANOGPT));
    assert_int_equal(tokens_count(f), 5);
    tokens_close(f);
}

/* Any first ids are possible: ids that are magic numbers of two or four bytes, followed by ids. */
static void ids_that_look_like_something_are_read(void **state) {
    (void)state;
    enum { N = 5000 };
    static const char *const magics[] = {"\x1f\x8b",
                                         "PK\3\4",
                                         "BZh9",
                                         "\x80\2",
                                         "\x80\4",
                                         "\xff\xd8\xff\xe0",
                                         "\xff\xfe",
                                         "\xff\xff\xff\xff",
                                         "PAR1",
                                         "GGUF",
                                         "RIFF",
                                         "{\"",
                                         "<h",
                                         "\x7f"
                                         "ELF",
                                         "MM",
                                         "\xfd"
                                         "7",
                                         "\x28\xb5\x2f\xfd"};
    TokenFile *f;
    for (size_t m = 0; m < sizeof magics / sizeof *magics; m++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            uint16_t ids[N];
            for (uint64_t i = 0; i < N; i++) {
                uint64_t r = rng_u64(seed, rng_stream(RNG_TEST, 7), i);
                ids[i] = (uint16_t)(r % 3 == 0 ? r >> 40 & 0xff : r >> 20) % 50257;
            }
            memcpy(ids, magics[m], strlen(magics[m]) & ~(size_t)1);
            assert_status_ok(tokens_open(&f, write_ids("like.bin", ids, N), FORMAT_AUTO));
            assert_int_equal(tokens_count(f), N);
            tokens_close(f);
        }
}

/* 35615 and 8, and what follows is no gzip. */
static void ids_that_begin_like_gzip_are_read_when_the_format_says_so(void **state) {
    (void)state;
    uint16_t ids[3000] = {35615, 8};
    for (int i = 2; i < 3000; i++) ids[i] = (uint16_t)(i * 37 % 5000);
    TokenFile *f;
    int32_t out[3];
    const char *path = write_ids("like.bin", ids, 3000);
    assert_status_ok(tokens_open(&f, path, FORMAT_NANOGPT));
    assert_status_ok(tokens_read(f, 0, 3, 65536, out));
    assert_int_equal(out[0], 35615);
    tokens_close(f);
    assert_status_fails(
        tokens_open(&f, path, FORMAT_AUTO), ERR_USER,
        "if it holds raw uint16 ids that only begin like gzip, set data.format nanogpt");
    assert_status_fails(tokens_open(&f, write_ids("like.bin.gz", ids, 3000), FORMAT_NANOGPT),
                        ERR_USER, "is not a sound gzip file");
}

static const char *write_wide(const char *name, int bytes, int64_t n, uint64_t vocab) {
    unsigned char *data = NEW(unsigned char, bytes *n), *at = data;
    for (int64_t i = 0; i < n; i++)
        put_le(&at, rng_u64(1, rng_stream(RNG_TEST, 8), (uint64_t)i) % vocab, bytes);
    const char *path = write_bytes(name, data, (size_t)(bytes * n));
    free(data);
    return path;
}

static void wider_ids_are_not_read_as_uint16(void **state) {
    (void)state;
    static const uint64_t vocabs[] = {512, 4096, 50257, 128256, 262144};
    TokenFile *f;
    for (size_t v = 0; v < 5; v++)
        for (int bytes = 4; bytes <= 8; bytes += 4) {
            const char *path = write_wide("wide.bin", bytes, 2000, vocabs[v]);
            char *expected = mem_printf("wide.bin looks like %d-bit ids: ", 8 * bytes);
            assert_status_fails(tokens_open(&f, path, FORMAT_AUTO), ERR_USER, expected);
            assert_status_fails(tokens_open(&f, path, FORMAT_AUTO), ERR_USER,
                                "wide.idx is not there, or in llm.c shards");
            assert_status_ok(tokens_open(&f, path, FORMAT_NANOGPT)); /* with a warning */
            tokens_close(f);
            free(expected);
        }
    /* uint16 ids of any vocabulary are none of that, nor are zeros */
    static const uint64_t narrow[] = {1, 2, 4, 16, 17, 64, 256, 257, 50257, 65536};
    for (size_t v = 0; v < sizeof narrow / sizeof *narrow; v++) {
        assert_status_ok(
            tokens_open(&f, write_wide("narrow.bin", 2, 5000, narrow[v]), FORMAT_AUTO));
        tokens_close(f);
    }
}

/* An llm.c shard of n ids from `ids`; magic, version and count as given. */
static const char *write_llmc(const char *name, uint32_t magic, uint32_t version, uint32_t count,
                              int bytes, const uint32_t *ids, int64_t n) {
    unsigned char *file = NEW(unsigned char, 1024 + bytes * n), *at = file;
    put_le(&at, magic, 4);
    put_le(&at, version, 4);
    put_le(&at, count, 4);
    at = file + 1024;
    for (int64_t i = 0; i < n; i++) put_le(&at, ids[i], bytes);
    const char *path = write_bytes(name, file, (size_t)(at - file));
    free(file);
    return path;
}

static void shards_of_llmc_are_read_in_both_widths(void **state) {
    (void)state;
    static const uint32_t ids[] = {50256, 7, 128000, 50256, 4000000000};
    TokenFile *f;
    int32_t out[5], begins[5];
    assert_status_ok(tokens_open(&f, write_llmc("l.bin", 20240520, 1, 4, 2, ids, 4), FORMAT_AUTO));
    assert_int_equal(tokens_format(f), FORMAT_LLMC);
    assert_int_equal(tokens_id_type(f), ID_U16);
    assert_int_equal(tokens_count(f), 4);
    assert_status_ok(tokens_read(f, 0, 4, 65536, out));
    for (int i = 0; i < 4; i++) assert_int_equal(out[i], (uint16_t)ids[i]);
    /* the end-of-text id comes first: the second document begins with it */
    assert_int_equal(tokens_boundaries(f, 0, 3, 50256, out, begins), 1);
    assert_int_equal(begins[0], 3);
    tokens_close(f);
    assert_status_ok(tokens_open(&f, write_llmc("l.bin", 20240801, 7, 5, 4, ids, 5), FORMAT_LLMC));
    assert_int_equal(tokens_id_type(f), ID_U32);
    assert_status_ok(tokens_read(f, 1, 3, 128256, out));
    for (int i = 0; i < 3; i++) assert_int_equal(out[i], ids[i + 1]);
    assert_status_fails(tokens_read(f, 0, 5, 128256, out), ERR_USER,
                        "has id 4000000000 at byte 1040 (token 4)");
    tokens_close(f);
}

static void bad_shards_of_llmc_are_refused_with_a_sentence(void **state) {
    (void)state;
    static const uint32_t ids[4] = {0};
    TokenFile *f;
    assert_status_fails(
        tokens_open(&f, write_llmc("l.bin", 20240520, 1, 5, 2, ids, 4), FORMAT_AUTO), ERR_USER,
        "has 1032 bytes, but its header (byte 8) speaks of 5 ids of 2 bytes, which makes 1034");
    assert_status_fails(
        tokens_open(&f, write_llmc("l.bin", 20240520, 1, 0xffffffff, 2, ids, 4), FORMAT_AUTO),
        ERR_USER, "speaks of -1 ids");
    assert_status_fails(
        tokens_open(&f, write_llmc("l.bin", 20240801, 7, 0, 4, ids, 0), FORMAT_AUTO), ERR_USER,
        "holds no ids");
    assert_status_fails(
        tokens_open(&f, write_llmc("l.bin", 20240520, 2, 4, 2, ids, 4), FORMAT_LLMC), ERR_USER,
        "does not begin with llm.c's header");
    assert_status_fails(
        tokens_open(&f, write_bytes("s.bin", "\x88\xd8\x34\x01\x01\0\0\0", 8), FORMAT_AUTO),
        ERR_USER, "has 8 bytes");
}

static void documents_are_found_by_the_id_that_ends_them(void **state) {
    (void)state;
    const uint16_t ids[] = {1, 2, 9, 9, 3, 9, 4, 5};
    TokenFile *f;
    int32_t out[8], begins[8];
    int64_t at;
    assert_status_ok(tokens_open(&f, write_ids("d.bin", ids, 8), FORMAT_AUTO));
    assert_status_ok(tokens_read(f, 0, 8, 10, out));
    assert_int_equal(tokens_boundaries(f, 0, 8, 9, out, begins), 3);
    assert_int_equal(begins[0], 3);
    assert_int_equal(begins[1], 4);
    assert_int_equal(begins[2], 6);
    assert_int_equal(tokens_boundaries(f, 3, 3, 9, out + 3, begins), 2);
    assert_int_equal(begins[0], 1);
    assert_int_equal(begins[1], 3); /* exactly behind the stretch */
    assert_int_equal(tokens_boundaries(f, 0, 8, -1, out, begins), 0);
    static const int64_t from[] = {0, 3, 3, 3, 4, 6, 6, 8, 8};
    for (int64_t t = 0; t <= 8; t++) {
        assert_status_ok(tokens_document_from(f, t, 9, &at));
        assert_int_equal(at, from[t]);
    }
    tokens_close(f);
}

static void offsets_beyond_four_gib_are_read(void **state) {
    (void)state;
    const int64_t at = 3000000000; /* token; byte 6e9 */
    const char *path = in_folder("huge.bin");
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, (off_t)(2 * (at + 4))), 0); /* sparse: takes no disk */
    assert_int_equal(pwrite(fd, "\x11\x22\x33\x44", 4, (off_t)(2 * at)), 4);
    close(fd);
    TokenFile *f;
    int32_t out[4];
    assert_status_ok(tokens_open(&f, path, FORMAT_AUTO));
    assert_int_equal(tokens_count(f), at + 4);
    assert_status_ok(tokens_read(f, at - 1, 4, 65536, out));
    const int32_t expected[] = {0, 0x2211, 0x4433, 0};
    assert_memory_equal(out, expected, sizeof out);
    assert_status_fails(tokens_read(f, at - 1, 4, 0x4433, out), ERR_USER, "at byte 6000000002");
    tokens_close(f);
    unlink(path);
}

static void a_file_that_shrinks_while_open_is_an_error(void **state) {
    (void)state;
    TokenFile *f;
    int32_t out[10];
    const char *path = write_counting("shrinks.bin", 0, 50000);
    assert_status_ok(tokens_open(&f, path, FORMAT_AUTO));
    assert_status_ok(tokens_read(f, 49990, 10, 65536, out));
    assert_int_equal(truncate(path, 1000), 0);
    assert_status_fails(tokens_read(f, 49990, 10, 65536, out), ERR_ENV,
                        "shrank from 100000 to 1000 bytes");
    tokens_close(f);
}

static uint32_t fingerprint(const char *path) {
    TokenFile *f;
    assert_status_ok(tokens_open(&f, path, FORMAT_AUTO));
    uint32_t crc = tokens_fingerprint(f);
    tokens_close(f);
    return crc;
}

static void the_fingerprint_follows_name_size_and_content(void **state) {
    (void)state;
    enum { N = 65000 }; /* the first and the last 64 KiB: all of it is covered */
    uint32_t base = fingerprint(write_counting("print.bin", 0, N));
    assert_int_equal(fingerprint(write_counting("print.bin", 0, N)), base);
    assert_int_not_equal(fingerprint(write_counting("print.bin", 0, N - 1)), base);
    assert_int_not_equal(fingerprint(write_counting("other.bin", 0, N)), base);
    uint16_t *ids = NEW(uint16_t, N);
    for (int flip = 0; flip < N; flip += 6199) {
        for (int i = 0; i < N; i++) ids[i] = (uint16_t)(i ^ (i == flip));
        assert_int_not_equal(fingerprint(write_ids("print.bin", ids, N)), base);
    }
    memset(ids, 0, N * sizeof *ids); /* the same sampled contents, another size */
    base = fingerprint(write_ids("zeros.bin", ids, N));
    assert_int_not_equal(fingerprint(write_ids("zeros.bin", ids, N - 1)), base);
    free(ids);
}

static void the_bundled_sample_opens_and_is_split_by_speech(void **state) {
    (void)state;
    static const char *const paths[] = {"data/sotu_train.bin", "data/sotu_val.bin"};
    static int32_t *ids[2];
    int64_t n[2], documents[2] = {0, 0};
    for (int k = 0; k < 2; k++) {
        TokenFile *f;
        assert_status_ok(tokens_open(&f, paths[k], FORMAT_AUTO));
        n[k] = tokens_count(f);
        ids[k] = NEW(int32_t, n[k]);
        assert_status_ok(tokens_read(f, 0, n[k], 4096, ids[k]));
        for (int64_t i = 0; i < n[k]; i++) documents[k] += ids[k][i] == 0;
        assert_int_equal(ids[k][n[k] - 1], 0);
        tokens_close(f);
    }
    assert_int_equal(n[0], 650962);
    assert_int_equal(n[1], 70243);
    assert_int_equal(documents[0], 84);
    assert_int_equal(documents[1], 8);
    /* held out: the middle of no speech of val, 64 tokens, occurs anywhere in train */
    for (int64_t begin = 0, end; begin < n[1]; begin = end + 1) {
        for (end = begin; ids[1][end] != 0;) end++;
        const int32_t *probe = ids[1] + (begin + end) / 2 - 32;
        for (int64_t i = 0; i + 64 <= n[0]; i++)
            assert_false(ids[0][i] == probe[0] && memcmp(ids[0] + i, probe, 64 * 4) == 0);
    }
    free(ids[0]);
    free(ids[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_little_endian_ids_anywhere_in_the_file),
        cmocka_unit_test(bad_files_are_refused_with_a_sentence),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_named_with_its_place),
        cmocka_unit_test(other_files_are_named_for_what_they_are),
        cmocka_unit_test(text_is_not_taken_for_ids),
        cmocka_unit_test(ids_that_look_like_something_are_read),
        cmocka_unit_test(ids_that_begin_like_gzip_are_read_when_the_format_says_so),
        cmocka_unit_test(wider_ids_are_not_read_as_uint16),
        cmocka_unit_test(shards_of_llmc_are_read_in_both_widths),
        cmocka_unit_test(bad_shards_of_llmc_are_refused_with_a_sentence),
        cmocka_unit_test(documents_are_found_by_the_id_that_ends_them),
        cmocka_unit_test(offsets_beyond_four_gib_are_read),
        cmocka_unit_test(a_file_that_shrinks_while_open_is_an_error),
        cmocka_unit_test(the_fingerprint_follows_name_size_and_content),
        cmocka_unit_test(the_bundled_sample_opens_and_is_split_by_speech),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
