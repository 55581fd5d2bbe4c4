#include "bench/op_times.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

OpTime *op_times_find(OpTimes *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->list[i].name, name) == 0) return &t->list[i];
    return NULL;
}

static void add(OpTime *op, const MeterSpan *span, double share) {
    op->ms += share * (span->end - span->begin);
    op->cost.bytes += share * span->cost.bytes;
    op->cost.flops += share * span->cost.flops;
}

void op_times_add(OpTimes *t, const MeterSpan *span, double share) {
    OpTime *op = op_times_find(t, span->op);
    REQUIRE(op != NULL || t->n < OPS_MAX);
    if (op == NULL) {
        op = &t->list[t->n++];
        *op = (OpTime){.name = span->op};
    }
    add(op, span, share);
    if (span->class != METER_GEMM_FWD || span->cost.flops < t->largest_flops) return;
    if (span->cost.flops > t->largest_flops) t->largest = (OpTime){.name = span->op};
    t->largest_flops = span->cost.flops;
    add(&t->largest, span, share);
}

static int by_time(const void *a, const void *b) {
    const OpTime *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

void op_times_sort(OpTimes *t) {
    qsort(t->list, (size_t)t->n, sizeof *t->list, by_time);
}

double op_times_product_rate(const OpTimes *t) {
    return t->largest.ms > 0 ? 1e3 * t->largest.cost.flops / t->largest.ms : 0;
}

double op_times_floor_ms(const OpTimes *t, const OpTime *op) {
    double products = op_times_product_rate(t);
    double bytes = t->copy_rate > 0 ? 1e3 * op->cost.bytes / t->copy_rate : 0;
    double flops = products > 0 ? 1e3 * op->cost.flops / products : 0;
    return fmax(bytes, flops);
}
