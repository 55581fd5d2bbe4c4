/* timing.h: times calls on the device in a declared state of its clock.
 *
 * A GPU at its power limit lowers its clock within milliseconds, so a call's rate depends on what
 * ran before it by more than kernels differ. A time therefore belongs to a state, which is entered
 * for half a second and then kept while calls are timed:
 *   step       matrix products of a model's shapes before every call, as in training
 *   sustained  the same call over and over
 *   burst      20 ms of writes to memory, then calls for some 20 ms: a GPU that was not at its
 * limit A backend in host memory has no states: its calls follow one another.
 *
 * Calls are queued back to back, so that the host runs ahead, and timed by events. */
#ifndef CRIA_BENCH_TIMING_H
#define CRIA_BENCH_TIMING_H

#include "comm/comm.h"
#include "ops/ops.h"

typedef enum { STATE_STEP, STATE_SUSTAINED, STATE_BURST, BENCH_STATES } BenchState;
extern const char *const bench_state_names[BENCH_STATES + 1]; /* ends with NULL */

enum { TIMED_CALLS_MAX = 31 };

typedef struct Timing Timing;
typedef Status (*BenchCall)(void *ctx);

typedef struct {
    double ms;         /* median over calls */
    double spread;     /* half the distance between the quartiles, as a share of ms */
    double mhz, watts; /* of the GPU meanwhile, medians; NaN: not known */
} BenchTime;
extern const BenchTime bench_time_unknown; /* all NaN */

/* `host`: all ranks measure together, and every call of this file is collective; those of `device`
 * begin every timed call together. Both NULL: alone. */
Status timing_create(Timing **out, const Ops *ops, Stream *stream, BenchState state);
void timing_free(Timing *t);
void timing_set_ranks(Timing *t, Comm *host, Comm *device);

/* What runs between calls in the state `step` from here on: the product of `tokens` rows and a
 * feed-forward layer of 8/3 `hidden` columns, twice. ERR_ENV: no memory for it. */
Status timing_set_model(Timing *t, int64_t tokens, int hidden);

/* `products`: how many times those two; 1 before a forward call, 2 before a backward one. With
 * ranks, each gets its own times. They hold no waiting for ranks whose products took longer. */
Status timing_run(Timing *t, BenchCall call, void *ctx, int products, BenchTime *out);

/* FLOP/s of a product of side x side x side in this state. */
Status timing_product_rate(Timing *t, int64_t side, double *rate);

/* Bytes/s, read and written, of a copy of `bytes` on the device in this state. */
Status timing_copy_rate(Timing *t, int64_t bytes, double *rate);

/* Everything queued later starts at the same time on all ranks of `device`, whose hosts `host`
 * joins; the hosts get ahead of it. */
Status timing_align(Timing *t, Comm *host, Comm *device);
/* n normal numbers in the activation type; `which` names the tensor. */
void timing_fill(Timing *t, void *x, int64_t n, int which);

#endif
