/* dkv_reduce.h: the owner's reduction of partial dKV rows that other ranks send back, in either
 * form of magi. Private to src/cp. */
#ifndef CRIA_CP_DKV_REDUCE_H
#define CRIA_CP_DKV_REDUCE_H

#include "cp/runtime.h"

/* Rows row, row + 1, ... of the local shard receive the rows of dkv_in from `in` on. Segments may
 * overlap in `row`, not in `in`. */
typedef struct {
    int32_t row, in, rows;
} DkvSegment;
/* For all following calls of dkv_reduce(), which adds the segments in the order given. */
void dkv_reduce_plan(CpRuntime *rt, const DkvSegment *segments, int64_t n, Stream *stream);
/* dkv = own + the rows of dkv_in. own may be dkv. */
void dkv_reduce(CpRuntime *rt, float *dkv, const float *own, Stream *stream);

#endif
