#include "cp/dkv_reduce.h"

#include <stdlib.h>
#include <string.h>

void dkv_reduce_reserve(DkvReduce *r, CpRuntime *rt, Arena *arena) {
    int64_t remote = (rt->opt.size - 1) * rt->S;
    cp_reserve_dkv(rt, arena, "dkv received", remote, &r->in);
    arena_reserve(arena, "cp", "sum order", 4 * (rt->S + 1), (void **)&r->begin);
    arena_reserve(arena, "cp", "summed rows", 4 * remote, (void **)&r->from);
}

void dkv_reduce_plan(DkvReduce *r, const CpRuntime *rt, const DkvSegment *segments, int64_t n,
                     Stream *stream) {
    int32_t *begin = NEW(int32_t, rt->S + 1), *from = NEW(int32_t, (rt->opt.size - 1) * rt->S);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n; i++)
            for (int32_t k = 0; k < segments[i].rows; k++) {
                int32_t *at = &begin[segments[i].row + k];
                if (pass) from[*at] = segments[i].in + k;
                ++*at;
            }
        for (int64_t row = 0, sum = 0; pass == 0 && row < rt->S; row++) {
            int32_t count = begin[row];
            begin[row] = (int32_t)sum;
            sum += count;
        }
    } /* counted, then listed: now begin[row] is where those of `row` end, and those of row + 1
         begin */
    memmove(begin + 1, begin, (size_t)rt->S * sizeof *begin);
    begin[0] = 0;
    rt->ops->mem_upload(r->begin, begin, (rt->S + 1) * (int64_t)sizeof *begin, stream);
    rt->ops->mem_upload(r->from, from, begin[rt->S] * (int64_t)sizeof *from, stream);
    free(begin);
    free(from);
}

void dkv_reduce(const DkvReduce *r, const CpRuntime *rt, float *dkv, const float *own,
                Stream *stream) {
    rt->ops->sum_rows(dkv, own, r->in, r->begin, r->from, rt->S, cp_kv_width(rt), stream);
}
