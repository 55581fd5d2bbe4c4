/* Arbitrary bytes as a gzip file: what is accepted must read the same in one go as in pieces from
 * back to front, with the index just made and with the saved one. */
#include "fuzz_file.h"

#include <string.h>

#include "data/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_backwards(const char *path, const unsigned char *expected, int64_t n) {
    ByteFile *f;
    REQUIRE(bytes_open(&f, path, false) == OK && bytes_index(f) == OK && bytes_size(f) == n);
    unsigned char *out = NEW(unsigned char, n);
    for (int64_t end = n, begin; end > 0; end = begin) {
        begin = i64_max(0, end - 1 - n / 7);
        REQUIRE(bytes_read(f, begin, end - begin, out) == OK);
        REQUIRE(memcmp(out, expected + begin, (size_t)(end - begin)) == 0);
    }
    free(out);
    bytes_close(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_write("input.gz", data, size);
    ByteFile *f;
    Status st = bytes_open(&f, path, false);
    REQUIRE((st == OK) == (f != NULL));
    if (st == OK) st = bytes_index(f);
    if (st == OK) {
        int64_t n = bytes_size(f);
        if (bytes_is_gzip(f) && n < 1 << 24) {
            unsigned char *all = NEW(unsigned char, n);
            REQUIRE(bytes_read(f, 0, n, all) == OK);
            read_backwards(path, all, n);
            fuzz_remove("input.gz.index");
            read_backwards(path, all, n);
            free(all);
        }
    } else {
        REQUIRE(status_message()[0] != '\0');
        status_clear();
    }
    bytes_close(f);
    fuzz_remove("input.gz.index");
    return 0;
}
