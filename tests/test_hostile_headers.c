/* Checkpoints made to hurt: lengths, shapes and offsets up to 2^64, deep nesting, lists and texts
 * without end. Each is refused, with one sentence, soon and in little memory. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"

enum { MEMORY_MAX = 64 << 20, CPU_SECONDS_MAX = 20, MANY = 1000000 };

/* Sanitizers keep what is freed. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEASURED = false };
#elif defined(__has_feature)
enum { MEASURED = !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) };
#else
enum { MEASURED = true };
#endif

/* ---- what a case does to a file, in a process of its own ------------------------------------- */

static int64_t peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024 * (int64_t)usage.ru_maxrss;
}

/* As cria check does: opened, compared, described. */
static Status read_all(const char *path) {
    Checkpoint *ck;
    StrBuf text = {0};
    CHECK(checkpoint_open(&ck, path));
    Status st = checkpoint_verify(ck);
    checkpoint_describe(ck, &text);
    strbuf_free(&text);
    checkpoint_close(ck);
    return st;
}

static bool is_one_sentence(const char *path) {
    const char *s = status_message();
    for (const char *c = s; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return false;
    return strncmp(s, path, strlen(path)) == 0 && strlen(s) < 1000;
}

/* Exit status 0: as it should be. */
static int judge(const char *name, const char *path, const char *says) {
    struct rlimit cpu = {CPU_SECONDS_MAX,
                         CPU_SECONDS_MAX}; /* of this process: however busy the machine */
    if (setrlimit(RLIMIT_CPU, &cpu) != 0) return 1;
    int64_t before = peak_memory();
    Status st = read_all(path);
    int64_t memory = peak_memory() - before;
    bool refused =
        st == ERR_USER && is_one_sentence(path) && strstr(status_message(), says) != NULL;
    bool small = !MEASURED || memory < MEMORY_MAX;
    if (!refused || !small)
        fprintf(stderr, "%s: status %d, %.1f MiB, \"%s\", expected \"%s\"\n", name, st,
                (double)memory / 0x1p20, status_message(), says);
    return refused && small ? 0 : 1;
}

static void judge_apart(const char *name, FILE *file, const char *says) {
    char path[64];
    int status;
    assert_int_equal(fflush(file), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
    pid_t child = fork();
    if (child == 0) _exit(judge(name, path, says));
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    if (status != 0) fail_msg("%s: the reader ended with status %x", name, status);
}

static void put_length(FILE *file, uint64_t n) {
    for (int i = 0; i < 8; i++) fputc((int)(n >> (8 * i) & 0xff), file);
}

/* A file of a header and data_bytes of zeros. */
static void expect_refused(const char *name, StrBuf *header, int64_t data_bytes, const char *says) {
    FILE *file = tmpfile();
    put_length(file, header->len);
    assert_int_equal(fwrite(header->text, 1, header->len, file), header->len);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(ftruncate(fileno(file), 8 + (off_t)header->len + data_bytes), 0);
    strbuf_free(header);
    judge_apart(name, file, says);
    fclose(file);
}

static void repeat(StrBuf *out, const char *text, int64_t n) {
    for (int64_t i = 0; i < n; i++) strbuf_append(out, text, strlen(text));
}

/* ---- the cases ------------------------------------------------------------------------------- */

static void lengths_up_to_64_bits(void **state) {
    (void)state;
    static const uint64_t lengths[] = {11,        (16 << 20) + 1, 1ULL << 32,     1ULL << 62,
                                       INT64_MAX, 1ULL << 63,     UINT64_MAX - 8, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        FILE *file = tmpfile();
        put_length(file, lengths[i]);
        fputs("{        }", file);
        judge_apart("a long length", file, "its header claims");
        if (lengths[i] > SAFE_MAX_HEADER && ftruncate(fileno(file), 1LL << 42) == 0)
            judge_apart("a long length in a file of 4 TiB", file, "its header claims");
        fclose(file);
    }
}

static void texts_without_end(void **state) {
    (void)state;
    static const struct {
        const char *name, *start, *repeated;
        int64_t n;
        const char *says;
    } cases[] = {
        {"100 MB of blanks", "{", " ", 100 * MANY, "the limit is"},
        {"blanks", "", " ", SAFE_MAX_HEADER, "does not start with {"},
        {"blanks in an object", "{", " \t\r\n", SAFE_MAX_HEADER / 4 - 1, "expected a string"},
        {"[[[[", "{\"a\":", "[", MANY, "expected an object"},
        {"objects in objects", "", "{\"a\":", MANY, "needs exactly"},
        {"nested metadata", "{\"__metadata__\":", "{\"a\":", MANY, "expected a string"},
        {"a nested shape", "{\"a\":{\"shape\":", "[", MANY, "expected a number"},
        {"nested offsets", "{\"a\":{\"data_offsets\":", "[", MANY, "expected a number"},
        {"a shape of many", "{\"a\":{\"shape\":[1", ",1", MANY, "at most 8"},
        {"a number of many digits", "{\"a\":{\"shape\":[1", "0", MANY, "too long"},
        {"a name", "{\"", "n", 16 * MANY, "ends inside a string"},
        {"a name of escapes", "{\"", "\\u00e9", 2 * MANY, "ends inside a string"},
        {"a dtype", "{\"a\":{\"dtype\":\"", "F", 16 * MANY, "ends inside a string"},
        {"a value", "{\"__metadata__\":{\"a\":\"", "v", 16 * MANY, "ends inside a string"},
        {"one metadata key again and again", "{\"__metadata__\":{\"\":\"\"", ",\"\":\"\"", 2 * MANY,
         "more than 100000 metadata keys"},
        {"one tensor again and again",
         "{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
         ",\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", 300000,
         "more than 100000 tensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StrBuf b = {0};
        strbuf_printf(&b, "%s", cases[i].start);
        repeat(&b, cases[i].repeated, cases[i].n);
        expect_refused(cases[i].name, &b, 0, cases[i].says);
    }
}

/* All that is read before a file is found to be no checkpoint of cria's. */
static void as_much_as_a_header_may_hold(void **state) {
    (void)state;
    StrBuf b = {0};
    strbuf_printf(&b, "{\"__metadata__\":{\"");
    repeat(&b, "k", 4 * MANY);
    strbuf_printf(&b, "\":\"");
    repeat(&b, "v", 12 * MANY);
    strbuf_printf(&b, "\"}}");
    expect_refused("a long key and a long value", &b, 0, "it has no checksums");

    /* Lists of the greatest length whose names fill the header. */
    const char *separator = "{\"__metadata__\":{";
    for (int i = 0; i < SAFE_MAX_LIST; i++, separator = ",")
        strbuf_printf(&b, "%s\"k%06d%25d\":\"%25d\"", separator, i, 0, 0);
    separator = "},";
    for (int i = 0; i < SAFE_MAX_LIST; i++, separator = ",")
        strbuf_printf(&b, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}",
                      separator, i, i, i + 1);
    strbuf_printf(&b, "}");
    assert_true(b.len <= SAFE_MAX_HEADER);
    expect_refused("the longest lists", &b, SAFE_MAX_LIST, "it has no checksums");
}

static void shapes_and_offsets_up_to_64_bits(void **state) {
    (void)state;
    static const struct {
        const char *dtype, *shape, *offsets, *says;
    } cases[] = {
        {"F32", "4294967296,4294967296", "0,0", "64 bits can count"},
        {"F32", "3037000500,3037000500", "0,16", "64 bits can count"},
        {"U8", "9223372036854775807,2", "0,16", "64 bits can count"},
        {"F4", "9223372036854775807,2", "0,16", "64 bits can count"},
        {"NEW", "9223372036854775807,2", "0,16", "64 bits can count"},
        {"NEW", "9223372036854775807", "0,16", "need 1152921504606846975 bytes"},
        {"F64", "65536,65536,65536,65536,65536,65536,65536,65536", "0,0", "64 bits can count"},
        {"F64", "2305843009213693952", "0,0", "64 bits can count"},
        {"U8", "9223372036854775808", "0,16", "does not fit 64 bits"},
        {"U8", "9223372036854775807", "0,16", "need 9223372036854775807 bytes"},
        {"U8", "9223372036854775807", "0,9223372036854775807", "cut short"},
        {"U8", "0,9223372036854775807", "9223372036854775807,9223372036854775807", "a hole"},
        {"U8", "16", "9223372036854775807,15", "begin <= end"},
        {"U8", "16", "0,18446744073709551632", "does not fit 64 bits"},
        {"U8", "16", "-9223372036854775808,-9223372036854775792", "must be"},
        {"U8", "8", "0,8", "followed by something else"},
        {"U8", "8", "8,16", "behind a hole from 0"},
        {"U8", "16", "0,16]},\"b\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16",
         "inside another that ends at 16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        StrBuf b = {0};
        strbuf_printf(&b, "{\"a\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%s]}}",
                      cases[i].dtype, cases[i].shape, cases[i].offsets);
        expect_refused(cases[i].offsets, &b, 16, cases[i].says);
    }
}

static void texts_that_command_a_terminal(void **state) {
    (void)state;
    StrBuf b = {0};
    strbuf_printf(&b, "{\"a\":{\"dtype\":\"\\u001b[2J\\n\"}}");
    expect_refused("a dtype", &b, 0, "dtype '?', expected");
    strbuf_printf(&b, "{\"__metadata__\":{\"\\u001b[2J\":\"\"}}");
    expect_refused("a key", &b, 0, "control characters");
    strbuf_printf(&b, "{\"\\u007f\":{}}");
    expect_refused("a name", &b, 0, "control characters");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_up_to_64_bits),
        cmocka_unit_test(texts_without_end),
        cmocka_unit_test(as_much_as_a_header_may_hold),
        cmocka_unit_test(shapes_and_offsets_up_to_64_bits),
        cmocka_unit_test(texts_that_command_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
