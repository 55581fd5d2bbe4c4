/* fuzz_tiles.c: whatever the mask, the remote ranges and the tile sizes, work lists walk every
 * allowed pair once. */
#include "../tiles_case.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size <= 512) check_tiles_case(data, size, 300);
    return 0;
}
