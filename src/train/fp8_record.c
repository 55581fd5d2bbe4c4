#include "train/fp8_record.h"

#include <math.h>

enum { ELEMENTS, ZEROS, SATURATED, SUMS };
enum { OPERANDS = LINEAR_KINDS * OPERAND_KINDS };

Status fp8_record_fill(Session *s, Fp8Record *out) {
    LinearsCounts counts;
    double sums[OPERANDS][SUMS], absmax[OPERANDS];
    CHECK(linears_take_counts(llama_linears(s->llama), &counts, s->stream));
    for (int i = 0; i < OPERANDS; i++) {
        const Fp8Counts *c = &counts.of[i / OPERAND_KINDS][i % OPERAND_KINDS];
        sums[i][ELEMENTS] = (double)c->elements;
        sums[i][ZEROS] = (double)c->zeros;
        sums[i][SATURATED] = (double)c->saturated;
        absmax[i] = isnan(c->absmax) ? INFINITY : (double)c->absmax; /* MAX may pass over a NaN */
    }
    CHECK(comm_all_reduce(s->comm.host, sums, OPERANDS * SUMS, DT_F64, COMM_SUM, COMM_KIND_OTHER,
                          NULL));
    CHECK(comm_all_reduce(s->comm.host, absmax, OPERANDS, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL));
    for (int i = 0; i < OPERANDS; i++) {
        double n = sums[i][ELEMENTS];
        out->of[i / OPERAND_KINDS][i % OPERAND_KINDS] =
            (Fp8Shares){.used = n > 0,
                        .absmax = absmax[i],
                        .zeros = n > 0 ? sums[i][ZEROS] / n : 0,
                        .saturated = n > 0 ? sums[i][SATURATED] / n : 0};
    }
    return OK;
}
