/* gpu_ops.c: every op of the CUDA table against the CPU table on the same inputs (rounded to bf16
 * where they are activations), attention aside (gpu_attention.cu). Each case runs twice on the GPU:
 *   the results must agree with the CPU's, element by element, |got - want| <= rel |want| + abs rms
 *     (rel 0, abs 0: the same value, the CPU's rounded to bf16 for activations);
 *   both runs must leave the same bits;
 *   no byte outside the outputs may change: inputs, and the space between the tensors.
 * `gpu_ops [WORD]` runs the cases whose name contains WORD. */
#include "gpu.h"

typedef enum { ACT, F32, I32, F64 } Kind;

enum { MAX_TENSORS = 8, MAX_SIZES = 8, GUARD = 256 };

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

typedef struct {
    char name[96];
    Tensor t[MAX_TENSORS];
    int n;
    int64_t z[MAX_SIZES]; /* sizes and flags, for the call */
    int shift;            /* elements by which every tensor is off a 256-byte boundary */
} Case;

/* half of the last place of a bf16 at worst, and what fp32 sums may differ by */
#define ROUNDED 0x1p-8 * 1.01, 2e-5
#define EXACT   0, 0

static const Ops *gpu;
static Stream *stream;
static const char *filter = "";
static int passed, failed;

/* ---- building a case ------------------------------------------------------------------------ */

static void case_begin(Case *c, int shift, const char *fmt, ...) {
    *c = (Case){.shift = shift};
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(c->name, sizeof c->name, fmt, ap);
    va_end(ap);
    snprintf(c->name + len, sizeof c->name - (size_t)len, "%s", shift ? " unaligned" : "");
}

static int width_on_gpu(Kind kind) {
    return kind == ACT ? 2 : kind == F64 ? 8 : 4;
}
static int width_on_cpu(Kind kind) {
    return kind == F64 ? 8 : 4;
}

static void *add(Case *c, const char *name, Kind kind, int64_t n) {
    REQUIRE(c->n < MAX_TENSORS);
    void *values = NEW(char, i64_max(n, 1) * width_on_cpu(kind));
    c->t[c->n++] = (Tensor){.name = name, .kind = kind, .n = n, .cpu = values};
    return values;
}

/* Random normal values; those of activations are exact in bf16. */
static float *add_input(Case *c, const char *name, Kind kind, int64_t n, double scale) {
    float *x = add(c, name, kind, n);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)scale * random_normal((uint64_t)c->n, i);
        if (kind == ACT) x[i] = from_bf16(to_bf16(x[i]));
    }
    return x;
}

static int32_t *add_ints(Case *c, const char *name, int64_t n, int64_t below) {
    int32_t *x = add(c, name, I32, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)(rng_u64(9, (uint64_t)c->n, (uint64_t)i) % (uint64_t)below);
    return x;
}

/* The tensor added last is written as well as read. */
static void is_output(Case *c, double rel, double abs) {
    Tensor *t = &c->t[c->n - 1];
    t->out = true;
    t->rel = rel;
    t->abs = abs;
}

/* Written only: NaN before. */
static void add_output(Case *c, const char *name, Kind kind, int64_t n, double rel, double abs) {
    float *x = add(c, name, kind, n);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    is_output(c, rel, abs);
}

/* ---- running it ----------------------------------------------------------------------------- */

static int64_t lay_out(Case *c) {
    int64_t at = GUARD;
    for (int i = 0; i < c->n; i++) {
        Tensor *t = &c->t[i];
        t->offset = at + c->shift * width_on_gpu(t->kind);
        at = round_up(t->offset + t->n * width_on_gpu(t->kind), GUARD) + GUARD;
    }
    return at;
}

static unsigned char *make_image(const Case *c, int64_t bytes) {
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

static double value(const Tensor *t, const void *data, int64_t i) {
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

static double wanted(const Tensor *t, int64_t i) {
    if (t->kind == F64) return ((const double *)t->cpu)[i];
    if (t->kind == I32) return ((const int32_t *)t->cpu)[i];
    float x = ((const float *)t->cpu)[i];
    return (double)(t->kind == ACT && t->rel == 0 ? from_bf16(to_bf16(x)) : x);
}

/* The largest error as a share of what is tolerated; *where its place. Above 1: too large. */
static double compare(const Tensor *t, const unsigned char *image, int64_t *where) {
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
static int64_t strayed(const Case *c, const unsigned char *before, const unsigned char *after,
                       int64_t bytes) {
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

static void run_on_gpu(const Case *c, Call *call, const unsigned char *before, unsigned char *after,
                       int64_t bytes) {
    static char *memory;
    static int64_t capacity;
    if (bytes > capacity) {
        gpu->mem_free(memory);
        MUST(gpu->mem_alloc((void **)&memory, capacity = 2 * bytes, "tensors of the test"));
    }
    void *p[MAX_TENSORS];
    for (int i = 0; i < c->n; i++) p[i] = memory + c->t[i].offset;
    gpu->mem_copy(memory, before, bytes, stream);
    call(gpu, p, c->z, stream);
    gpu->mem_copy(after, memory, bytes, stream);
    MUST(gpu->stream_sync(stream));
}

static void case_run(Case *c, Call *call) {
    if (strstr(c->name, filter) != NULL) {
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
        *(good ? &passed : &failed) += 1;
        free(before);
        free(after);
        free(again);
    }
    for (int i = 0; i < c->n; i++) free(c->t[i].cpu);
}

/* ---- the ops -------------------------------------------------------------------------------- */

#define CALL(name) static void name(const Ops *o, void *const *p, const int64_t *z, Stream *s)

CALL(embedding_fwd) {
    o->embedding_fwd(p[0], p[1], p[2], z[0], (int)z[1], s);
}
CALL(embedding_bwd) {
    o->embedding_bwd(p[0], p[1], p[2], z[0], (int)z[1], (int)z[2], s);
}

static void test_embedding(int64_t S, int C, int V, int shift) {
    Case c;
    case_begin(&c, shift, "embedding_fwd S=%lld C=%d V=%d", (long long)S, C, V);
    add_output(&c, "x", ACT, S * C, EXACT);
    add_ints(&c, "tokens", S, V);
    add_input(&c, "table", ACT, (int64_t)V * C, 1);
    c.z[0] = S, c.z[1] = C;
    case_run(&c, embedding_fwd);
    case_begin(&c, shift, "embedding_bwd S=%lld C=%d V=%d", (long long)S, C, V);
    add_input(&c, "dtable", F32, (int64_t)V * C, 1), is_output(&c, EXACT); /* the same order */
    add_input(&c, "dx", ACT, S * C, 1);
    add_ints(&c, "tokens", S, V);
    c.z[0] = S, c.z[1] = C, c.z[2] = V;
    case_run(&c, embedding_bwd);
}

CALL(rmsnorm_fwd) {
    o->rmsnorm_fwd(p[0], p[1], p[2], p[3], z[0], (int)z[1], 1e-5f, s);
}
CALL(rmsnorm_bwd) {
    const void *dres[] = {NULL, p[7], p[0]};
    o->rmsnorm_bwd(p[0], p[1], z[3] ? p[2] : NULL, p[3], p[4], p[5], p[6], dres[z[2]], z[0],
                   (int)z[1], s);
}

static void test_rmsnorm(int64_t S, int C, int shift) {
    Case c;
    case_begin(&c, shift, "rmsnorm_fwd S=%lld C=%d", (long long)S, C);
    add_output(&c, "y", ACT, S * C, ROUNDED);
    add_output(&c, "rstd", F32, S, 1e-6, 0);
    add_input(&c, "x", ACT, S * C, 2);
    add_input(&c, "w", ACT, C, 1);
    c.z[0] = S, c.z[1] = C;
    case_run(&c, rmsnorm_fwd);
    static const char *const residual[] = {"", " +dres", " +dres in dx"};
    for (int r = 0; r < 3; r++) {
        bool write_y = r != 0;
        case_begin(&c, shift, "rmsnorm_bwd S=%lld C=%d%s%s", (long long)S, C, residual[r],
                   write_y ? " +y" : "");
        add_input(&c, "dx", ACT, S * C, 1), is_output(&c, ROUNDED);
        add_input(&c, "dw", F32, C, 1), is_output(&c, 1e-5, 1e-5);
        add_input(&c, "y", ACT, S * C, 1), is_output(&c, ROUNDED); /* left alone if not asked for */
        add_input(&c, "dy", ACT, S * C, 1);
        add_input(&c, "x", ACT, S * C, 2);
        add_input(&c, "w", ACT, C, 1);
        float *rstd = add(&c, "rstd", F32, S);
        for (int64_t s = 0; s < S; s++) rstd[s] = 0.3f + (float)s * 0.001f;
        add_input(&c, "dres", ACT, S * C, 1);
        c.z[0] = S, c.z[1] = C, c.z[2] = r, c.z[3] = write_y;
        case_run(&c, rmsnorm_bwd);
    }
}

/* z: S N M variant; residual own or in y */
CALL(linear_fwd) {
    const void *residual[] = {NULL, p[3], p[0]};
    o->linear_fwd(p[0], p[1], p[2], residual[z[3]], z[0], z[1], z[2], s);
}
CALL(linear_dgrad) {
    o->linear_dgrad(p[0], p[1], p[2], z[3] != 0, z[0], z[1], z[2], s);
}
CALL(linear_wgrad) {
    o->linear_wgrad(p[0], p[1], p[2], z[0], z[1], z[2], s);
}

static void set_linear_sizes(Case *c, int64_t S, int64_t N, int64_t M, int variant) {
    c->z[0] = S, c->z[1] = N, c->z[2] = M, c->z[3] = variant;
}

/* Where d is also c, cuBLASLt may round the product to bf16 before it adds: one more rounding, of a
 * number that has no part in how small the sum is. */
static double linear_slack(bool in_place) {
    return in_place ? 5 * 0x1p-8 : 1e-4;
}

static void test_linear(int64_t S, int64_t N, int64_t M, int shift) {
    static const char *const residual[] = {"", " +residual", " +residual in y"};
    long long s = S, n = N, m = M;
    Case c;
    for (int v = 0; v < 3; v++) {
        case_begin(&c, shift, "linear_fwd S=%lld N=%lld M=%lld%s", s, n, m, residual[v]);
        add_input(&c, "y", ACT, S * N, 1), is_output(&c, 0x1p-8 * 1.01, linear_slack(v == 2));
        add_input(&c, "x", ACT, S * M, 1);
        add_input(&c, "w", ACT, N * M, 0.1);
        add_input(&c, "residual", ACT, S * N, 1);
        set_linear_sizes(&c, S, N, M, v);
        case_run(&c, linear_fwd);
    }
    for (int v = 0; v < 2; v++) {
        case_begin(&c, shift, "linear_dgrad S=%lld N=%lld M=%lld%s", s, n, m, v ? " +dx" : "");
        add_input(&c, "dx", ACT, S * M, 1), is_output(&c, 0x1p-8 * 1.01, linear_slack(v == 1));
        add_input(&c, "dy", ACT, S * N, 1);
        add_input(&c, "w", ACT, N * M, 0.1);
        set_linear_sizes(&c, S, N, M, v);
        case_run(&c, linear_dgrad);
    }
    case_begin(&c, shift, "linear_wgrad S=%lld N=%lld M=%lld", s, n, m);
    add_input(&c, "dw", F32, N * M, 3), is_output(&c, 1e-5, 5e-5);
    add_input(&c, "dy", ACT, S * N, 1);
    add_input(&c, "x", ACT, S * M, 1);
    set_linear_sizes(&c, S, N, M, 0);
    case_run(&c, linear_wgrad);
}

CALL(rope_fwd) {
    o->rope_split_fwd(p[0], p[1], p[2], p[3], p[4], z[0], (int)z[1], (int)z[2], (int)z[3], s);
}
CALL(rope_bwd) {
    o->rope_split_bwd(p[0], p[1], p[2], p[3], p[4], z[0], (int)z[1], (int)z[2], (int)z[3], s);
}

static void test_rope(int64_t S, int H, int K, int D, int shift) {
    for (int backward = 0; backward < 2; backward++) {
        Case c;
        Kind kind = backward ? F32 : ACT;
        int64_t q = S * H * D, kv = S * 2 * K * D;
        case_begin(&c, shift, "rope_split_%s S=%lld H=%d K=%d D=%d", backward ? "bwd" : "fwd",
                   (long long)S, H, K, D);
        if (backward) add_output(&c, "dqkv", ACT, q + kv, ROUNDED);
        if (backward)
            add_input(&c, "q", kind, q, 1), add_input(&c, "kv", kind, kv, 1);
        else
            add_output(&c, "q", kind, q, ROUNDED), add_output(&c, "kv", kind, kv, ROUNDED);
        if (!backward) add_input(&c, "qkv", ACT, q + kv, 1);
        int32_t *positions = add_ints(&c, "positions", S, 131072);
        positions[S - 1] = 131071;
        float *inv_freq = add(&c, "inv_freq", F32, D / 2);
        for (int i = 0; i < D / 2; i++) inv_freq[i] = (float)pow(500000, -2.0 * i / D);
        c.z[0] = S, c.z[1] = H, c.z[2] = K, c.z[3] = D;
        case_run(&c, backward ? rope_bwd : rope_fwd);
    }
}

CALL(swiglu_fwd) {
    o->swiglu_fwd(p[0], p[1], z[0], (int)z[1], s);
}
CALL(swiglu_bwd) {
    o->swiglu_bwd(z[2] ? p[3] : p[0], z[2] ? p[1] : NULL, p[2], p[3], z[0], (int)z[1], s);
}

static void test_swiglu(int64_t S, int F, int shift) {
    Case c;
    case_begin(&c, shift, "swiglu_fwd S=%lld F=%d", (long long)S, F);
    add_output(&c, "h", ACT, S * F, ROUNDED);
    add_input(&c, "gate_up", ACT, S * 2 * F, 4);
    c.z[0] = S, c.z[1] = F;
    case_run(&c, swiglu_fwd);
    for (int in_place = 0; in_place < 2; in_place++) {
        case_begin(&c, shift, "swiglu_bwd S=%lld F=%d%s", (long long)S, F,
                   in_place ? " in place +h" : "");
        add_input(&c, "dgate_up", ACT, S * 2 * F, 1), is_output(&c, ROUNDED);
        add_input(&c, "h", ACT, S * F, 1), is_output(&c, ROUNDED);
        add_input(&c, "dh", ACT, S * F, 1);
        add_input(&c, "gate_up", ACT, S * 2 * F, 4);
        if (in_place) is_output(&c, ROUNDED);
        c.z[0] = S, c.z[1] = F, c.z[2] = in_place;
        case_run(&c, swiglu_bwd);
    }
}

CALL(cross_entropy) {
    o->cross_entropy(p[0], p[1], p[2], p[3], z[3] != 0, z[0], (int)z[1], (int)z[2], s);
}

static void test_cross_entropy(int64_t S, int V, int Vp, double scale, int shift) {
    for (int grad = 0; grad < 2; grad++) {
        Case c;
        case_begin(&c, shift, "cross_entropy%s S=%lld V=%d Vp=%d scale %g", grad ? " grad" : "",
                   (long long)S, V, Vp, scale);
        add_output(&c, "loss", F32, S, 1e-5, 1e-5);
        float *x = add_input(&c, "logits", ACT, S * Vp, scale);
        if (grad) is_output(&c, 0x1p-8 * 1.01, 1e-6);
        int32_t *labels = add_ints(&c, "labels", S, V);
        float *weights = add(&c, "weights", F32, S);
        for (int64_t s = 0; s < S; s++) {
            for (int i = V; i < Vp; i++) x[s * Vp + i] = 1000; /* padding has no part in it */
            weights[s] = s % 3 == 1 ? 0.0f : 0.5f + (float)(s % 3);
            labels[s] = s == 0 ? V - 1 : s == 2 ? 0 : labels[s];
            if (weights[s] == 0) labels[s] = -1;
            if (weights[s] == 0) x[s * Vp] = INFINITY; /* an unused row may hold anything */
        }
        c.z[0] = S, c.z[1] = V, c.z[2] = Vp, c.z[3] = grad;
        case_run(&c, cross_entropy);
    }
}

CALL(adamw) {
    const AdamwStep step = {.lr = 3e-3f,
                            .beta1 = 0.9f,
                            .beta2 = 0.95f,
                            .eps = 1e-8f,
                            .weight_decay = 0.1f,
                            .bias1 = 0.271f,
                            .bias2 = 0.142625f,
                            .grad_scale = 0.37f};
    o->adamw(p[0], p[1], p[2], p[3], p[4], &step, z[0], s);
}
CALL(cast_f32) {
    o->cast_f32(p[0], p[1], z[0], s);
}
CALL(add_f32) {
    o->add_f32(p[0], p[1], z[0], s);
}
CALL(widen) {
    o->widen(p[0], p[1], z[1], z[0], s);
}
CALL(sum_f32) {
    o->sum_f32(p[0], p[1], z[0], s);
}
CALL(sum_squares) {
    o->sum_squares(p[0], p[1], z[0], s);
}

CALL(checksum) {
    o->checksum(p[0], p[1], z[0], s);
}

static void test_flat(int64_t n, int shift) {
    Case c;
    case_begin(&c, shift, "adamw n=%lld", (long long)n);
    add_input(&c, "master", F32, n, 1), is_output(&c, 1e-6, 1e-6);
    add_input(&c, "m", F32, n, 1), is_output(&c, 1e-6, 1e-6);
    float *v = add_input(&c, "v", F32, n, 1);
    is_output(&c, 1e-6, 1e-6);
    for (int64_t i = 0; i < n; i++) v[i] *= v[i];
    add_output(&c, "param", ACT, n, ROUNDED);
    add_input(&c, "grad", F32, n, 1);
    c.z[0] = n;
    case_run(&c, adamw);
    case_begin(&c, shift, "cast_f32 n=%lld", (long long)n);
    add_output(&c, "dst", ACT, n, EXACT);
    add_input(&c, "src", F32, n, 1);
    c.z[0] = n;
    case_run(&c, cast_f32);
    case_begin(&c, shift, "add_f32 n=%lld", (long long)n);
    add_input(&c, "dst", F32, n, 1), is_output(&c, EXACT);
    add_input(&c, "src", F32, n, 1);
    c.z[0] = n;
    case_run(&c, add_f32);
    for (int adds = 0; adds < 2; adds++) {
        case_begin(&c, shift, "widen n=%lld add=%d", (long long)n, adds);
        add_input(&c, "dst", F32, n, 1), is_output(&c, EXACT);
        add_input(&c, "src", ACT, n, 1);
        c.z[0] = n, c.z[1] = adds;
        case_run(&c, widen);
    }
    for (int squares = 0; squares < 2; squares++) {
        case_begin(&c, shift, "%s n=%lld", squares ? "sum_squares" : "sum_f32", (long long)n);
        *(double *)add(&c, "out", F64, 1) = 0.25;
        is_output(&c, 1e-11, 1e-11);
        add_input(&c, "x", F32, n, 1);
        c.z[0] = n;
        case_run(&c, squares ? sum_squares : sum_f32);
    }
    for (int64_t cut = 0; cut < 8 && cut <= 4 * n; cut += 3) {
        case_begin(&c, shift, "checksum of %lld bytes", (long long)(4 * n - cut));
        *(double *)add(&c, "out", F64, 1) = 0.25; /* 64 bits that are a number */
        is_output(&c, EXACT);
        add_input(&c, "x", F32, n, 1);
        c.z[0] = 4 * n - cut;
        case_run(&c, checksum);
    }
}

CALL(gather_rows) {
    o->gather_rows(p[0], p[1], p[2], z[0], z[1] * 4, s);
}
CALL(scatter_rows) {
    o->scatter_rows(p[0], p[1], p[2], z[0], z[1] * 4, s);
}
CALL(sum_rows) {
    o->sum_rows(p[0], p[1], p[2], p[3], p[4], z[0], z[1], s);
}

/* n of `rows` rows of `width` words */
static void test_rows(int64_t n, int64_t rows, int64_t width, int shift) {
    static const struct {
        const char *name;
        Call *call;
    } ops[] = {{"gather_rows", gather_rows}, {"scatter_rows", scatter_rows}};
    for (int i = 0; i < 2; i++) {
        Case c;
        case_begin(&c, shift, "%s %lld of %lld x %lld", ops[i].name, (long long)n, (long long)rows,
                   (long long)width);
        add_input(&c, "dst", F32, (i == 0 ? n : rows) * width, 1), is_output(&c, EXACT);
        add_input(&c, "src", F32, (i == 0 ? rows : n) * width, 1);
        int32_t *index = add(&c, "index", I32, n);
        for (int64_t k = 0; k < n; k++)
            index[k] = (int32_t)rng_permute((uint64_t)rows, 5, 6, (uint64_t)k);
        c.z[0] = n, c.z[1] = width;
        case_run(&c, ops[i].call);
    }
    Case c;
    case_begin(&c, shift, "sum_rows %lld of %lld x %lld", (long long)n, (long long)rows,
               (long long)width);
    add_input(&c, "dst", F32, n * width, 1), is_output(&c, EXACT);
    add_input(&c, "base", F32, n * width, 1);
    add_input(&c, "src", F32, rows * width, 1);
    int32_t *begin = add(&c, "begin", I32, n + 1), *from = add(&c, "from", I32, 4 * n);
    for (int32_t i = 0; i < n; i++) {
        begin[i + 1] = begin[i] + i % 4;
        for (int32_t j = begin[i]; j < begin[i + 1]; j++)
            from[j] = (int32_t)((7 * i + 11 * j) % rows);
    }
    c.z[0] = n, c.z[1] = width;
    case_run(&c, sum_rows);
}

static void test_all(int shift) {
    static const int64_t sizes[] = {1, 7, 8, 255, 4096, 4099, 1000003};
    for (int i = 0; i < 7; i++) test_flat(sizes[i], shift);
    test_rows(1, 1, 1, shift);
    test_rows(5, 9, 3, shift);
    test_rows(33, 64, 4, shift);
    test_rows(700, 1000, 512, shift);
    test_embedding(1, 1, 1, shift);
    test_embedding(7, 3, 2, shift);
    test_embedding(50, 8, 3, shift);
    test_embedding(1000, 72, 5, shift);
    test_embedding(300, 2048, 1000, shift);
    test_embedding(2048, 16, 128256, shift);
    static const int columns[] = {1, 7, 8, 33, 64, 200, 2048, 3072, 16392};
    for (int i = 0; i < 9; i++) test_rmsnorm(1 + 37 * (i % 8), columns[i], shift);
    test_rope(1, 1, 1, 2, shift);
    test_rope(5, 3, 1, 6, shift);
    test_rope(9, 4, 2, 16, shift);
    test_rope(33, 32, 8, 64, shift);
    test_rope(17, 24, 8, 128, shift);
    test_swiglu(1, 1, shift);
    test_swiglu(5, 7, shift);
    test_swiglu(9, 24, shift);
    test_swiglu(33, 5440, shift);
    test_cross_entropy(1, 2, 2, 1, shift);
    test_cross_entropy(4, 7, 8, 1, shift);
    test_cross_entropy(5, 129, 131, 3, shift);
    test_cross_entropy(7, 1000, 1024, 1, shift);
    test_cross_entropy(5, 50257, 50304, 30, shift);
    test_cross_entropy(4, 128256, 128256, 4, shift);
    test_linear(1, 1, 1, shift);
    test_linear(3, 5, 7, shift);
    test_linear(8, 16, 8, shift);
    test_linear(33, 65, 17, shift);
    test_linear(64, 128, 64, shift);
    test_linear(129, 264, 200, shift);
    test_linear(1, 2048, 256, shift);
    test_linear(300, 1000, 1096, shift);
    test_linear(512, 1024, 2048, shift);
}

int main(int argc, char **argv) {
    if (argc > 1) filter = argv[1];
    MUST(cuda_ops_open(&gpu, 0));
    MUST(gpu->stream_create(&stream));
    printf("device %s\n", gpu->device_name);
    for (int shift = 0; shift < 2; shift++) test_all(shift);
    cuda_gemm_autotune(true); /* timing must leave outputs as they are */
    printf("with the algorithms of matrix products chosen by time:\n");
    test_linear(33, 65, 17, 0);
    test_linear(512, 1024, 2048, 0);
    MUST(gpu->stream_sync(stream));
    gpu->stream_free(stream);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
