/* magi.h: what the two forms of magi share. Private to src/cp. */
#ifndef CRIA_CP_MAGI_H
#define CRIA_CP_MAGI_H

#include "cp/runtime.h"

/* magi.c: the order in which dKV rows from others are added to own ones: rows `row`, row + 1, ...
 * of the own shard receive those of dkv_in from `in` on. Segments overlap in `row`, not in `in`. */
typedef struct {
    int32_t row, in, rows;
} MagiShare;
/* For all following calls of magi_sum(); the segments are added in the order given. */
void magi_sum_plan(CpRuntime *rt, const MagiShare *shares, int64_t n, Stream *stream);
/* dkv = own + what dkv_in holds. own may be dkv. */
void magi_sum(CpRuntime *rt, float *dkv, const float *own, Stream *stream);

/* ---- magi_whole.c ---------------------------------------------------------------------------- */
/* How many rows dkv_part[0] takes at most. */
int64_t magi_whole_keys(const CpRuntime *rt);
bool magi_whole_wanted(const CpRuntime *rt);
Status magi_whole_plan(CpRuntime *rt, Stream *stream);
Status magi_whole_fetch(CpRuntime *rt, const void *kv, Stream *stream);
Status magi_whole_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream);
/* After magi_whole_fetch(). */
Status magi_whole_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, const void *kv, Stream *stream);

#endif
