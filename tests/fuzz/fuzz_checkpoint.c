/* Hostile checkpoint files. The input is a whole file; it is opened, read, verified and described.
 * Whatever opens must be sound: tensors fill the data section, names are found again, and a header
 * written from what was read says the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"

static void same_tensor(const SafeTensor *a, const SafeTensor *b) {
    REQUIRE(a != NULL && b != NULL && strcmp(a->name, b->name) == 0);
    REQUIRE(a->dtype == b->dtype && a->ndim == b->ndim && a->begin == b->begin && a->end == b->end);
    REQUIRE(memcmp(a->shape, b->shape, sizeof a->shape) == 0);
}

static void check_rewritten(const SafeFile *f, int64_t data_bytes) {
    StrBuf header = {0};
    SafeTensor *tensors = NEW(SafeTensor, f->n_tensors);
    if (f->n_tensors > 0) memcpy(tensors, f->tensors, (size_t)f->n_tensors * sizeof *tensors);
    safetensors_layout(tensors, f->n_tensors);
    safetensors_header(&header, tensors, f->n_tensors, f->entries, f->n_entries);
    SafeFile again;
    REQUIRE(safetensors_parse(&again, "again", header.text + 8, (int64_t)header.len - 8,
                              (int64_t)header.len + data_bytes) == OK);
    REQUIRE(again.n_tensors == f->n_tensors && again.n_entries == f->n_entries);
    for (int i = 0; i < f->n_tensors; i++)
        same_tensor(safetensors_find(&again, f->tensors[i].name), &f->tensors[i]);
    for (int i = 0; i < f->n_entries; i++)
        REQUIRE(strcmp(again.entries[i].value, f->entries[i].value) == 0);
    safetensors_free(&again);
    strbuf_free(&header);
    free(tensors);
}

static void check_opened(Checkpoint *ck, int64_t file_bytes) {
    const SafeFile *f = checkpoint_file(ck);
    int64_t at = 0;
    for (int i = 0; i < f->n_tensors; i++)
        if (f->tensors[i].dtype == DT_OTHER) return; /* is neither read nor written */
    for (int i = 0; i < f->n_tensors; i++) {
        const SafeTensor *t = &f->tensors[i];
        int64_t count = safetensors_count(t);
        REQUIRE(t->begin == at && t->end == at + count * dtype_bytes(t->dtype));
        at = t->end;
        same_tensor(safetensors_find(f, t->name), t);
        void *all = mem_new(count, (size_t)dtype_bytes(t->dtype));
        REQUIRE(checkpoint_read(ck, t->name, 0, count, all) == OK);
        free(all);
    }
    REQUIRE(f->data_start + at == file_bytes);
    check_rewritten(f, at);
    StrBuf text = {0};
    if (checkpoint_verify(ck) != OK) REQUIRE(status_message()[0] != '\0');
    checkpoint_describe(ck, &text);
    REQUIRE(text.len > 0);
    strbuf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    int fd = memfd_create("fuzz_checkpoint", MFD_CLOEXEC);
    REQUIRE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    Checkpoint *ck;
    Status st = checkpoint_open(&ck, path);
    if (st == OK)
        check_opened(ck, (int64_t)size);
    else
        REQUIRE(st == ERR_USER && strncmp(status_message(), path, strlen(path)) == 0);
    checkpoint_close(ck);
    close(fd);
    status_clear();
    return 0;
}
