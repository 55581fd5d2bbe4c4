/* dkv_reduce.h: the owner's reduction of partial dKV rows that other ranks send back, in a fixed
 * order. Private to src/cp. */
#ifndef CRIA_CP_DKV_REDUCE_H
#define CRIA_CP_DKV_REDUCE_H

#include "cp/runtime.h"

/* Device memory. */
typedef struct {
    float *in;             /* [(P - 1) S] rows: partial dKV from others */
    int32_t *begin, *from; /* rows of `in` to add to each local row, see Ops.sum_rows */
} DkvReduce;
void dkv_reduce_reserve(DkvReduce *r, CpRuntime *rt, Arena *arena);

/* Rows row, row + 1, ... of the local shard receive the rows of `in` from `in` on. Segments may
 * overlap in `row`, not in `in`. */
typedef struct {
    int32_t row, in, rows;
} DkvSegment;
/* For all following calls of dkv_reduce(), which adds the segments in the order given. */
void dkv_reduce_plan(DkvReduce *r, const CpRuntime *rt, const DkvSegment *segments, int64_t n,
                     Stream *stream);
/* dkv = own + the rows received. own may be dkv. */
void dkv_reduce(const DkvReduce *r, const CpRuntime *rt, float *dkv, const float *own,
                Stream *stream);

#endif
