/* Arbitrary bytes as a Megatron index. The first 4 bytes are the size of the .bin; what is accepted
 * must describe exactly that many bytes, without gaps, and documents must be found where they are.
 */
#include "fuzz_file.h"

#include <string.h>

#include "data/megatron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t bytes;
    if (size < sizeof bytes) return 0;
    memcpy(&bytes, data, sizeof bytes);
    size -= sizeof bytes;
    ByteFile *file;
    MegatronIndex x;
    if (size == 0) return 0; /* an empty file has no bytes to look at */
    Status st = bytes_open(&file, fuzz_write("input.idx", data + sizeof bytes, size), false);
    if (st == OK) st = bytes_index(file);
    if (st == OK) st = megatron_open(&x, file, "input.bin", bytes);
    if (st != OK) {
        REQUIRE(strstr(status_message(), "input.idx") != NULL);
        status_clear();
        bytes_close(file);
        fuzz_remove("input.idx.index");
        return 0;
    }
    REQUIRE(x.tokens > 0 && x.tokens * id_type_bytes(x.type) == bytes);
    REQUIRE(megatron_start(&x, 0) == 0 && megatron_start(&x, x.sequences) == x.tokens);
    for (int64_t i = 0; i < x.sequences; i++)
        REQUIRE(megatron_start(&x, i) <= megatron_start(&x, i + 1));
    int64_t tokens[] = {0, 1, x.tokens / 2, x.tokens - 1, x.tokens};
    for (int i = 0; i < 5; i++) {
        int64_t d = megatron_document_from(&x, tokens[i]);
        REQUIRE(d >= 0 && d <= x.documents);
        REQUIRE(d == x.documents || megatron_document_start(&x, d) >= tokens[i]);
        REQUIRE(d == 0 || megatron_document_start(&x, d - 1) < tokens[i]);
    }
    megatron_close(&x);
    bytes_close(file);
    fuzz_remove("input.idx.index");
    return 0;
}
