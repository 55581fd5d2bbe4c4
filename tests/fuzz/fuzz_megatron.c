/* Arbitrary bytes as a Megatron index. The first 4 bytes are the size of the .bin; what is accepted
 * must describe exactly that many bytes, without gaps, and documents must be found where they are.
 */
#include <stdlib.h>
#include <string.h>

#include "data/megatron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t bytes;
    if (size < sizeof bytes) return 0;
    memcpy(&bytes, data, sizeof bytes);
    size -= sizeof bytes;
    unsigned char *index = NEW(unsigned char, (int64_t)size); /* the sanitizer sees its end */
    memcpy(index, data + sizeof bytes, size);
    MegatronIndex x;
    if (megatron_parse(&x, "input.idx", index, (int64_t)size, "input.bin", bytes) != OK) {
        REQUIRE(strstr(status_message(), "input.idx") != NULL);
        status_clear();
        free(index);
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
    free(index);
    return 0;
}
