/* Arbitrary bytes as a token file. The first byte chooses the format asked for and the vocabulary,
 * the rest is the file; what is read must be the bytes, and an error must name an id that is there.
 */
#include <stdlib.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    DataFormat format = (DataFormat)(data[0] & 3);
    const int64_t vocab = (data[0] >> 2) * 1040 + 16;
    data++, size--;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    REQUIRE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    TokenFile *file;
    if (tokens_open(&file, path, format) == OK) {
        int64_t n = tokens_count(file);
        REQUIRE(n * 2 == (int64_t)size);
        int32_t *out = NEW(int32_t, n);
        for (int64_t begin = 0; begin < n; begin += 1 + n / 3) {
            Status st = tokens_read(file, begin, n - begin, vocab, out);
            bool outside = false;
            for (int64_t i = begin; i < n; i++) {
                int32_t id = data[2 * i] | data[2 * i + 1] << 8;
                REQUIRE(out[i - begin] == id);
                outside = outside || id >= vocab;
            }
            REQUIRE(st == (outside ? ERR_USER : OK));
            status_clear();
        }
        free(out);
        tokens_close(file);
    } else {
        REQUIRE(file == NULL && status_message()[0] != '\0');
        status_clear();
    }
    close(fd);
    return 0;
}
