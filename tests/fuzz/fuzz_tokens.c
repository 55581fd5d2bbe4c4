/* Arbitrary bytes as a token file. The first byte chooses the format asked for and the vocabulary,
 * the rest is the file; what is read must be the bytes, and an error must name an id that is there.
 */
#include "fuzz_file.h"

#include "data/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const TokenFile *file, const uint8_t *data, size_t size, int64_t vocab) {
    int64_t n = tokens_count(file), bytes = id_type_bytes(tokens_id_type(file));
    bool plain = !tokens_is_gzip(file);
    REQUIRE(n > 0 && (!plain || n * bytes == (int64_t)size || n * bytes + 1024 == (int64_t)size));
    const uint8_t *ids = data + size - n * bytes;
    int32_t *out = NEW(int32_t, n), *begins = NEW(int32_t, n);
    for (int64_t begin = 0; begin < n; begin += 1 + n / 3) {
        Status st = tokens_read(file, begin, n - begin, vocab, out);
        bool outside = false;
        for (int64_t i = begin; plain && i < n; i++) {
            uint32_t id = ids[bytes * i] | (uint32_t)ids[bytes * i + 1] << 8;
            if (bytes == 4) id |= (uint32_t)ids[4 * i + 2] << 16 | (uint32_t)ids[4 * i + 3] << 24;
            outside = outside || id >= vocab;
            REQUIRE(outside || out[i - begin] == (int32_t)id);
        }
        REQUIRE(!plain || st == (outside ? ERR_USER : OK));
        status_clear();
        if (st != OK) continue;
        int64_t found = tokens_boundaries(file, begin, n - begin, 5, out, begins);
        for (int64_t d = 0, before = 0; d < found; before = begins[d++])
            REQUIRE(begins[d] > before && begins[d] < n - begin &&
                    (out[begins[d]] == 5 || out[begins[d] - 1] == 5));
    }
    free(out);
    free(begins);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    DataFormat format = (DataFormat)(data[0] & 3);
    const int64_t vocab = (data[0] >> 2) * 1040 + 16;
    data++, size--;
    TokenFile *file;
    if (tokens_open(&file, fuzz_write("input.bin", data, size), format) == OK) {
        check(file, data, size, vocab);
        tokens_close(file);
    } else {
        REQUIRE(file == NULL && status_message()[0] != '\0');
        status_clear();
    }
    fuzz_remove("input.bin.index");
    return 0;
}
