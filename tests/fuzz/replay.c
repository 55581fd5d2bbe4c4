/* replay.c: feeds files to a fuzz target without libFuzzer, so that ordinary builds rerun a corpus:
 *   replay FILE_OR_DIRECTORY ... */
#include "base/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replayed;

static void replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    StrBuf text = {0};
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_append(&text, part, n);
    fclose(f);
    /* A block of exactly this size, so that the sanitizer sees a read past its end. */
    uint8_t *data = NEW(uint8_t, (int64_t)text.len);
    if (text.len > 0) memcpy(data, text.text, text.len);
    LLVMFuzzerTestOneInput(data, text.len);
    free(data);
    strbuf_free(&text);
    replayed++;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (dir == NULL) {
            replay_file(argv[i]);
            continue;
        }
        for (struct dirent *e; (e = readdir(dir)) != NULL;) {
            if (e->d_name[0] == '.') continue;
            char *path = mem_printf("%s/%s", argv[i], e->d_name);
            replay_file(path);
            free(path);
        }
        closedir(dir);
    }
    printf("%d inputs replayed\n", replayed);
    return replayed > 0 ? 0 : 1;
}
