/* meter.h: where the time of a stream goes, with nothing changed in what is measured: a table of
 * Ops and communicators that pass every call on, with an event before and behind it. */
#ifndef CRIA_BENCH_METER_H
#define CRIA_BENCH_METER_H

#include "comm/comm.h"
#include "ops/ops.h"

#define METER_CLASS_LIST(X)                                                                        \
    X(DATA, "data") /* copies, zeroing, work lists */                                              \
    X(GEMM_FWD, "gemm_fwd")                                                                        \
    X(GEMM_BWD, "gemm_bwd")                                                                        \
    X(ATTENTION_FWD, "attention_fwd")                                                              \
    X(ATTENTION_BWD, "attention_bwd")                                                              \
    X(OTHER, "other")          /* norms, rope, swiglu, embedding, loss, rows moved */              \
    X(OPTIMIZER, "optimizer")  /* norm of the gradient, update */                                  \
    X(EXPOSED, "comm_exposed") /* the stream stands still for a transfer or runs a collective */   \
    X(TRANSFER, "transfer")    /* what happens beside the stream */

typedef enum {
#define X(name, text) METER_##name,
    METER_CLASS_LIST(X)
#undef X
        METER_CLASSES
} MeterClass;
extern const char *const meter_class_names[METER_CLASSES];

/* What calls of ops must at least do (ops.def); those of attention are 0: its mask is not known
 * here. */
typedef struct {
    double bytes, flops;
    bool fp8; /* a product of FP8 operands */
} MeterCost;

/* Milliseconds from meter_start. Those of all classes but TRANSFER follow each other on the stream;
 * what lies between two of them is time in which it had nothing to do. */
typedef struct {
    MeterClass class;
    const char *op;
    double begin, end;
    MeterCost cost;
} MeterSpan;

typedef struct Meter Meter;

/* Its table takes streams that are its own (Stream.ops). Passes calls through until meter_start. */
Meter *meter_create(const Ops *ops);
void meter_free(Meter *m); /* after everything that uses its table and communicators */
const Ops *meter_ops(Meter *m);
/* Takes `inner` over. */
Comm *meter_comm(Meter *m, Comm *inner);

/* From here to meter_stop what goes through `stream` is recorded, and the transfers of its
 * communicators. */
Status meter_start(Meter *m, Stream *stream);
/* Waits for the stream. */
Status meter_stop(Meter *m);
/* Of the last measurement, in order of issue. */
int64_t meter_spans(const Meter *m, const MeterSpan **spans);
/* Its length, and the sum of a class. */
double meter_ms(const Meter *m);
double meter_class_ms(const Meter *m, MeterClass class);

#endif
