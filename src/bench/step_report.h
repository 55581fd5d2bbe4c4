/* step_report.h: what `cria bench step` measured, and its report. */
#ifndef CRIA_BENCH_STEP_REPORT_H
#define CRIA_BENCH_STEP_REPORT_H

#include "bench/meter.h"
#include "bench/op_times.h"
#include "session/session.h"

typedef struct {
    Session s;
    Meter *meter;
    MicroBatch *batches; /* [s.micro_steps] */
    double area;         /* of a global batch */
    double own_area;     /* of it, what this rank computes */
    int64_t updates;
    double queued_ms; /* until the host had queued the micro-batches of the last step */
    /* results in ms: of the slowest rank, and under the meter means over ranks */
    struct {
        double step, host, micro_host, micro;
    } ms;
    struct {
        double step, class[METER_CLASSES];
    } metered;
    OpTimes ops; /* of this rank */
} StepBench;

/* Rank 0 prints, and measures the rate of a copy before, for floors. Collective. */
Status step_report(StepBench *x, bool json);

#endif
