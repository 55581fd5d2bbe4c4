#include "cp/dkv_reduce.h"

#include <string.h>

#include <stdlib.h>

void dkv_reduce_plan(CpRuntime *rt, const DkvSegment *segments, int64_t n, Stream *stream) {
    int32_t *begin = NEW(int32_t, rt->S + 1), *from = NEW(int32_t, (rt->opt.size - 1) * rt->S);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n; i++)
            for (int32_t r = 0; r < segments[i].rows; r++) {
                int32_t *at = &begin[segments[i].row + r];
                if (pass) from[*at] = segments[i].in + r;
                ++*at;
            }
        for (int64_t r = 0, sum = 0; pass == 0 && r < rt->S; r++) {
            int32_t count = begin[r];
            begin[r] = (int32_t)sum;
            sum += count;
        }
    } /* counted, then listed: now begin[r] is where the rows of r end, and those of r + 1 begin */
    memmove(begin + 1, begin, (size_t)rt->S * sizeof *begin);
    begin[0] = 0;
    rt->ops->mem_upload(rt->reduce_begin, begin, (rt->S + 1) * (int64_t)sizeof *begin, stream);
    rt->ops->mem_upload(rt->reduce_from, from, begin[rt->S] * (int64_t)sizeof *from, stream);
    free(begin);
    free(from);
}

void dkv_reduce(CpRuntime *rt, float *dkv, const float *own, Stream *stream) {
    rt->ops->sum_rows(dkv, own, rt->dkv_in, rt->reduce_begin, rt->reduce_from, rt->S,
                      cp_kv_width(rt), stream);
}
