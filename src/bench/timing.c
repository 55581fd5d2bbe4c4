#include "bench/timing.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/median.h"
#include "bench/nvml.h"
#include "ops/arena.h"
#include "ops/linear.h"

const char *const bench_state_names[] = {"step", "sustained", "burst", NULL};
const BenchTime bench_time_unknown = {NAN, NAN, NAN, NAN};

/* SKIPPED: the first timed calls, which may meet what the host did before. */
enum { CALLS_MIN = 3, SKIPPED = 2, GPU_CALLS_MIN = 9 };
static const double enter_ms = 500, timed_ms = 500, burst_ms = 20;

/* What keeps the device busy; numbers drawn, after which they repeat; rows of a product between
 * calls. */
enum { BLOCK_BYTES = 512 << 20, HOLDS = 100, NORMALS = 1 << 24, CPU_NORMALS = 1 << 18 };
enum { PRODUCT_ROWS = 8192, PRODUCT_UNIT = 128 };

typedef struct {
    Linear z;
    Arena arena;
    void *x, *w, *y;
} Product;

struct Timing {
    const Ops *ops;
    Stream *stream;
    BenchState state;
    Comm *host, *device;
    Nvml *nvml;
    Event *begin[TIMED_CALLS_MAX], *end[TIMED_CALLS_MAX];
    void *block, *normals;
    int64_t n_normals;
    Product product;
    int times;         /* the product, before a forward call */
    double product_ms; /* estimated */
};

/* ---- numbers ------------------------------------------------------------------------------- */

static Status make_normals(Timing *t) {
    t->n_normals = t->ops->host_memory ? CPU_NORMALS : NORMALS;
    int64_t bytes = t->n_normals * (int64_t)sizeof(float);
    CHECK(t->ops->mem_alloc(&t->block, i64_max(bytes, t->ops->host_memory ? 0 : BLOCK_BYTES),
                            "memory of the benchmark"));
    CHECK(t->ops->mem_alloc(&t->normals, t->n_normals * t->ops->act_bytes,
                            "random numbers of the benchmark"));
    float *numbers = NEW(float, t->n_normals);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < t->n_normals; i++)
        numbers[i] = (float)rng_normal(1, rng_stream(RNG_TEST, 0), (uint64_t)i);
    t->ops->mem_copy(t->block, numbers, bytes, t->stream);
    t->ops->cast_f32(t->normals, t->block, t->n_normals, t->stream);
    Status st = t->ops->stream_sync(t->stream);
    free(numbers);
    return st;
}

void timing_fill(Timing *t, void *x, int64_t n, int which) {
    const int64_t stride = 100003; /* tensors start at different numbers */
    int64_t act = t->ops->act_bytes, from = which * stride % t->n_normals;
    for (int64_t at = 0, count; at < n; at += count, from = 0) {
        count = i64_min(n - at, t->n_normals - from);
        t->ops->mem_copy((char *)x + at * act, (char *)t->normals + from * act, count * act,
                         t->stream);
    }
}

/* ---- products ------------------------------------------------------------------------------ */

static Status open_product(Timing *t, Product *p, int64_t S, int64_t N, int64_t M) {
    int64_t act = t->ops->act_bytes;
    *p = (Product){.z = {S, N, M}};
    arena_reserve(&p->arena, "product", "x", S * M * act, &p->x);
    arena_reserve(&p->arena, "product", "w", N * M * act, &p->w);
    arena_reserve(&p->arena, "product", "y", S * N * act, &p->y);
    CHECK(arena_commit(&p->arena, t->ops));
    timing_fill(t, p->x, S * M, 1);
    timing_fill(t, p->w, N * M, 2);
    return OK;
}

static void multiply(Timing *t, const Product *p) {
    linear_fwd(t->ops, p->z, p->y, p->x, p->w, NULL, t->stream);
}

Status timing_set_model(Timing *t, int64_t tokens, int hidden) {
    arena_free(&t->product.arena);
    t->times = 0;
    if (t->state != STATE_STEP || t->ops->host_memory) return OK;
    int64_t S = i64_min(tokens, PRODUCT_ROWS), N = round_up(hidden * 16 / 3, PRODUCT_UNIT);
    CHECK(open_product(t, &t->product, S, N, hidden));
    multiply(t, &t->product); /* chooses an algorithm */
    t->times = (int)(2 * ceil_div(tokens, S));
    /* at about the rate of such products on an H200: only counts of calls follow from it */
    t->product_ms = 1e3 * 2 * (double)S * (double)N * hidden / 600e12;
    return t->ops->stream_sync(t->stream);
}

/* ---- time ---------------------------------------------------------------------------------- */

/* Keeps the device busy for some 20 ms, so that the host gets ahead of it. */
static void hold(Timing *t) {
    for (int i = 0; i < HOLDS && !t->ops->host_memory; i++)
        t->ops->mem_zero(t->block, BLOCK_BYTES, t->stream);
}

/* What is queued behind this starts on all ranks at the same time. */
static Status start_together(Timing *t, Comm *device) {
    return comm_all_reduce(device, t->block, 1, DT_F32, COMM_MAX, COMM_KIND_OTHER, t->stream);
}

Status timing_align(Timing *t, Comm *host, Comm *device) {
    CHECK(comm_barrier(host));
    hold(t);
    return start_together(t, device);
}

static Status round_of(Timing *t, BenchCall call, void *ctx, int products, int event) {
    for (int i = 0; i < products * t->times; i++) multiply(t, &t->product);
    if (t->device != NULL) CHECK(start_together(t, t->device));
    if (event >= 0) t->ops->event_record(t->begin[event], t->stream);
    CHECK(call(ctx));
    if (event >= 0) t->ops->event_record(t->end[event], t->stream);
    return OK;
}

/* ms of one call between two synchronisations; with ranks, the slowest one's. */
static Status time_once(Timing *t, BenchCall call, void *ctx, double *ms) {
    CHECK(call(ctx)); /* may choose algorithms */
    CHECK(t->ops->stream_sync(t->stream));
    CHECK(round_of(t, call, ctx, 0, 0));
    CHECK(t->ops->stream_sync(t->stream));
    *ms = fmax(t->ops->event_ms(t->begin[0], t->end[0]), 1e-3);
    if (t->host == NULL) return OK;
    return comm_all_reduce(t->host, ms, 1, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL);
}

/* Calls before those that are timed, and these: the same on all ranks. */
static void choose_counts(const Timing *t, double call_ms, int products, int *before, int *timed) {
    double round_ms = call_ms + products * t->times * t->product_ms;
    bool burst = t->state == STATE_BURST || t->ops->host_memory;
    double fit = (burst ? burst_ms : timed_ms) / round_ms;
    int least = burst ? CALLS_MIN : GPU_CALLS_MIN;
    *timed = (int)fmax(least, fmin(fit, TIMED_CALLS_MAX));
    *before = burst ? least : (int)ceil(enter_ms / round_ms);
}

static Status enter_state(Timing *t, BenchCall call, void *ctx, int products, int before) {
    for (int i = 0; i < before; i++) CHECK(round_of(t, call, ctx, products, -1));
    CHECK(t->ops->stream_sync(t->stream));
    if (t->host != NULL) CHECK(comm_barrier(t->host));
    if (t->state == STATE_BURST) hold(t);
    return OK;
}

Status timing_run(Timing *t, BenchCall call, void *ctx, int products, BenchTime *out) {
    double once, ms[TIMED_CALLS_MAX];
    int before, timed;
    Status st = OK;
    CHECK(time_once(t, call, ctx, &once));
    choose_counts(t, once, products, &before, &timed);
    CHECK(enter_state(t, call, ctx, products, before));
    nvml_watch_start(t->nvml);
    for (int i = 0; i < timed && st == OK; i++) st = round_of(t, call, ctx, products, i);
    if (st == OK) st = t->ops->stream_sync(t->stream);
    nvml_watch_stop(t->nvml, &out->mhz, &out->watts);
    CHECK(st);
    for (int i = SKIPPED; i < timed; i++)
        ms[i - SKIPPED] = t->ops->event_ms(t->begin[i], t->end[i]);
    int n = timed - SKIPPED;
    out->ms = median(ms, n);
    out->spread = (quantile(ms, n, 0.75) - quantile(ms, n, 0.25)) / 2 / out->ms;
    return OK;
}

typedef struct {
    Timing *t;
    Product p;
} Square;

static Status multiply_square(void *ctx) {
    const Square *s = ctx;
    multiply(s->t, &s->p);
    return OK;
}

Status timing_product_rate(Timing *t, int64_t side, double *rate) {
    Square s = {.t = t};
    BenchTime time;
    Status st = open_product(t, &s.p, side, side, side);
    if (st == OK) st = timing_run(t, multiply_square, &s, 0, &time);
    if (st == OK) *rate = 1e3 * 2 * pow((double)side, 3) / time.ms;
    arena_free(&s.p.arena);
    return st;
}

typedef struct {
    Timing *t;
    Arena arena;
    int64_t bytes;
    void *to, *from;
} Copy;

static Status copy(void *ctx) {
    const Copy *c = ctx;
    c->t->ops->mem_copy(c->to, c->from, c->bytes, c->t->stream);
    return OK;
}

Status timing_copy_rate(Timing *t, int64_t bytes, double *rate) {
    Copy c = {.t = t, .bytes = bytes};
    BenchTime time;
    arena_reserve(&c.arena, "copy", "to", bytes, &c.to);
    arena_reserve(&c.arena, "copy", "from", bytes, &c.from);
    Status st = arena_commit(&c.arena, t->ops);
    if (st == OK) t->ops->mem_zero(c.from, bytes, t->stream);
    if (st == OK) st = timing_run(t, copy, &c, 0, &time);
    if (st == OK) *rate = 1e3 * 2 * (double)bytes / time.ms;
    arena_free(&c.arena);
    return st;
}

/* ---- create and free ----------------------------------------------------------------------- */

Status timing_create(Timing **out, const Ops *ops, Stream *stream, BenchState state) {
    Timing *t = *out = NEW(Timing, 1);
    *t = (Timing){.ops = ops, .stream = stream, .state = state};
    for (int i = 0; i < TIMED_CALLS_MAX; i++) {
        CHECK(ops->event_create(&t->begin[i]));
        CHECK(ops->event_create(&t->end[i]));
    }
    if (ops->gpu != NULL) t->nvml = nvml_open(ops->gpu->pci_bus_id);
    return make_normals(t);
}

void timing_free(Timing *t) {
    if (t == NULL) return;
    arena_free(&t->product.arena);
    for (int i = 0; i < TIMED_CALLS_MAX; i++) {
        t->ops->event_free(t->begin[i]);
        t->ops->event_free(t->end[i]);
    }
    t->ops->mem_free(t->block);
    t->ops->mem_free(t->normals);
    nvml_close(t->nvml);
    free(t);
}

void timing_set_ranks(Timing *t, Comm *host, Comm *device) {
    t->host = host;
    t->device = device;
}
