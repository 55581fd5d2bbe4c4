/* gpu_ops_rig.h: one op of the CUDA table on tensors that lie in one image of memory, against the
 * CPU table on the same numbers. */
#ifndef CRIA_TESTS_GPU_OPS_RIG_H
#define CRIA_TESTS_GPU_OPS_RIG_H

#include "base/median.h"
#include "gpu.h"

typedef enum { ACT, F32, I32, F64 } Kind;

enum { MAX_TENSORS = 8, MAX_SIZES = 8, GUARD = 256, TIMED_CALLS = 15 };

typedef struct {
    Ops table;      /* a copy, deterministic unless a test says otherwise */
    const Ops *ops; /* it */
    Stream *stream;
    const char *filter; /* run the cases whose name contains it */
    int shift;          /* elements by which every tensor is off a 256-byte boundary */
    bool timed;         /* cases are timed, not compared */
    double copy_rate;   /* bytes per second that a copy reads and writes, if timed */
    int passed, failed;
    char *memory; /* on the GPU */
    int64_t capacity;
} OpsRig;

typedef struct {
    const char *name;
    Kind kind;
    int64_t n;
    bool out;
    double rel, abs;
    void *cpu;      /* in the CPU's type: initial values, then the CPU's result */
    int64_t offset; /* of its bytes in the image of the GPU's memory */
} Tensor;

typedef void Call(const Ops *o, void *const *p, const int64_t *z, Stream *s);
#define CALL(name) static void name(const Ops *o, void *const *p, const int64_t *z, Stream *s)

typedef struct {
    OpsRig *rig;
    char name[96];
    Tensor t[MAX_TENSORS];
    int n;
    int64_t z[MAX_SIZES]; /* sizes and flags, for the call */
    int64_t bytes;        /* that it must read and write at least; 0: it is not timed */
} Case;

/* half of the last place of a bf16 at worst, and what fp32 sums may differ by */
#define ROUNDED 0x1p-8 * 1.01, 2e-5
#define EXACT   0, 0

/* The caller sets the filter before. */
static inline void rig_open(OpsRig *r) {
    gpu_open(&r->ops);
    r->table = *r->ops;
    r->table.deterministic = true;
    r->ops = &r->table;
    EXPECT_OK(r->ops->stream_create(r->ops, &r->stream));
}

static inline void rig_close(OpsRig *r) {
    EXPECT_OK(r->ops->stream_sync(r->stream));
    r->ops->mem_free(r->memory);
    r->ops->stream_free(r->stream);
}

/* ---- building a case ------------------------------------------------------------------------ */

__attribute__((format(printf, 3, 4))) static inline void case_begin(Case *c, OpsRig *rig,
                                                                    const char *fmt, ...) {
    *c = (Case){.rig = rig};
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(c->name, sizeof c->name, fmt, ap);
    va_end(ap);
    snprintf(c->name + len, sizeof c->name - (size_t)len, "%s", rig->shift ? " unaligned" : "");
}

static inline int width_on_gpu(Kind kind) {
    return kind == ACT ? 2 : kind == F64 ? 8 : 4;
}
static inline int width_on_cpu(Kind kind) {
    return kind == F64 ? 8 : 4;
}

static inline void *add_tensor(Case *c, const char *name, Kind kind, int64_t n) {
    REQUIRE(c->n < MAX_TENSORS);
    void *values = NEW(char, i64_max(n, 1) * width_on_cpu(kind));
    c->t[c->n++] = (Tensor){.name = name, .kind = kind, .n = n, .cpu = values};
    return values;
}

/* Random normal values; those of activations are exact in bf16. */
static inline float *add_input(Case *c, const char *name, Kind kind, int64_t n, double scale) {
    float *x = add_tensor(c, name, kind, n);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)scale * random_normal((uint64_t)c->n, i);
        if (kind == ACT) x[i] = from_bf16(to_bf16(x[i]));
    }
    return x;
}

static inline int32_t *add_ints(Case *c, const char *name, int64_t n, int64_t below) {
    int32_t *x = add_tensor(c, name, I32, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)(rng_u64(9, (uint64_t)c->n, (uint64_t)i) % (uint64_t)below);
    return x;
}

/* The tensor added last is written as well as read. */
static inline void is_output(Case *c, double rel, double abs) {
    Tensor *t = &c->t[c->n - 1];
    t->out = true;
    t->rel = rel;
    t->abs = abs;
}

/* Written only: NaN before. */
static inline void add_output(Case *c, const char *name, Kind kind, int64_t n, double rel,
                              double abs) {
    float *x = add_tensor(c, name, kind, n);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    is_output(c, rel, abs);
}

/* ---- running it ----------------------------------------------------------------------------- */

static inline int64_t lay_out(Case *c) {
    int64_t at = GUARD;
    for (int i = 0; i < c->n; i++) {
        Tensor *t = &c->t[i];
        t->offset = at + c->rig->shift * width_on_gpu(t->kind);
        at = round_up(t->offset + t->n * width_on_gpu(t->kind), GUARD) + GUARD;
    }
    return at;
}

static inline unsigned char *make_image(const Case *c, int64_t bytes) {
    unsigned char *image = NEW(unsigned char, bytes);
    memset(image, 0xA5, (size_t)bytes);
    for (int i = 0; i < c->n; i++) {
        const Tensor *t = &c->t[i];
        unsigned char *to = image + t->offset;
        if (t->kind != ACT) memcpy(to, t->cpu, (size_t)(t->n * width_on_cpu(t->kind)));
        for (int64_t k = 0; t->kind == ACT && k < t->n; k++) {
            uint16_t bits = to_bf16(((float *)t->cpu)[k]);
            memcpy(to + 2 * k, &bits, 2);
        }
    }
    return image;
}

static inline double value(const Tensor *t, const void *data, int64_t i) {
    double d;
    float f;
    int32_t word;
    uint16_t half;
    const char *at = (const char *)data + i * width_on_gpu(t->kind);
    switch (t->kind) {
    case F64:
        memcpy(&d, at, 8);
        return d;
    case F32:
        memcpy(&f, at, 4);
        return (double)f;
    case I32:
        memcpy(&word, at, 4);
        return word;
    case ACT:
        memcpy(&half, at, 2);
        return (double)from_bf16(half);
    }
    return NAN;
}

static inline double wanted(const Tensor *t, int64_t i) {
    if (t->kind == F64) return ((const double *)t->cpu)[i];
    if (t->kind == I32) return ((const int32_t *)t->cpu)[i];
    float x = ((const float *)t->cpu)[i];
    return (double)(t->kind == ACT && t->rel == 0 ? from_bf16(to_bf16(x)) : x);
}

/* The largest error as a share of what is tolerated; *where its place. Above 1: too large. */
static inline double compare(const Tensor *t, const unsigned char *image, int64_t *where) {
    double squares = 0, worst = 0;
    for (int64_t i = 0; i < t->n; i++) squares += wanted(t, i) * wanted(t, i);
    double rms = sqrt(squares / (double)i64_max(t->n, 1));
    for (int64_t i = 0; i < t->n; i++) {
        double want = wanted(t, i), error = fabs(value(t, image + t->offset, i) - want);
        double share = error / (t->rel * fabs(want) + t->abs * rms);
        if (error == 0) share = 0; /* where nothing is tolerated */
        if (!(share <= worst)) {
            worst = isnan(share) ? INFINITY : share;
            *where = i;
        }
    }
    return worst;
}

/* The first byte that differs and that no output holds, -1 when there is none. */
static inline int64_t strayed(const Case *c, const unsigned char *before,
                              const unsigned char *after, int64_t bytes) {
    for (int64_t b = 0; b < bytes; b++) {
        if (before[b] == after[b]) continue;
        bool mine = false;
        for (int i = 0; i < c->n; i++) {
            const Tensor *t = &c->t[i];
            mine |= t->out && b >= t->offset && b < t->offset + t->n * width_on_gpu(t->kind);
        }
        if (!mine) return b;
    }
    return -1;
}

/* Puts the tensors into the memory of the GPU, at p. */
static inline void upload(const Case *c, const unsigned char *image, int64_t bytes, void **p) {
    OpsRig *r = c->rig;
    if (bytes > r->capacity) {
        r->ops->mem_free(r->memory);
        r->capacity = 2 * bytes;
        EXPECT_OK(r->ops->mem_alloc((void **)&r->memory, r->capacity, "tensors of the test"));
    }
    for (int i = 0; i < c->n; i++) p[i] = r->memory + c->t[i].offset;
    r->ops->mem_copy(r->memory, image, bytes, r->stream);
}

static inline void run_on_gpu(const Case *c, Call *call, const unsigned char *before,
                              unsigned char *after, int64_t bytes) {
    OpsRig *r = c->rig;
    void *p[MAX_TENSORS];
    upload(c, before, bytes, p);
    call(r->ops, p, c->z, r->stream);
    r->ops->mem_copy(after, r->memory, bytes, r->stream);
    EXPECT_OK(r->ops->stream_sync(r->stream));
}

/* Microseconds of a call that follows others of its kind: the median. */
static inline double call_us(OpsRig *r, Call *call, void *const *p, const int64_t *z) {
    Event *begin[TIMED_CALLS], *end[TIMED_CALLS];
    double us[TIMED_CALLS];
    for (int i = 0; i < TIMED_CALLS; i++) {
        EXPECT_OK(r->ops->event_create(&begin[i]));
        EXPECT_OK(r->ops->event_create(&end[i]));
    }
    for (int i = 0; i < 3; i++)
        call(r->ops, p, z, r->stream); /* until clocks and caches are warm */
    for (int i = 0; i < TIMED_CALLS; i++) {
        r->ops->event_record(begin[i], r->stream);
        call(r->ops, p, z, r->stream);
        r->ops->event_record(end[i], r->stream);
    }
    EXPECT_OK(r->ops->stream_sync(r->stream));
    for (int i = 0; i < TIMED_CALLS; i++) {
        us[i] = 1e3 * r->ops->event_ms(begin[i], end[i]);
        r->ops->event_free(begin[i]);
        r->ops->event_free(end[i]);
    }
    return median(us, TIMED_CALLS);
}

static inline void case_time(Case *c, Call *call) {
    OpsRig *r = c->rig;
    void *p[MAX_TENSORS];
    int64_t bytes = lay_out(c);
    unsigned char *image = make_image(c, bytes);
    upload(c, image, bytes, p);
    double us = call_us(r, call, p, c->z), rate = 1e6 * (double)c->bytes / us;
    printf("%-58s %8.1f us %6.0f GB/s %4.0f %% of a copy\n", c->name, us, rate / 1e9,
           100 * rate / r->copy_rate);
    free(image);
}

static inline void case_run(Case *c, Call *call) {
    bool chosen = strstr(c->name, c->rig->filter) != NULL;
    if (chosen && c->rig->timed && c->bytes > 0) case_time(c, call);
    if (chosen && !c->rig->timed) {
        int64_t bytes = lay_out(c);
        unsigned char *before = make_image(c, bytes), *after = NEW(unsigned char, bytes);
        unsigned char *again = NEW(unsigned char, bytes);
        printf("%-58s ", c->name); /* on the screen already if the next line never comes back */
        fflush(stdout);
        run_on_gpu(c, call, before, after, bytes);
        run_on_gpu(c, call, before, again, bytes);
        void *p[MAX_TENSORS];
        for (int i = 0; i < c->n; i++) p[i] = c->t[i].cpu;
        call(cpu_ops(), p, c->z, NULL);

        int64_t stray = strayed(c, before, after, bytes), at = 0;
        bool same = memcmp(after, again, (size_t)bytes) == 0;
        double worst = 0;
        const Tensor *worst_in = NULL;
        for (int i = 0; i < c->n; i++) {
            int64_t where = 0;
            double share = c->t[i].out ? compare(&c->t[i], after, &where) : 0;
            if (share > worst) worst = share, worst_in = &c->t[i], at = where;
        }
        bool good = worst <= 1 && same && stray < 0;
        printf("%s", good ? "ok  " : "FAIL");
        if (worst_in != NULL) printf("  %.2f of tolerance in %s", worst, worst_in->name);
        if (worst > 1)
            printf("[%lld]: %.9g, CPU %.9g", (long long)at,
                   value(worst_in, after + worst_in->offset, at), wanted(worst_in, at));
        if (!same) printf("  two runs differ");
        if (stray >= 0) printf("  byte %lld of the image was written", (long long)stray);
        printf("\n");
        *(good ? &c->rig->passed : &c->rig->failed) += 1;
        free(before);
        free(after);
        free(again);
    }
    for (int i = 0; i < c->n; i++) free(c->t[i].cpu);
}

static inline void copy_bytes(const Ops *o, void *const *p, const int64_t *z, Stream *s) {
    o->mem_copy(p[0], p[1], z[0], s);
}

/* From here on cases are timed, against a copy that does not fit into a cache. */
static inline void time_copies(OpsRig *rig) {
    const int64_t bytes = 512 << 20;
    void *p[2];
    EXPECT_OK(rig->ops->mem_alloc(&p[0], bytes, "copies"));
    EXPECT_OK(rig->ops->mem_alloc(&p[1], bytes, "copies"));
    rig->timed = true;
    rig->copy_rate = 2e6 * (double)bytes / call_us(rig, copy_bytes, p, &bytes);
    printf("times; a copy reads and writes %.0f GB/s\n", rig->copy_rate / 1e9);
    rig->ops->mem_free(p[0]);
    rig->ops->mem_free(p[1]);
}

#endif
