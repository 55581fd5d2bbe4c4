/* gemm.c: `cria bench gemm`: the products of a layer and of the head, forward and backward, and
 * the same in FP8 with what it costs to bring an input there. */
#include <string.h>

#include "ops/arena.h"
#include "bench/bench.h"
#include "bench/table.h"
#include "model/params.h"

typedef enum { FWD, DGRAD, WGRAD, FWD_FP8, DGRAD_FP8, WGRAD_FP8, CAST_FP8, PASSES } Pass;
static const char *const pass_names[] = {"fwd",       "dgrad",     "wgrad",    "fwd_fp8",
                                         "dgrad_fp8", "wgrad_fp8", "cast_fp8", NULL};

/* y[S,N] = x[S,M] w[N,M]^T and its gradients */
typedef struct {
    Bench *b;
    Pass pass;
    Linear z;
    Arena arena;
    void *x, *w, *y;
    float *dw;
    /* in FP8: x, w, and y as a gradient */
    Fp8Matrix x8, w8, y8;
    float *absmax;
} Product;

static bool in_fp8(const Product *p) {
    return p->pass >= FWD_FP8;
}

static void cast(const Product *p, const Fp8Matrix *to, const void *from, int64_t R, int64_t C) {
    const Ops *ops = p->b->ops;
    Fp8Cast a = {.type = to->type,
                 .rows = to->rows,
                 .columns = to->columns,
                 .scale = to->scale,
                 .x = from,
                 .absmax = p->absmax,
                 .R = R,
                 .C = C};
    ops->mem_zero(p->absmax, sizeof(float), p->b->stream);
    ops->absmax(p->absmax, from, R * C, p->b->stream);
    ops->fp8_cast(&a, p->b->stream);
}

static Status run(void *ctx) {
    Product *p = ctx;
    const Ops *ops = p->b->ops;
    if (p->pass == FWD) linear_fwd(ops, p->z, p->y, p->x, p->w, NULL, p->b->stream);
    if (p->pass == DGRAD) linear_dgrad(ops, p->z, p->x, p->y, p->w, p->b->stream);
    if (p->pass == WGRAD) linear_wgrad(ops, p->z, p->dw, p->y, p->x, p->b->stream);
    if (p->pass == FWD_FP8) linear_fwd_fp8(ops, p->z, p->y, &p->x8, &p->w8, NULL, p->b->stream);
    if (p->pass == DGRAD_FP8) linear_dgrad_fp8(ops, p->z, p->x, &p->y8, &p->w8, p->b->stream);
    if (p->pass == WGRAD_FP8) linear_wgrad_fp8(ops, p->z, p->dw, &p->y8, &p->x8, p->b->stream);
    if (p->pass == CAST_FP8) cast(p, &p->x8, p->x, p->z.S, p->z.M);
    return OK;
}

static double flops(const Product *p) {
    return p->pass == CAST_FP8 ? 0 : 2 * (double)p->z.S * (double)p->z.N * (double)p->z.M;
}

/* Every operand once; the weight gradient is read and written in fp32. A cast reads x twice, for
 * its absolute maximum and to round it, and writes it by rows and by columns. */
static double bytes(const Product *p) {
    double act = p->b->ops->act_bytes, in = in_fp8(p) ? 1 : act;
    double x = (double)p->z.S * (double)p->z.M, y = (double)p->z.S * (double)p->z.N;
    double w = (double)p->z.N * (double)p->z.M;
    switch (p->pass) {
    case FWD:
    case FWD_FP8:
        return in * (x + w) + act * y;
    case DGRAD:
    case DGRAD_FP8:
        return in * (y + w) + act * x;
    case WGRAD:
    case WGRAD_FP8:
        return in * (x + y) + 8 * w;
    default:
        return (2 * act + 2) * x;
    }
}

static void reserve_fp8(Product *p) {
    const struct {
        Fp8Matrix *m;
        Dtype type;
        int64_t R, C;
    } all[] = {{&p->x8, DT_F8_E4M3, p->z.S, p->z.M},
               {&p->w8, DT_F8_E4M3, p->z.N, p->z.M},
               {&p->y8, DT_F8_E5M2, p->z.S, p->z.N}};
    Arena *a = &p->arena;
    for (int i = 0; i < 3; i++) {
        all[i].m->type = all[i].type;
        arena_reserve(a, "product", "FP8 rows", all[i].R * all[i].C, &all[i].m->rows);
        arena_reserve(a, "product", "FP8 columns", round_up(all[i].R, FP8_UNIT) * all[i].C,
                      &all[i].m->columns);
        arena_reserve(a, "product", "scale", sizeof(float), (void **)&all[i].m->scale);
    }
    arena_reserve(a, "product", "absmax", sizeof(float), (void **)&p->absmax);
}

static Status open_product(Product *p) {
    int64_t act = p->b->ops->act_bytes, S = p->z.S, N = p->z.N, M = p->z.M;
    arena_reserve(&p->arena, "product", "x", S * M * act, &p->x);
    arena_reserve(&p->arena, "product", "w", N * M * act, &p->w);
    arena_reserve(&p->arena, "product", "y", S * N * act, &p->y);
    bool wgrad = p->pass == WGRAD || p->pass == WGRAD_FP8;
    if (wgrad) arena_reserve(&p->arena, "product", "dw", N * M * 4, (void **)&p->dw);
    if (in_fp8(p)) reserve_fp8(p);
    CHECK(arena_commit(&p->arena, p->b->ops));
    timing_fill(p->b->timing, p->x, S * M, 1);
    timing_fill(p->b->timing, p->w, N * M, 2);
    timing_fill(p->b->timing, p->y, S * N, 3);
    if (wgrad) p->b->ops->mem_zero(p->dw, N * M * 4, p->b->stream);
    if (!in_fp8(p)) return OK;
    cast(p, &p->x8, p->x, S, M);
    cast(p, &p->w8, p->w, N, M);
    cast(p, &p->y8, p->y, S, N);
    return OK;
}

static Status measure(Product *p, BenchTime *time) {
    Status st = open_product(p);
    if (st == OK) st = timing_run(p->b->timing, run, p, 0, time);
    arena_free(&p->arena);
    return st;
}

/* ---- shapes -------------------------------------------------------------------------------- */

enum { MAX_SHAPES = 8 };
typedef struct {
    const char *name;
    Linear z; /* its S is not used */
} Shape;

static const char *const shape_names[] = {"qkv", "o", "gate-up", "down", "head", NULL};

static int model_shapes(const ModelConfig *m, Shape *out) {
    ModelLinears z = model_linears(m, 0);
    const Shape shapes[] = {
        {"qkv", z.qkv}, {"o", z.o}, {"gate-up", z.gate_up}, {"down", z.down}, {"head", z.head}};
    memcpy(out, shapes, sizeof shapes);
    return sizeof shapes / sizeof *shapes;
}

/* Without a configuration: Llama-3.2 1B's, and those of the example 1B, whose feed-forward part is
 * narrower; on the CPU a small model's. */
static int default_shapes(bool gpu, Shape *out) {
    const ModelConfig large = {
        .heads = 32, .kv_heads = 8, .head_dim = 64, .hidden = 2048, .ffn = 8192, .vocab = 128256};
    const ModelConfig small = {
        .heads = 4, .kv_heads = 2, .head_dim = 64, .hidden = 256, .ffn = 768, .vocab = 4096};
    int n = model_shapes(gpu ? &large : &small, out);
    if (!gpu) return n;
    out[n++] = (Shape){"gate-up", {0, 10880, 2048}};
    out[n++] = (Shape){"down", {0, 2048, 5440}};
    return n;
}

/* ---- the command --------------------------------------------------------------------------- */

enum { SHAPE, PASS, TOKENS, STATE };

static bool wanted(const Setting *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->names[s->values[i].a], name) == 0) return true;
    return false;
}

static Status measure_row(Bench *b, const Table *t, const Shape *shape, Pass pass, int64_t S) {
    Product p = {.b = b, .pass = pass, .z = {S, shape->z.N, shape->z.M}};
    BenchTime time;
    CHECK(measure(&p, &time));
    double rate = 1e3 * flops(&p) / time.ms;
    const TableCell row[] = {CELL_TEXT(shape->name),
                             CELL_TEXT(pass_names[pass]),
                             CELL_NUMBER(S),
                             CELL_NUMBER(shape->z.N),
                             CELL_NUMBER(shape->z.M),
                             CELL_NUMBER(time.ms),
                             CELL_NUMBER(rate / 1e12),
                             CELL_NUMBER(1e3 * bytes(&p) / time.ms / 1e9),
                             CELL_NUMBER(100 * rate / b->gemm_rate),
                             CELL_NUMBER(100 * time.spread),
                             CELL_NUMBER(time.mhz),
                             CELL_NUMBER(time.watts)};
    table_row(t, row);
    return OK;
}

static Status measure_all(Bench *b, const Setting *s, const Shape *shapes, int n) {
    static const TableColumn columns[] = {
        {"shape", "shape", 8, TABLE_TEXT},    {"pass", "pass", 5, TABLE_TEXT},
        {"T", "T", 7, TABLE_COUNT},           {"N", "N", 7, TABLE_COUNT},
        {"M", "M", 6, TABLE_COUNT},           {"ms", "ms", 9, TABLE_RATE},
        {"tflops", "TFLOP/s", 8, TABLE_RATE}, {"gbytes_s", "GB/s", 7, TABLE_RATE},
        {"of_peak", "% peak", 7, TABLE_RATE}, {"spread", "+-%", 5, TABLE_RATE},
        {"mhz", "MHz", 5, TABLE_COUNT},       {"watts", "W", 4, TABLE_COUNT}};
    Table t = bench_table(b, columns, sizeof columns / sizeof *columns);
    for (int k = 0; k < s[TOKENS].n; k++)
        for (int i = 0; i < n; i++)
            for (Pass pass = FWD; pass < PASSES; pass++)
                if (wanted(&s[SHAPE], shapes[i].name) && wanted(&s[PASS], pass_names[pass]))
                    CHECK(measure_row(b, &t, &shapes[i], pass, s[TOKENS].values[k].a));
    return bench_compared(b);
}

static void list_settings(Setting *s) {
    s[SHAPE] = SETTING("shape", NAME, "qkv,o,gate-up,down,head", "qkv,o,gate-up,down,head",
                       "Products.", shape_names);
    s[PASS] = SETTING("pass", NAME, "fwd,dgrad,wgrad", "fwd,dgrad,wgrad",
                      "Of y = x w^T, dx = dy w and dw += dy^T x; *_fp8: in FP8, and the cast of x.",
                      pass_names);
    s[TOKENS] =
        SETTING("T", COUNT, "8192", "256", "Tokens; with CONFIG those of a micro-batch.", NULL);
    s[STATE] = bench_state_setting();
}

static Status measure_shapes(BenchArguments *a, Setting *s) {
    Shape shapes[MAX_SHAPES];
    int n = 0;
    Config config = {0};
    Bench b = {0};
    Status st = OK;
    if (a->config != NULL) {
        CHECK_GOTO(config_load(&config, a->config, a->n_overrides, a->overrides), done);
        a->device = config.device;
        n = model_shapes(&config.model, shapes);
        if (!s[TOKENS].given) {
            s[TOKENS].values[s[TOKENS].n++].a = config.batch.micro * config.model.seq_len;
            s[TOKENS].given = true;
        }
    }
    CHECK_GOTO(bench_open(&b, "gemm", a, &s[STATE]), done);
    bench_settings_fill(s, !b.ops->host_memory);
    if (a->config == NULL) n = default_shapes(!b.ops->host_memory, shapes);
    st = measure_all(&b, s, shapes, n);
done:
    bench_close(&b);
    config_free(&config);
    return st;
}

const Benchmark bench_gemm = {
    .name = "gemm", .takes_config = true, .list_settings = list_settings, .run = measure_shapes};
