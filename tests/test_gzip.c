#include "data/bytes.h"

#include <sys/stat.h>
#include <zlib.h>

#include "data/dataset.h"
#include "base/rng.h"
#include "token_files.h"

enum { SIZE = 5000011 };

static unsigned char *content; /* ids that deflate well enough, as tokens do */

static int make_content(void **state) {
    content = NEW(unsigned char, SIZE);
    for (int64_t i = 0; i < SIZE; i++)
        content[i] = (unsigned char)(rng_u64(3, rng_stream(RNG_TEST, 0), (uint64_t)i / 3) % 97);
    return make_folder(state);
}

static int free_content(void **state) {
    free(content);
    return remove_folder(state);
}

/* Content [0, n) as gzip members of `member` bytes each; level 0 stores. */
static const char *write_gzip(const char *name, int64_t n, int64_t member, int level) {
    StrBuf file = {0};
    for (int64_t begin = 0; begin == 0 || begin < n; begin += member) {
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        uLong most = deflateBound(&z, (uLong)member) + 64;
        unsigned char *out = NEW(unsigned char, (int64_t)most);
        z.next_in = content + begin;
        z.avail_in = (uInt)i64_min(member, n - begin);
        z.next_out = out;
        z.avail_out = (uInt)most;
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        strbuf_append(&file, (char *)out, most - z.avail_out);
        deflateEnd(&z);
        free(out);
    }
    const char *path = write_bytes(name, file.text, file.len);
    strbuf_free(&file);
    return path;
}

static void check_reads(const char *path, int64_t size) {
    ByteFile *f;
    assert_status_ok(bytes_open(&f, path, false));
    assert_status_ok(bytes_index(f));
    assert_true(bytes_is_gzip(f));
    assert_int_equal(bytes_size(f), size);
    unsigned char *out = NEW(unsigned char, size + 1);
    for (uint64_t i = 0; i < 60; i++) {
        int64_t begin = (int64_t)(rng_u64(5, rng_stream(RNG_TEST, 1), i) % (uint64_t)(size + 1));
        int64_t n = i64_min(size - begin, i % 3 == 0 ? 1 : (int64_t)(i * 1000));
        if (i % 10 == 9) begin = size - n; /* to the very end */
        memset(out, 0xee, (size_t)n + 1);
        assert_status_ok(bytes_read(f, begin, n, out));
        assert_memory_equal(out, content + begin, (size_t)n);
        assert_int_equal(out[n], 0xee);
    }
    assert_status_ok(bytes_read(f, 0, size, out));
    assert_memory_equal(out, content, (size_t)size);
    free(out);
    bytes_close(f);
}

static void any_range_is_read_from_one_member_or_many(void **state) {
    (void)state;
    static const struct {
        int64_t size, member;
        int level;
    } cases[] = {{SIZE, SIZE, 6},    {SIZE, SIZE, 1},       {SIZE, SIZE, 0}, {SIZE, 65280, 6},
                 {SIZE, 1 << 20, 6}, {3000000, 1500000, 9}, {1, 1, 6},       {100, 7, 6}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int again = 0; again < 2; again++) /* the second time with the saved index */
            check_reads(again ? in_folder("g.gz")
                              : write_gzip("g.gz", cases[c].size, cases[c].member, cases[c].level),
                        cases[c].size);
}

static void the_index_is_kept_and_follows_the_file(void **state) {
    (void)state;
    struct stat first, second;
    check_reads(write_gzip("kept.gz", SIZE, SIZE, 6), SIZE);
    assert_int_equal(stat(in_folder("kept.gz.index"), &first), 0);
    assert_true(first.st_size > 4 * 1000 && first.st_size < 6 * 40000); /* a window each MiB */
    check_reads(in_folder("kept.gz"), SIZE);
    assert_int_equal(stat(in_folder("kept.gz.index"), &second), 0);
    assert_int_equal(first.st_ino, second.st_ino); /* not made anew */
    check_reads(write_gzip("kept.gz", SIZE - 4096, SIZE, 6), SIZE - 4096);
    assert_int_equal(stat(in_folder("kept.gz.index"), &second), 0);
    assert_int_not_equal(first.st_ino, second.st_ino);
    FILE *f = fopen(in_folder("kept.gz.index"), "r+b"); /* a damaged index is made anew too */
    fseek(f, 2000, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, 2000, SEEK_SET);
    fputc(byte ^ 1, f);
    fclose(f);
    check_reads(in_folder("kept.gz"), SIZE - 4096);
}

/* Somebody else's link in a shared folder is not followed: the index is then not kept. */
static void a_link_in_the_place_of_the_index_is_not_written_through(void **state) {
    (void)state;
    const char *path = write_gzip("linked.gz", 100, 100, 6);
    char *link = mem_printf("%s.index.%lld.tmp", path, (long long)getpid());
    char *target = mem_strdup(in_folder("target"));
    assert_int_equal(symlink(target, link), 0);
    check_reads(path, 100);
    assert_int_equal(access(target, F_OK), -1);
    unlink(link);
    free(link);
    free(target);
}

static void append(const char *path, const char *bytes, size_t n) {
    FILE *file = fopen(path, "ab");
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void assert_refused(const char *path, const char *text) {
    ByteFile *f;
    Status st = bytes_open(&f, path, false);
    if (st == OK) st = bytes_index(f);
    assert_status_fails(st, ERR_USER, text);
    bytes_close(f);
}

static void damage_is_found_before_it_is_trained_on(void **state) {
    (void)state;
    struct stat info;
    const char *path = write_gzip("bad.gz", SIZE, SIZE, 6);
    stat(path, &info);
    assert_int_equal(truncate(path, info.st_size - 5), 0);
    assert_refused(path, "bad.gz is not a sound gzip file: it ends");
    write_gzip("bad.gz", SIZE, SIZE, 6);
    FILE *file = fopen(path, "r+b");
    fseek(file, info.st_size / 2, SEEK_SET);
    fputs("damage", file);
    fclose(file);
    assert_refused(path, "bad.gz is not a sound gzip file");
    append(write_gzip("bad.gz", SIZE, SIZE, 6), "rest", 4);
    assert_refused(path, "incorrect header check at byte");
    append(write_gzip("bad.gz", SIZE, SIZE, 6), "\0\0\0x", 4);
    assert_refused(path, "incorrect header check at byte");
    write_gzip("bad.gz", 0, 1, 6);
    assert_refused(path, "empty when decompressed");
}

/* As gzip does: tapes fill their blocks up. */
static void zeros_behind_the_last_member_are_passed_over(void **state) {
    (void)state;
    static const char zeros[100000];
    static const int padding[] = {1, 17, 100000};
    for (int i = 0; i < 3; i++) {
        const char *path = write_gzip("padded.gz", 3000, i == 0 ? 3000 : 1000, 6);
        append(path, zeros, (size_t)padding[i]);
        check_reads(path, 3000);
        check_reads(path, 3000); /* with the saved index */
    }
}

/* A program that has mapped them would die of SIGBUS. */
static void an_index_that_is_cut_while_it_is_used_does_no_harm(void **state) {
    (void)state;
    ByteFile *f;
    unsigned char *out = NEW(unsigned char, SIZE);
    const char *path = write_gzip("used.gz", SIZE, SIZE, 6);
    check_reads(path, SIZE);
    assert_status_ok(bytes_open(&f, path, false));
    assert_status_ok(bytes_index(f));
    assert_int_equal(truncate(in_folder("used.gz.index"), 10), 0);
    assert_status_ok(bytes_read(f, SIZE / 2, SIZE / 2, out));
    assert_memory_equal(out, content + SIZE / 2, SIZE / 2);
    bytes_close(f);
    free(out);
}

static void every_format_may_be_compressed(void **state) {
    (void)state;
    static const int32_t lengths[] = {5, 0, 3, 12};
    uint16_t ids[20];
    for (int i = 0; i < 20; i++) ids[i] = (uint16_t)(1000 + i);
    write_megatron("z", 4, lengths, 1, ids);
    char *command = mem_printf("cd %s && gzip -kf z.bin z.idx && cp z.bin.gz y.bin.gz && cp z.idx "
                               "y.idx && rm z.bin z.idx",
                               folder);
    assert_int_equal(system(command), 0);
    free(command);
    static const char *const names[] = {"z.bin.gz", "z.idx.gz", "z", "y.bin.gz", "y.idx", "y"};
    for (int i = 0; i < 6; i++) {
        TokenFile *f;
        int32_t out[4];
        assert_status_ok(tokens_open(&f, in_folder(names[i]), FORMAT_AUTO));
        assert_int_equal(tokens_format(f), FORMAT_MEGATRON);
        assert_true(tokens_is_gzip(f));
        assert_int_equal(tokens_count(f), 20);
        assert_int_equal(tokens_index(f)->documents, 4);
        assert_status_ok(tokens_read(f, 16, 4, 2000, out));
        assert_int_equal(out[3], 1019);
        assert_status_fails(tokens_read(f, 16, 4, 1018, out), ERR_USER,
                            "has id 1018 at byte 36 of its content (token 18)");
        tokens_close(f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_range_is_read_from_one_member_or_many),
        cmocka_unit_test(the_index_is_kept_and_follows_the_file),
        cmocka_unit_test(a_link_in_the_place_of_the_index_is_not_written_through),
        cmocka_unit_test(damage_is_found_before_it_is_trained_on),
        cmocka_unit_test(zeros_behind_the_last_member_are_passed_over),
        cmocka_unit_test(an_index_that_is_cut_while_it_is_used_does_no_harm),
        cmocka_unit_test(every_format_may_be_compressed),
    };
    return cmocka_run_group_tests(tests, make_content, free_content);
}
