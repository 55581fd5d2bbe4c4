/* Arbitrary bytes as the saved index of a gzip file that is sound. Its header is made to fit, so that
 * the numbers behind it are looked at: they are taken or not, and reading then gives the content or a
 * sentence, never anything else outside the range asked for. */
#include "fuzz_file.h"

#include <string.h>
#include <zlib.h>

#include "data/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTENT = 100000, HEADER = 48 };
static unsigned char content[CONTENT];

static const char *write_gzip(void) {
    for (int i = 0; i < CONTENT; i++) content[i] = (unsigned char)(i * i >> 8);
    static unsigned char packed[2 * CONTENT];
    z_stream z = {0};
    REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_in = content;
    z.avail_in = CONTENT;
    z.next_out = packed;
    z.avail_out = sizeof packed;
    REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
    size_t n = sizeof packed - z.avail_out;
    deflateEnd(&z);
    return fuzz_write("input.gz", packed, n);
}

/* Header of data/README.md: magic, bytes, size, points, bytes of windows, fingerprint, CRC. */
static void fit_header(unsigned char *index, size_t size, const ByteFile *f) {
    int64_t bytes = bytes_on_disk(f);
    uint32_t print = bytes_fingerprint(f);
    uint32_t crc = (uint32_t)crc32_z(0, index + HEADER, size - HEADER);
    memcpy(index, "CRIAGZ1\n", 8);
    memcpy(index + 8, &bytes, 8);
    memcpy(index + 40, &print, 4);
    memcpy(index + 44, &crc, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEADER) return 0;
    char path[64];
    snprintf(path, sizeof path, "%s", write_gzip());
    ByteFile *f;
    REQUIRE(bytes_open(&f, path) == OK);
    unsigned char *index = NEW(unsigned char, (int64_t)size);
    memcpy(index, data, size);
    fit_header(index, size, f);
    bytes_close(f);
    fuzz_write("input.gz.index", index, size);
    free(index);
    if (bytes_open(&f, path) == OK) {
        int64_t n = i64_min(bytes_size(f), 1 << 20);
        static unsigned char out[(1 << 20) + 1];
        for (int64_t begin = 0; begin < n; begin += 1 + n / 5) {
            out[n - begin] = 0xee;
            if (bytes_read(f, begin, n - begin, out) != OK) REQUIRE(status_message()[0] != '\0');
            REQUIRE(out[n - begin] == 0xee);
            status_clear();
        }
        bytes_close(f);
    } else {
        status_clear();
    }
    fuzz_remove("input.gz.index");
    return 0;
}
