/* throughput.h: how fast steps are, from one record of the log to the next. */
#ifndef CRIA_TRAIN_THROUGHPUT_H
#define CRIA_TRAIN_THROUGHPUT_H

#include "metrics/sink.h"
#include "session/session.h"

/* Since the last throughput_start(). */
typedef struct {
    double begin;
    int64_t begin_step, begin_bytes[COMM_KINDS];
    double data_seconds; /* waited for the loader; the caller's to add to, as is: */
    double area;         /* allowed (query, key) pairs of all ranks */
} Throughput;

/* After `step` updates. Time spent on evaluation and saves is left out by a start behind them. */
void throughput_start(Throughput *t, const Session *s, int64_t step);
/* The record of step r->step, which has been waited for: everything but loss, grad_norm, lr, tokens
 * and the checksum. */
void throughput_fill(const Throughput *t, const Session *s, StepRecord *r);

#endif
