/* token_files.h: a temporary folder of token files for the tests of src/data. */
#ifndef CRIA_TESTS_TOKEN_FILES_H
#define CRIA_TESTS_TOKEN_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "test.h"

static char folder[] = "/tmp/cria_test_XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char *command = mem_printf("rm -r %s", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static inline int run_in_folder(const char *command) {
    char *line = mem_printf("cd %s && %s", folder, command);
    int rc = system(line);
    free(line);
    return rc;
}

/* Valid until the 16th call after this one. */
static const char *in_folder(const char *name) {
    static char paths[16][256];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static const char *write_bytes(const char *name, const void *bytes, size_t n) {
    const char *path = in_folder(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *write_ids(const char *name, const uint16_t *ids, int64_t n) {
    unsigned char *bytes = mem_new(n, 2);
    for (int64_t i = 0; i < n; i++) {
        bytes[2 * i] = (unsigned char)ids[i];
        bytes[2 * i + 1] = (unsigned char)(ids[i] >> 8);
    }
    const char *path = write_bytes(name, bytes, (size_t)n * 2);
    free(bytes);
    return path;
}

/* ids first, first + 1, ... first + n - 1 */
static inline const char *write_counting(const char *name, int first, int64_t n) {
    uint16_t *ids = NEW(uint16_t, n);
    for (int64_t i = 0; i < n; i++) ids[i] = (uint16_t)(first + i);
    const char *path = write_ids(name, ids, n);
    free(ids);
    return path;
}

static inline void put_le(unsigned char **at, uint64_t v, int bytes) {
    for (int b = 0; b < bytes; b++) *(*at)++ = (unsigned char)(v >> 8 * b);
}

/* NAME.bin and NAME.idx of n sequences with these lengths, `per_document` to a document; ids in
 * file order, uint16. Returns the path of the .bin. */
static inline const char *write_megatron(const char *name, int64_t n, const int32_t *lengths,
                                         int64_t per_document, const uint16_t *ids) {
    int64_t documents = ceil_div(n, per_document), tokens = 0;
    unsigned char *index = NEW(unsigned char, 34 + 12 * n + 8 * (documents + 1)), *at = index + 9;
    memcpy(index, "MMIDIDX\0\0", 9);
    put_le(&at, 1, 8);
    put_le(&at, 8, 1); /* uint16 */
    put_le(&at, (uint64_t)n, 8);
    put_le(&at, (uint64_t)documents + 1, 8);
    for (int64_t i = 0; i < n; i++) put_le(&at, (uint32_t)lengths[i], 4);
    for (int64_t i = 0; i < n; tokens += lengths[i++]) put_le(&at, 2 * (uint64_t)tokens, 8);
    for (int64_t d = 0; d <= documents; d++) put_le(&at, (uint64_t)i64_min(d * per_document, n), 8);
    char *bin = mem_printf("%s.bin", name), *idx = mem_printf("%s.idx", name);
    write_bytes(idx, index, (size_t)(at - index));
    const char *path = write_ids(bin, ids, tokens);
    free(index);
    free(bin);
    free(idx);
    return path;
}

#endif
