/* fuzz_file.h: the input of a fuzz target as a file in a folder of its own, and what lies beside
 * it. */
#ifndef CRIA_TESTS_FUZZ_FILE_H
#define CRIA_TESTS_FUZZ_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

static char fuzz_folder[32];

static inline void fuzz_remove(const char *name) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    unlink(path);
}

static inline void fuzz_remove_folder(void) {
    static const char *const names[] = {"input.bin",       "input.bin.index", "input.idx",
                                        "input.gz",        "input.gz.index",  "tokenizer.json",
                                        "tokenizer.model", "vocab.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) fuzz_remove(names[i]);
    rmdir(fuzz_folder);
}

/* Valid until the next call. */
static inline const char *fuzz_write(const char *name, const void *data, size_t size) {
    static char path[64];
    if (fuzz_folder[0] == '\0') {
        snprintf(fuzz_folder, sizeof fuzz_folder, "/tmp/cria_fuzz_XXXXXX");
        REQUIRE(mkdtemp(fuzz_folder) != NULL);
        atexit(fuzz_remove_folder);
    }
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    FILE *f = fopen(path, "wb");
    REQUIRE(f != NULL && (size == 0 || fwrite(data, 1, size, f) == size) && fclose(f) == 0);
    return path;
}

#endif
