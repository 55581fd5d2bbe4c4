#include "bench/op_times.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

OpTime *op_times_find(OpTimes *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->list[i].name, name) == 0) return &t->list[i];
    return NULL;
}

static const char *row_name(const MeterSpan *span) {
    static const char *const names[][2] = {{"linear_fwd", "linear_fwd_fp8"},
                                           {"linear_dgrad", "linear_dgrad_fp8"},
                                           {"linear_wgrad", "linear_wgrad_fp8"}};
    for (int i = 0; i < 3 && span->cost.fp8; i++)
        if (strcmp(span->op, names[i][0]) == 0) return names[i][1];
    return span->op;
}

static void add(OpTime *op, const MeterSpan *span, double share) {
    op->ms += share * (span->end - span->begin);
    op->cost.bytes += share * span->cost.bytes;
    op->cost.flops += share * span->cost.flops;
}

void op_times_add(OpTimes *t, const MeterSpan *span, double share) {
    const char *name = row_name(span);
    OpTime *op = op_times_find(t, name);
    REQUIRE(op != NULL || t->n < OPS_MAX);
    if (op == NULL) {
        op = &t->list[t->n++];
        *op = (OpTime){.name = name, .cost.fp8 = span->cost.fp8};
    }
    add(op, span, share);
    int fp8 = span->cost.fp8;
    if (span->class != METER_GEMM_FWD || span->cost.flops < t->largest_flops[fp8]) return;
    if (span->cost.flops > t->largest_flops[fp8]) t->largest[fp8] = (OpTime){.name = name};
    t->largest_flops[fp8] = span->cost.flops;
    add(&t->largest[fp8], span, share);
}

static int by_time(const void *a, const void *b) {
    const OpTime *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

void op_times_sort(OpTimes *t) {
    qsort(t->list, (size_t)t->n, sizeof *t->list, by_time);
}

double op_times_product_rate(const OpTimes *t, bool fp8) {
    const OpTime *largest = &t->largest[fp8];
    return largest->ms > 0 ? 1e3 * largest->cost.flops / largest->ms : 0;
}

double op_times_floor_ms(const OpTimes *t, const OpTime *op) {
    double products = op_times_product_rate(t, op->cost.fp8);
    double bytes = t->copy_rate > 0 ? 1e3 * op->cost.bytes / t->copy_rate : 0;
    double flops = products > 0 ? 1e3 * op->cost.flops / products : 0;
    return fmax(bytes, flops);
}
