/* cp.c: `cria bench cp`: attention of one layer across the ranks of a context-parallel group, every
 * runtime beside the same kernels on one device. A time is that of the slowest rank, calls back to
 * back. Exposed is how long the stream of a rank stands still for transfers, or runs collectives,
 * between events around each wait: the most of any rank; what magi's one call waits for inside is
 * not among it. The backward fetches its first KV itself, which in training happens under the
 * products before it (cp_prefetch). */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/cases.h"
#include "bench/meter.h"
#include "bench/table.h"
#include "bench/timeline.h"
#include "cp/cp.h"
#include "base/file.h"

enum { RUNTIME = CASE_SETTINGS, TRANSPORT, CP, DEGREE, CHUNK, BASELINE, STATE };
enum { METERED_CALLS = 3 };

static const char *const transports[] = {
    [TRANSPORT_AUTO] = "auto", [TRANSPORT_NCCL] = "nccl", NULL};
static const char *const answers[] = {"no", "yes", NULL};

typedef struct {
    Bench b;
    CommSet comm;
    Meter *meter;
    Table table;
    const char *svg; /* NULL: no picture */
    Timeline *timelines;
    int n_timelines;
    Transport transport;
    bool baseline; /* measure one device as well */
    /* of the case */
    const BenchCase *c;
    int case_index;
    Mask mask;
    AttentionTimes one; /* on one device; the slowest rank's */
} CpBench;

/* One runtime under one case. */
typedef struct {
    CpBench *x;
    CpOptions options;
    CpRuntime *rt;
    CpBatch *batch;
    Arena arena;
    void *q, *kv, *o, *d_o;
    float *lse, *dq, *dkv;
} Layer;

/* The slowest rank's; mhz and watts: the lowest and the highest. */
typedef struct {
    BenchTime time;
    double exposed, bytes;
} Direction;

static Status forward(void *ctx) {
    Layer *l = ctx;
    AttnFwd call = {.o = l->o, .lse = l->lse, .q = l->q, .kv = l->kv};
    return cp_forward(l->rt, &call, l->x->b.stream);
}

static Status backward(void *ctx) {
    Layer *l = ctx;
    AttnBwd call = {
        .dq = l->dq, .dkv = l->dkv, .d_o = l->d_o, .q = l->q, .kv = l->kv, .lse = l->lse};
    return cp_backward(l->rt, &call, l->o, l->x->b.stream);
}

static Status greatest(CpBench *x, double *values, int n) {
    return comm_all_reduce(x->comm.host, values, n, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL);
}

/* ---- create and free ---------------------------------------------------------------------- */

static CpOptions options_of(const CpBench *x, CpBackend backend, int64_t degree, int64_t chunk) {
    const BenchCase *c = x->c;
    return (CpOptions){.backend = backend,
                       .rank = x->comm.cp->rank,
                       .size = x->comm.cp->size,
                       .chunk_size = i64_max(0, chunk),
                       .overlap_degree = (int)degree,
                       .tokens = c->B * c->T,
                       .seq_len = c->T,
                       .mask = c->mask,
                       .H = c->H,
                       .K = c->K,
                       .D = c->D};
}

static CpBatch *make_batch(const CpOptions *o, const Mask *mask) {
    int32_t *zeros = NEW(int32_t, o->tokens);
    float *weights = NEW(float, o->tokens);
    MicroBatch mb = {.B = 1,
                     .T = o->tokens,
                     .tokens = zeros,
                     .labels = zeros,
                     .positions = zeros,
                     .weights = weights};
    CpBatch *batch = cp_batch_from_mask(o, mask, &mb);
    free(zeros);
    free(weights);
    return batch;
}

/* ERR_USER: this runtime cannot do these sizes. */
static Status reserve(Layer *l) {
    CpBench *x = l->x;
    int64_t S, act = x->b.ops->act_bytes;
    CHECK(cp_create(&l->rt, &l->options, meter_ops(x->meter), x->comm.cp, &l->arena));
    CHECK(cp_tokens(&l->options, &S));
    int64_t rows = S * l->options.H, q = rows * l->options.D;
    int64_t kv = 2 * S * l->options.K * l->options.D;
    arena_reserve(&l->arena, "bench", "q", q * act, &l->q);
    arena_reserve(&l->arena, "bench", "kv", kv * act, &l->kv);
    arena_reserve(&l->arena, "bench", "o", q * act, &l->o);
    arena_reserve(&l->arena, "bench", "do", q * act, &l->d_o);
    arena_reserve(&l->arena, "bench", "lse", rows * 4, (void **)&l->lse);
    arena_reserve(&l->arena, "bench", "dq", q * 4, (void **)&l->dq);
    arena_reserve(&l->arena, "bench", "dkv", kv * 4, (void **)&l->dkv);
    return OK;
}

static Status start(Layer *l) {
    CpBench *x = l->x;
    l->batch = make_batch(&l->options, &x->mask);
    int64_t q = l->batch->S * l->options.H * l->options.D;
    int64_t kv = 2 * l->batch->S * l->options.K * l->options.D;
    int which = 10 * l->options.rank;
    timing_fill(x->b.timing, l->q, q, which + 1);
    timing_fill(x->b.timing, l->kv, kv, which + 2);
    timing_fill(x->b.timing, l->d_o, q, which + 3);
    CHECK(timing_set_model(x->b.timing, l->batch->S, l->options.H * l->options.D));
    return cp_begin(l->rt, l->batch, x->b.stream);
}

static void close_layer(Layer *l) {
    cp_batch_free(l->batch);
    cp_free(l->rt);
    arena_free(&l->arena);
}

/* ---- measuring ----------------------------------------------------------------------------- */

static double sent(const Comm *c) {
    return (double)(c->bytes_sent[COMM_KIND_KV] + c->bytes_sent[COMM_KIND_DKV]);
}

static Status meter_calls(Layer *l, BenchCall call, int n, double *exposed) {
    CpBench *x = l->x;
    CHECK(timing_align(x->b.timing, x->comm.host, x->comm.cp));
    CHECK(meter_start(x->meter, x->b.stream));
    Status st = OK;
    for (int i = 0; i < n && st == OK; i++) st = call(l);
    CHECK(meter_stop(x->meter));
    *exposed = meter_class_ms(x->meter, METER_EXPOSED) / n;
    return st;
}

static Status over_ranks(CpBench *x, Direction *d) {
    BenchTime *t = &d->time;
    double v[] = {t->ms, t->spread, -t->mhz, t->watts, d->exposed, d->bytes};
    CHECK(greatest(x, v, sizeof v / sizeof *v));
    *d = (Direction){{v[0], v[1], -v[2], v[3]}, v[4], v[5]};
    return OK;
}

static Status measure(Layer *l, BenchCall call, int products, Direction *out) {
    double before = sent(l->x->comm.cp);
    CHECK(call(l));
    out->bytes = sent(l->x->comm.cp) - before;
    CHECK(timing_run(l->x->b.timing, call, l, products, &out->time));
    CHECK(meter_calls(l, call, 1, &out->exposed)); /* makes the events */
    CHECK(meter_calls(l, call, METERED_CALLS, &out->exposed));
    return over_ranks(l->x, out);
}

static Status both(void *ctx) {
    CHECK(forward(ctx));
    return backward(ctx);
}

static Status draw(Layer *l) {
    CpBench *x = l->x;
    double unused;
    CHECK(meter_calls(l, both, 1, &unused));
    CHECK(meter_calls(l, both, 1, &unused));
    x->timelines = mem_grow(x->timelines, x->n_timelines + 1, sizeof *x->timelines);
    char *title =
        mem_printf("%s, %d ranks of %s, %s, %s tokens, D=%d, %s heads",
                   cp_backend_names[l->options.backend], l->options.size, x->b.ops->device_name,
                   x->c->mask_name, x->c->tokens, x->c->D, x->c->heads);
    return timeline_gather(&x->timelines[x->n_timelines++], x->comm.host, l->options.size, x->meter,
                           title, x->case_index);
}

/* ---- rows ---------------------------------------------------------------------------------- */

static const TableColumn columns[] = {{"backend", "backend", 9, TABLE_TEXT},
                                      {"cp", "cp", 3, TABLE_COUNT},
                                      {"D", "D", 3, TABLE_COUNT},
                                      {"heads", "heads", 5, TABLE_TEXT},
                                      {"mask", "mask", 8, TABLE_TEXT},
                                      {"tokens", "tokens", 7, TABLE_TEXT},
                                      {"area", "pairs", 11, TABLE_COUNT},
                                      {"stages", "stages", 6, TABLE_COUNT},
                                      {"imbalance", "imbal.%", 7, TABLE_RATE},
                                      {"fwd_ms", "fwd ms", 7, TABLE_RATE},
                                      {"fwd_spread", "+-%", 5, TABLE_RATE},
                                      {"fwd_tflops_gpu", "TF/s/GPU", 8, TABLE_RATE},
                                      {"fwd_of_one", "% of one", 8, TABLE_RATE},
                                      {"fwd_exposed_ms", "exposed", 7, TABLE_RATE},
                                      {"fwd_mib", "MiB", 7, TABLE_RATE},
                                      {"bwd_ms", "bwd ms", 7, TABLE_RATE},
                                      {"bwd_spread", "+-%", 5, TABLE_RATE},
                                      {"bwd_tflops_gpu", "TF/s/GPU", 8, TABLE_RATE},
                                      {"bwd_of_one", "% of one", 8, TABLE_RATE},
                                      {"bwd_exposed_ms", "exposed", 7, TABLE_RATE},
                                      {"bwd_mib", "MiB", 7, TABLE_RATE},
                                      {"mhz", "MHz", 5, TABLE_COUNT},
                                      {"watts", "W", 4, TABLE_COUNT},
                                      {"note", "", 0, TABLE_TEXT}};

static void print_row(const CpBench *x, const char *backend, int cp, int stages, double imbalance,
                      Direction f, Direction b, const char *note) {
    const BenchCase *c = x->c;
    double fwd = 4e-9 * x->one.area * c->H * c->D / cp, bwd = 2.5 * fwd; /* GFLOP of a rank */
    const TableCell row[] = {CELL_TEXT(backend),
                             CELL_NUMBER(cp),
                             CELL_NUMBER(c->D),
                             CELL_TEXT(c->heads),
                             CELL_TEXT(c->mask_name),
                             CELL_TEXT(c->tokens),
                             CELL_NUMBER(x->one.area),
                             CELL_NUMBER(stages),
                             CELL_NUMBER(100 * imbalance),
                             CELL_NUMBER(f.time.ms),
                             CELL_NUMBER(100 * f.time.spread),
                             CELL_NUMBER(fwd / f.time.ms),
                             CELL_NUMBER(100 * x->one.fwd.ms / cp / f.time.ms),
                             CELL_NUMBER(f.exposed),
                             CELL_NUMBER(f.bytes / 0x1p20),
                             CELL_NUMBER(b.time.ms),
                             CELL_NUMBER(100 * b.time.spread),
                             CELL_NUMBER(bwd / b.time.ms),
                             CELL_NUMBER(100 * x->one.bwd.ms / cp / b.time.ms),
                             CELL_NUMBER(b.exposed),
                             CELL_NUMBER(b.bytes / 0x1p20),
                             CELL_NUMBER(fmin(f.time.mhz, b.time.mhz)),
                             CELL_NUMBER(fmax(f.time.watts, b.time.watts)),
                             CELL_TEXT(note)};
    table_row(&x->table, row);
}

static void print_missing(const CpBench *x, const char *backend, int cp, const char *note) {
    const Direction unknown = {bench_time_unknown, NAN, NAN};
    print_row(x, backend, cp, 0, NAN, unknown, unknown, note);
}

/* Allocates; *fits is false on all ranks when one has no memory. */
static Status commit(Layer *l, bool *fits) {
    Status st = arena_commit(&l->arena, l->x->b.ops);
    double lacking = st != OK;
    status_ignore(st);
    CHECK(greatest(l->x, &lacking, 1));
    *fits = lacking == 0;
    if (!*fits || l->x->transport == TRANSPORT_NCCL) return OK;
    return comm_register_buffer(l->x->comm.cp, l->arena.base, l->arena.bytes);
}

static Status measure_layer(CpBench *x, CpBackend backend, int64_t degree, int64_t chunk) {
    Layer l = {.x = x, .options = options_of(x, backend, degree, chunk)};
    const char *name = cp_backend_names[backend];
    Direction f, b;
    bool fits = true;
    Status st = reserve(&l);
    if (st != OK) { /* on every rank: it depends on sizes alone */
        print_missing(x, name, l.options.size, status_message());
        st = status_ignore(st);
        goto done;
    }
    CHECK_GOTO(commit(&l, &fits), done);
    if (!fits) {
        print_missing(x, name, l.options.size, "does not fit");
        goto done;
    }
    CHECK_GOTO(start(&l), done);
    CHECK_GOTO(measure(&l, forward, 1, &f), done);
    CHECK_GOTO(measure(&l, backward, 2, &b), done);
    print_row(x, name, l.options.size, cp_stages(l.rt), plan_summary(&l.batch->plan).imbalance, f,
              b, "");
    if (x->svg != NULL) CHECK_GOTO(draw(&l), done);
done:
    if (fits && l.arena.base != NULL && st == OK) st = comm_register_buffer(x->comm.cp, NULL, 0);
    close_layer(&l);
    return st;
}

/* The same kernels, every rank all of the mask by itself. */
static Status measure_one(CpBench *x) {
    const BenchCase *c = x->c;
    x->one = (AttentionTimes){(double)mask_area(&x->mask), false, bench_time_unknown,
                              bench_time_unknown};
    if (!x->baseline) return OK;
    timing_set_ranks(x->b.timing, NULL, NULL);
    CHECK(bench_attention_times(&x->b, &x->mask, c->H, c->K, c->D, &x->one));
    timing_set_ranks(x->b.timing, x->comm.host, x->comm.cp);
    double lacking = !x->one.fits;
    CHECK(greatest(x, &lacking, 1));
    x->one.fits = lacking == 0;
    Direction f = {.time = x->one.fwd}, b = {.time = x->one.bwd};
    if (x->one.fits) {
        CHECK(over_ranks(x, &f));
        CHECK(over_ranks(x, &b));
        x->one.fwd = f.time;
        x->one.bwd = b.time;
    }
    if (x->one.fits)
        print_row(x, "none", 1, 1, 0, f, b, "");
    else
        print_missing(x, "none", 1, "does not fit");
    return OK;
}

static Status measure_case(CpBench *x, const Setting *s) {
    CHECK(measure_one(x));
    bool given = s[RUNTIME].n > 0;
    for (int i = 0; i < (given ? s[RUNTIME].n : CP_BACKENDS); i++) {
        CpBackend backend = (CpBackend)(given ? s[RUNTIME].values[i].a : i);
        if (cp_backend_is(backend, BACKEND_ONE_RANK)) continue;   /* that is measure_one() */
        bool tuned = cp_backend_is(backend, BACKEND_NEEDED_ROWS); /* the others: nothing to set */
        for (int d = 0; d < (tuned ? s[DEGREE].n : 1); d++)
            for (int k = 0; k < (tuned ? s[CHUNK].n : 1); k++)
                CHECK(measure_layer(x, backend, s[DEGREE].values[d].a, s[CHUNK].values[k].a));
    }
    return OK;
}

static Status write_picture(const CpBench *x) {
    if (x->comm.host->rank != 0) return OK;
    StrBuf svg = {0};
    timeline_svg(x->timelines, x->n_timelines, &svg);
    Status st = file_write_text(x->svg, &svg, "the picture");
    strbuf_free(&svg);
    return st;
}

static Status measure_all(CpBench *x, const Setting *s) {
    BenchCase *cases;
    Status st = OK;
    int n = bench_cases(&cases, s, !x->b.ops->host_memory);
    x->table = bench_table(&x->b, columns, sizeof columns / sizeof *columns);
    for (int i = 0; i < n && st == OK; i++) {
        x->c = &cases[i];
        x->case_index = i;
        st = bench_case_mask(&x->mask, x->c);
        if (st == OK) st = measure_case(x, s);
        mask_free(&x->mask);
    }
    free(cases);
    if (st == OK) st = bench_compared(&x->b);
    return st == OK && x->svg != NULL ? comm_agree(x->comm.host, write_picture(x)) : st;
}

/* ---- the command --------------------------------------------------------------------------- */

static Status check_world(const Setting *cp) {
    int64_t n = cp->given ? cp->values[0].a : 1;
    if (comm_world_size() % n == 0) return OK;
    return status_fail(ERR_USER, "cp: found %lld, expected one that divides the %d ranks",
                       (long long)n, comm_world_size());
}

/* Before minutes of measuring. What is in the file stays until there is a picture. */
static Status check_picture(const char *path) {
    if (path == NULL || comm_world_rank() != 0) return OK;
    FILE *f = fopen(path, "a");
    if (f == NULL)
        return status_fail(file_create_status(errno), "cannot write the picture %s: %s", path,
                           strerror(errno));
    fclose(f);
    return OK;
}

static Status open_bench(CpBench *x, const BenchArguments *a, const Setting *s) {
    CHECK(check_world(&s[CP]));
    CHECK(check_picture(a->timeline));
    CHECK(bench_open(&x->b, "cp", a, &s[STATE]));
    return bench_check_cases(x->b.ops, s);
}

static Status run(CpBench *x, Setting *s) {
    int cp = s[CP].given ? (int)s[CP].values[0].a : comm_world_size();
    CHECK(comm_open(&x->comm, x->b.ops, cp));
    x->meter = meter_create(x->b.ops);
    x->b.stream->ops = meter_ops(x->meter);
    x->comm.cp = meter_comm(x->meter, x->comm.cp);
    timing_set_ranks(x->b.timing, x->comm.host, x->comm.cp);
    bench_settings_fill(s, !x->b.ops->host_memory);
    return measure_all(x, s);
}

static void close_bench(CpBench *x) {
    for (int i = 0; i < x->n_timelines; i++) timeline_free(&x->timelines[i]);
    free(x->timelines);
    if (x->comm.host != NULL) comm_close(&x->comm);
    meter_free(x->meter);
    bench_close(&x->b);
}

static void list_settings(Setting *s) {
    static const char *const chosen[] = {"auto", NULL};
    s[RUNTIME] =
        SETTING("backend", NAME, NULL, NULL, "As parallel.backend. [all]", cp_backend_names);
    s[TRANSPORT] = SETTING("transport", NAME, "auto", "auto", "As parallel.transport.", transports);
    s[CP] = SETTING("cp", COUNT, NULL, NULL, "Ranks of a group. [all]", NULL);
    s[DEGREE] = SETTING("overlap_degree", COUNT, "auto", "auto", "Of magi.", chosen);
    s[CHUNK] = SETTING("chunk_size", COUNT, "auto", "auto", "Of magi.", chosen);
    s[BASELINE] = SETTING("alone", NAME, "yes", "yes", "Also measure one device.", answers);
    s[STATE] = bench_state_setting();
    s[DEGREE].most = OVERLAP_DEGREE_MAX;
    s[TRANSPORT].single = s[CP].single = s[BASELINE].single = true;
    bench_case_settings(s, "8k,32k,128k", "1k", "causal,document,window");
}

static Status measure_ranks(BenchArguments *a, Setting *s) {
    CpBench x = {0};
    x.svg = a->timeline;
    x.transport = s[TRANSPORT].given ? (Transport)s[TRANSPORT].values[0].a : TRANSPORT_AUTO;
    x.baseline = !s[BASELINE].given || s[BASELINE].values[0].a == 1;
    Status st = bench_agree(open_bench(&x, a, s));
    if (st == OK) st = bench_finish(run(&x, s));
    close_bench(&x);
    return st;
}

const Benchmark bench_cp = {
    .name = "cp", .together = true, .list_settings = list_settings, .run = measure_ranks};
