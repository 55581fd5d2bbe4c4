/* attention.c: `cria bench attention`: the attention ops on one device, under the masks and at the
 * lengths that people quote. 4 * area * H * D FLOPs forward, 2.5 times that backward. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/arena.h"
#include "bench/bench.h"
#include "bench/cases.h"
#include "bench/table.h"

typedef struct {
    Bench *b;
    AttnShape shape;
    Arena arena;
    void *q, *kv, *o, *d_o;
    float *lse, *delta, *dq, *dkv;
    AttnWork *work;
} Attention;

static Status forward(void *ctx) {
    Attention *a = ctx;
    a->b->ops->attention_fwd(
        &(AttnFwd){.o = a->o, .lse = a->lse, .q = a->q, .kv = a->kv, .work = a->work},
        a->b->stream);
    return OK;
}

static Status backward(void *ctx) {
    Attention *a = ctx;
    const Ops *ops = a->b->ops;
    ops->attention_delta(a->delta, a->d_o, a->o, a->shape.Sq, a->shape.H, a->shape.D, a->b->stream);
    ops->attention_bwd(&(AttnBwd){.dq = a->dq,
                                  .dkv = a->dkv,
                                  .d_o = a->d_o,
                                  .q = a->q,
                                  .kv = a->kv,
                                  .lse = a->lse,
                                  .delta = a->delta,
                                  .work = a->work},
                       a->b->stream);
    return OK;
}

static Status open_attention(Attention *a, const Mask *mask, bool *fits) {
    Bench *b = a->b;
    int64_t act = b->ops->act_bytes, rows = a->shape.Sq * a->shape.H;
    int64_t q = rows * a->shape.D, kv = 2 * a->shape.Sk * a->shape.K * a->shape.D;
    arena_reserve(&a->arena, "attention", "q", q * act, &a->q);
    arena_reserve(&a->arena, "attention", "kv", kv * act, &a->kv);
    arena_reserve(&a->arena, "attention", "o", q * act, &a->o);
    arena_reserve(&a->arena, "attention", "do", q * act, &a->d_o);
    arena_reserve(&a->arena, "attention", "lse", rows * 4, (void **)&a->lse);
    arena_reserve(&a->arena, "attention", "delta", rows * 4, (void **)&a->delta);
    arena_reserve(&a->arena, "attention", "dq", q * 4, (void **)&a->dq);
    arena_reserve(&a->arena, "attention", "dkv", kv * 4, (void **)&a->dkv);
    Status st = arena_commit(&a->arena, b->ops);
    *fits = st == OK;
    if (!*fits) return status_ignore(st);
    timing_fill(b->timing, a->q, q, 1);
    timing_fill(b->timing, a->kv, kv, 2);
    timing_fill(b->timing, a->d_o, q, 3);
    return b->ops->attn_work_create(&a->work, mask->bands, mask->n, a->shape, NULL, b->stream);
}

Status bench_attention_times(Bench *b, const Mask *mask, int H, int K, int D, AttentionTimes *out) {
    Attention a = {.b = b, .shape = {mask->S, mask->S, H, K, D, 1 / sqrtf((float)D)}};
    *out = (AttentionTimes){(double)mask_area(mask), true, bench_time_unknown, bench_time_unknown};
    Status st;
    CHECK_GOTO(open_attention(&a, mask, &out->fits), done);
    if (!out->fits) goto done;
    CHECK_GOTO(timing_set_model(b->timing, mask->S, H * D), done);
    CHECK_GOTO(timing_run(b->timing, forward, &a, 1, &out->fwd), done);
    CHECK_GOTO(timing_run(b->timing, backward, &a, 2, &out->bwd), done);
done:
    if (a.work != NULL) b->ops->attn_work_free(a.work);
    arena_free(&a.arena);
    return st;
}

/* ---- the command --------------------------------------------------------------------------- */

enum { DETERMINISTIC = CASE_SETTINGS, STATE };

static Status measure_row(Bench *b, const Table *t, const BenchCase *c, bool deterministic) {
    Mask mask;
    AttentionTimes times;
    CHECK(bench_case_mask(&mask, c));
    Ops ops = *b->ops;
    ops.deterministic = deterministic;
    b->stream->ops = &ops;
    Status st = bench_attention_times(b, &mask, c->H, c->K, c->D, &times);
    b->stream->ops = b->ops;
    mask_free(&mask);
    CHECK(st);
    double fwd = 4e-9 * times.area * c->H * c->D, bwd = 2.5 * fwd; /* GFLOP; per ms: TFLOP/s */
    double percent = 100 / (b->gemm_rate / 1e12);
    const TableCell row[] = {CELL_NUMBER(c->D),
                             CELL_TEXT(c->heads),
                             CELL_TEXT(c->mask_name),
                             CELL_TEXT(c->tokens),
                             CELL_TEXT(deterministic ? "true" : "false"),
                             CELL_NUMBER(times.area),
                             CELL_NUMBER(times.fwd.ms),
                             CELL_NUMBER(fwd / times.fwd.ms),
                             CELL_NUMBER(percent * fwd / times.fwd.ms),
                             CELL_NUMBER(100 * times.fwd.spread),
                             CELL_NUMBER(times.fwd.mhz),
                             CELL_NUMBER(times.fwd.watts),
                             CELL_NUMBER(times.bwd.ms),
                             CELL_NUMBER(bwd / times.bwd.ms),
                             CELL_NUMBER(percent * bwd / times.bwd.ms),
                             CELL_NUMBER(100 * times.bwd.spread),
                             CELL_NUMBER(times.bwd.mhz),
                             CELL_NUMBER(times.bwd.watts)};
    table_row(t, row);
    return OK;
}

static Status measure_all(Bench *b, const Setting *s, const BenchCase *cases, int n) {
    static const TableColumn columns[] = {{"D", "D", 3, TABLE_COUNT},
                                          {"heads", "heads", 5, TABLE_TEXT},
                                          {"mask", "mask", 8, TABLE_TEXT},
                                          {"tokens", "tokens", 7, TABLE_TEXT},
                                          {"deterministic", "determ.", 7, TABLE_TEXT},
                                          {"area", "pairs", 11, TABLE_COUNT},
                                          {"fwd_ms", "fwd ms", 9, TABLE_RATE},
                                          {"fwd_tflops", "TFLOP/s", 8, TABLE_RATE},
                                          {"fwd_of_gemm", "% GEMM", 6, TABLE_RATE},
                                          {"fwd_spread", "+-%", 5, TABLE_RATE},
                                          {"fwd_mhz", "MHz", 5, TABLE_COUNT},
                                          {"fwd_watts", "W", 4, TABLE_COUNT},
                                          {"bwd_ms", "bwd ms", 9, TABLE_RATE},
                                          {"bwd_tflops", "TFLOP/s", 8, TABLE_RATE},
                                          {"bwd_of_gemm", "% GEMM", 6, TABLE_RATE},
                                          {"bwd_spread", "+-%", 5, TABLE_RATE},
                                          {"bwd_mhz", "MHz", 5, TABLE_COUNT},
                                          {"bwd_watts", "W", 4, TABLE_COUNT}};
    Table t = bench_table(b, columns, sizeof columns / sizeof *columns);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < s[DETERMINISTIC].n; d++)
            CHECK(measure_row(b, &t, &cases[i], s[DETERMINISTIC].values[d].a == 1));
    return bench_compared(b);
}

static void list_settings(Setting *s) {
    static const char *const no_yes[] = {"false", "true", NULL};
    s[DETERMINISTIC] =
        SETTING("deterministic", NAME, "false", "true", "As run.deterministic.", no_yes);
    s[STATE] = bench_state_setting();
    bench_case_settings(s, "2k,4k,8k,4x2k,32k,128k", "256,2x128,512",
                        "causal,full,document,window");
}

static Status run(BenchArguments *a, Setting *s) {
    Bench b = {0};
    BenchCase *cases = NULL;
    Status st;
    CHECK_GOTO(bench_open(&b, "attention", a, &s[STATE]), done);
    CHECK_GOTO(bench_check_cases(b.ops, s), done);
    bench_settings_fill(s, !b.ops->host_memory);
    int n = bench_cases(&cases, s, !b.ops->host_memory);
    st = measure_all(&b, s, cases, n);
done:
    free(cases);
    bench_close(&b);
    return st;
}

const Benchmark bench_attention = {.name = "attention", .list_settings = list_settings, .run = run};
