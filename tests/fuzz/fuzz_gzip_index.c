/* Arbitrary bytes as the saved index of a gzip file that is sound. Its header is made to fit, so
 * that the numbers behind it are looked at: they are taken or not, and reading then gives the
 * content or a sentence, never anything else outside the range asked for. */
#include "fuzz_file.h"

#include <string.h>
#include <zlib.h>

#include "data/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTENT = 100000, HEADER = 48 };

static char path[64];
static int64_t bytes; /* of the gzip file */
static uint32_t fingerprint;

static void make_gzip(void) {
    unsigned char *content = NEW(unsigned char, CONTENT), *packed = NEW(unsigned char, 2 * CONTENT);
    for (unsigned i = 0; i < CONTENT; i++) content[i] = (unsigned char)(i * i >> 8);
    z_stream z = {0};
    REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = content;
    z.avail_in = CONTENT;
    z.next_out = packed;
    z.avail_out = 2 * CONTENT;
    REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
    snprintf(path, sizeof path, "%s", fuzz_write("input.gz", packed, 2 * CONTENT - z.avail_out));
    deflateEnd(&z);
    free(content);
    free(packed);
    ByteFile *f;
    REQUIRE(bytes_open(&f, path, false) == OK && bytes_index(f) == OK);
    bytes = bytes_on_disk(f);
    fingerprint = bytes_fingerprint(f);
    bytes_close(f);
}

/* Header of data/README.md: magic, bytes, size, points, bytes of windows, fingerprint, CRC. */
static void fit_header(unsigned char *index, size_t size) {
    uint32_t crc = (uint32_t)crc32_z(0, index + HEADER, size - HEADER);
    memcpy(index, "CRIAGZ1\n", 8);
    memcpy(index + 8, &bytes, 8);
    memcpy(index + 40, &fingerprint, 4);
    memcpy(index + 44, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEADER) return 0;
    if (bytes == 0) make_gzip();
    unsigned char *index = NEW(unsigned char, (int64_t)size);
    memcpy(index, data, size);
    fit_header(index, size);
    fuzz_write("input.gz.index", index, size);
    free(index);
    ByteFile *f;
    REQUIRE(bytes_open(&f, path, false) == OK);
    if (bytes_index(f) == OK) {
        int64_t n = i64_min(bytes_size(f), 1 << 20);
        static unsigned char out[(1 << 20) + 1];
        for (int64_t begin = 0; begin < n; begin += 1 + n / 5) {
            out[n - begin] = 0xee;
            if (bytes_read(f, begin, n - begin, out) != OK) REQUIRE(status_message()[0] != '\0');
            REQUIRE(out[n - begin] == 0xee);
            status_clear();
        }
    }
    bytes_close(f);
    status_clear();
    return 0;
}
