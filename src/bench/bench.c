#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/arena.h"
#include "base/log.h"
#include "base/rng.h"
#include "session/device.h"

/* How many calls are measured: as many as fit, within these bounds. */
enum { MIN_CALLS = 3, MAX_SINGLE = 10, MAX_STREAM = 20, SKIPPED = 2, WARM_CALLS = 3 };
static const double budget_ms[] = {[false] = 500, [true] = 20}; /* by host_memory */

/* What holds the device; numbers drawn, after which they repeat. */
enum { BLOCK_BYTES = 512 << 20, HOLDS = 100, NORMALS = 1 << 24, CPU_NORMALS = 1 << 18 };

static Status make_normals(Bench *b) {
    b->n_normals = b->ops->host_memory ? CPU_NORMALS : NORMALS;
    int64_t bytes = b->n_normals * (int64_t)sizeof(float);
    CHECK(b->ops->mem_alloc(&b->block, i64_max(bytes, b->ops->host_memory ? 0 : BLOCK_BYTES),
                            "memory of the benchmark"));
    CHECK(b->ops->mem_alloc(&b->normals, b->n_normals * b->ops->act_bytes,
                            "random numbers of the benchmark"));
    float *numbers = NEW(float, b->n_normals);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < b->n_normals; i++)
        numbers[i] = (float)rng_normal(1, rng_stream(RNG_TEST, 0), (uint64_t)i);
    b->ops->mem_copy(b->block, numbers, bytes, b->stream);
    b->ops->cast_f32(b->normals, b->block, b->n_normals, b->stream);
    Status st = b->ops->stream_sync(b->stream);
    free(numbers);
    return st;
}

typedef struct {
    Bench *b;
    int64_t side;
    void *x, *w, *y;
} Square;

static Status multiply(void *ctx) {
    const Square *s = ctx;
    s->b->ops->linear_fwd(s->y, s->x, s->w, NULL, s->side, s->side, s->side, s->b->stream);
    return OK;
}

static Status measure_gemm_rate(Bench *b, int64_t side) {
    Square s = {.b = b, .side = side};
    Arena arena = {0};
    BenchTimes times;
    Status st;
    int64_t n = side * side, bytes = n * b->ops->act_bytes;
    arena_reserve(&arena, "product", "x", bytes, &s.x);
    arena_reserve(&arena, "product", "w", bytes, &s.w);
    arena_reserve(&arena, "product", "y", bytes, &s.y);
    CHECK_GOTO(arena_commit(&arena, b->ops), done);
    bench_fill(b, s.x, n, 1);
    bench_fill(b, s.w, n, 2);
    CHECK_GOTO(bench_time(b, multiply, &s, &times), done);
    b->gemm_rate = 1e3 * 2 * (double)n * (double)side / fmin(times.single, times.stream);
done:
    arena_free(&arena);
    return st;
}

Status bench_open(Bench *b, const char *what, const BenchArguments *a) {
    b->json = a->json;
    char *why_cpu;
    CHECK(device_open(&b->ops, a->device, NULL, &why_cpu));
    if (why_cpu != NULL && comm_local_rank() == 0) log_warn("%s", why_cpu);
    free(why_cpu);
    CHECK(b->ops->stream_create(&b->stream));
    for (int i = 0; i < BENCH_EVENTS; i++) CHECK(b->ops->event_create(&b->events[i]));
    CHECK(make_normals(b));
    int64_t side = b->ops->host_memory ? 512 : 8192;
    CHECK(measure_gemm_rate(b, side));
    b->members = mem_printf("\"bench\":\"%s\",\"device\":\"%s\",\"gemm_tflops\":%.4g", what,
                            b->ops->device_name, b->gemm_rate / 1e12);
    if (!b->json)
        log_info("%s; a product of %d x %d x %d runs at %.4g TFLOP/s", b->ops->device_name,
                 (int)side, (int)side, (int)side, b->gemm_rate / 1e12);
    return OK;
}

void bench_close(Bench *b) {
    if (b->ops != NULL) {
        for (int i = 0; i < BENCH_EVENTS; i++) b->ops->event_free(b->events[i]);
        if (b->stream != NULL) b->ops->stream_free(b->stream);
        b->ops->mem_free(b->block);
        b->ops->mem_free(b->normals);
    }
    free(b->members);
    *b = (Bench){0};
}

void bench_fill(Bench *b, void *x, int64_t n, int which) {
    const int64_t stride = 100003; /* tensors start at different numbers */
    int64_t act = b->ops->act_bytes, from = which * stride % b->n_normals;
    for (int64_t at = 0, count; at < n; at += count, from = 0) {
        count = i64_min(n - at, b->n_normals - from);
        b->ops->mem_copy((char *)x + at * act, (char *)b->normals + from * act, count * act,
                         b->stream);
    }
}

Status bench_agree(Status mine) {
    Comm *host;
    CHECK(comm_mpi_create(&host));
    Status st = comm_agree(host, mine);
    comm_free(host);
    return st;
}

Status bench_finish(Status mine) {
    if (mine == OK || status_is_agreed()) return mine;
    log_error("%s", status_message());
    comm_abort(status_exit_code(mine));
}

void bench_print_help(const char *what, const char *text, const Setting *settings) {
    StrBuf out = {0};
    strbuf_printf(&out,
                  "usage: cria bench %s%s\nkey=value[,value ...] replaces the values of a "
                  "setting:\n",
                  what, text);
    bench_settings_print(settings, &out);
    strbuf_printf(&out, "  %-16s auto, cpu or cuda\n--json prints a JSON object a line", "device");
    log_info("%s", strbuf_text(&out));
    strbuf_free(&out);
}

/* ---- time ---------------------------------------------------------------------------------- */

void bench_hold(Bench *b) {
    for (int i = 0; i < HOLDS && !b->ops->host_memory; i++)
        b->ops->mem_zero(b->block, BLOCK_BYTES, b->stream);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n) {
    REQUIRE(n > 0);
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static Status time_single(Bench *b, BenchCall call, void *ctx, int n, double *out) {
    double ms[MAX_SINGLE];
    for (int i = 0; i < n; i++) {
        b->ops->event_record(b->events[0], b->stream);
        CHECK(call(ctx));
        b->ops->event_record(b->events[1], b->stream);
        CHECK(b->ops->stream_sync(b->stream));
        ms[i] = b->ops->event_ms(b->events[0], b->events[1]);
    }
    *out = median(ms, n);
    return OK;
}

/* The first calls may still find the device in another state: they do not count. */
static Status time_stream(Bench *b, BenchCall call, void *ctx, int n, double *out) {
    double ms[MAX_STREAM];
    if (b->host != NULL) CHECK(comm_barrier(b->host));
    bench_hold(b);
    b->ops->event_record(b->events[0], b->stream);
    for (int i = 1; i <= n; i++) {
        CHECK(call(ctx));
        b->ops->event_record(b->events[i], b->stream);
    }
    CHECK(b->ops->stream_sync(b->stream));
    for (int i = SKIPPED; i < n; i++)
        ms[i - SKIPPED] = b->ops->event_ms(b->events[i], b->events[i + 1]);
    *out = median(ms, n - SKIPPED);
    return OK;
}

Status bench_time(Bench *b, BenchCall call, void *ctx, BenchTimes *out) {
    CHECK(call(ctx)); /* may choose algorithms */
    CHECK(b->ops->stream_sync(b->stream));
    double once;
    CHECK(time_single(b, call, ctx, 1, &once));
    if (b->host != NULL)
        CHECK(comm_all_reduce(b->host, &once, 1, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL));
    double fit = budget_ms[b->ops->host_memory] / fmax(once, 1e-3);
    int n = (int)fmax(MIN_CALLS, fmin(fit, MAX_STREAM));
    for (int i = 0; i < WARM_CALLS && n > MIN_CALLS; i++) CHECK(call(ctx));
    CHECK(b->ops->stream_sync(b->stream));
    out->single = NAN;
    if (b->host == NULL)
        CHECK(time_single(b, call, ctx, n < MAX_SINGLE ? n : MAX_SINGLE, &out->single));
    return time_stream(b, call, ctx, n, &out->stream);
}
