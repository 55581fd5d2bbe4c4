/* op_times.h: how long the ops of a step took, beside their floors: the least they could take on
 * this device, their bytes at the rate of a copy or their FLOPs at that of the step's largest
 * product, whichever is longer. An op whose tensors lie in a cache may take less. Products in FP8
 * are rows of their own, linear_fwd_fp8 and so on, beside the largest of theirs. */
#ifndef CRIA_BENCH_OP_TIMES_H
#define CRIA_BENCH_OP_TIMES_H

#include "bench/meter.h"

enum { OPS_MAX = 40 };

typedef struct {
    const char *name;
    double ms;
    MeterCost cost;
} OpTime;

typedef struct {
    OpTime list[OPS_MAX];
    int n;
    double copy_rate;        /* bytes/s, read and written; 0: not known */
    OpTime largest[2];       /* the calls of the forward product with the most FLOPs; [1]: in FP8 */
    double largest_flops[2]; /* of one of them */
} OpTimes;

/* `share`: what the span counts of a step. */
void op_times_add(OpTimes *t, const MeterSpan *span, double share);
/* NULL: it did not run. */
OpTime *op_times_find(OpTimes *t, const char *name);
/* Longest first. */
void op_times_sort(OpTimes *t);
/* FLOP/s of the largest product, in FP8 or not; 0: there is none */
double op_times_product_rate(const OpTimes *t, bool fp8);
/* 0: it has none, or the rates are not known */
double op_times_floor_ms(const OpTimes *t, const OpTime *op);

#endif
