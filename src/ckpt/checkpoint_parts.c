#include "ckpt/checkpoint_parts.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static int by_place(const void *a, const void *b) {
    const CkptPart *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

Status parts_gather(Comm *host, const CkptPart *mine, int64_t n, CkptPart **all, int64_t *n_all) {
    const int64_t fields = sizeof(CkptPart) / sizeof(int64_t);
    int64_t most = n, kept = 0;
    *all = NULL;
    CHECK(comm_all_reduce(host, &most, 1, DT_I64, COMM_MAX, COMM_KIND_OTHER, NULL));
    CkptPart *list = NEW(CkptPart, most * host->size); /* zeros: ranks with fewer have empty ones */
    for (int64_t i = 0; i < n; i++) {
        list[most * host->rank + i] = mine[i];
        list[most * host->rank + i].rank = host->rank;
    }
    Status st = comm_all_gather(host, list, most * fields, DT_I64, COMM_KIND_OTHER, NULL);
    if (st != OK) {
        free(list);
        return st;
    }
    for (int64_t i = 0; i < most * host->size; i++)
        if (list[i].count > 0) list[kept++] = list[i];
    if (kept > 1) qsort(list, (size_t)kept, sizeof *list, by_place);
    *all = list;
    *n_all = kept;
    return OK;
}

void parts_combine(const CkptPart *all, int64_t n, const SafeTensor *tensors, int n_tensors,
                   uint32_t *crcs) {
    const CkptPart *p = all, *end = all + n;
    for (int i = 0; i < n_tensors; i++) {
        const SafeTensor *t = &tensors[i];
        int64_t covered = 0;
        uint32_t crc = 0;
        for (; p < end && p->tensor == i; p++) {
            REQUIRE(p->begin == covered);
            crc = (uint32_t)crc32_combine(crc, (uint32_t)p->crc, p->count * dtype_bytes(t->dtype));
            covered += p->count;
        }
        REQUIRE(covered == safetensors_count(t));
        crcs[i] = crc;
    }
}

uint32_t parts_weights_crc(const SafeTensor *tensors, int n_tensors, const uint32_t *crcs) {
    uint32_t crc = 0;
    for (int i = 0; i < n_tensors; i++)
        if (strncmp(tensors[i].name, "optim.", 6) != 0)
            crc = (uint32_t)crc32_combine(crc, crcs[i], tensors[i].end - tensors[i].begin);
    return crc;
}
