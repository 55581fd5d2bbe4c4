/* magi_sum.h: what an owner does with the partial dKV rows that come back to it, in either form of
 * magi. Private to src/cp. */
#ifndef CRIA_CP_MAGI_SUM_H
#define CRIA_CP_MAGI_SUM_H

#include "cp/runtime.h"

/* The order in which dKV rows from others are added to own ones: rows `row`, row + 1, ...
 * of the own shard receive those of dkv_in from `in` on. Segments overlap in `row`, not in `in`. */
typedef struct {
    int32_t row, in, rows;
} MagiShare;
/* For all following calls of magi_sum(); the segments are added in the order given. */
void magi_sum_plan(CpRuntime *rt, const MagiShare *shares, int64_t n, Stream *stream);
/* dkv = own + what dkv_in holds. own may be dkv. */
void magi_sum(CpRuntime *rt, float *dkv, const float *own, Stream *stream);

#endif
