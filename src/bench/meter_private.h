/* meter_private.h: what meter.c and meter_comm.c share. */
#ifndef CRIA_BENCH_METER_PRIVATE_H
#define CRIA_BENCH_METER_PRIVATE_H

#include "bench/meter.h"

enum { METER_PENDING = 64 };

typedef struct {
    Event *begin, *end;
    MeterClass class;
    const char *op;
    MeterCost cost;
    bool closed; /* end was recorded, or will be */
} MeterMark;

struct Meter {
    const Ops *ops; /* the real ones */
    Ops table;
    Stream *stream;   /* NULL: passes through */
    MeterMark *marks; /* their events are used again */
    int64_t n, capacity;
    Event *origin, *last;
    MeterSpan *spans;
    int64_t n_spans;
    double ms;
    Status failed; /* of making events */
};

/* Opens a mark on `stream`, as the caller's; -1 when nothing is recorded. */
int64_t meter_open(Meter *m, MeterClass class, const char *op, Stream *stream);
void meter_close(Meter *m, int64_t mark, Stream *stream);
/* A mark whose events someone else records. */
MeterMark *meter_mark(Meter *m, MeterClass class, const char *op);

#endif
