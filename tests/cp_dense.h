/* cp_dense.h: a context-parallel runtime on either backend against dense attention: in fp64, or, of
 * streams too long for that, on one rank by the CPU's op (which test_op_attention holds against
 * fp64). */
#ifndef CRIA_TESTS_CP_DENSE_H
#define CRIA_TESTS_CP_DENSE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cp/cp.h"
#include "check.h"
#include "mask_cases.h"

enum { DENSE_MAX_S = 144 };

/* The backend and the ranks under test. */
typedef struct {
    const Ops *ops;
    Comm *comm;
    Stream *stream;
    int D;
    bool fused;       /* only magi with automatic overlap_degree */
    double tolerance; /* |found - expected| <= tolerance * max(1, |expected|) */
    double worst;     /* the greatest such ratio found; output */
    int64_t runs;     /* output */
} Side;

typedef struct {
    const char *name;
    int32_t S;
    Mask mask;
    int H, K, D;
    float *q, *kv, *d_o;        /* [S,H,D], [S,2,K,D], [S,H,D] of the whole stream */
    double *o, *lse, *dq, *dkv; /* what dense attention gives; lse [S,H] */
    const Mask *between;        /* NULL, or runs once between the two passes */
} Problem;

/* Rounded to what bf16 holds, so that every backend starts from the same numbers. */
static inline float *draw_normal(int64_t n, uint64_t which, uint64_t seed) {
    float *x = NEW(float, n);
    for (int64_t i = 0; i < n; i++) {
        double v = rng_normal(seed, rng_stream(RNG_TEST, which), (uint64_t)i);
        int exponent;
        double mantissa = frexp(v, &exponent);
        x[i] = (float)ldexp(nearbyint(mantissa * 256), exponent - 8);
    }
    return x;
}

static inline double dot(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* One query row and head, everything from the definition. */
static inline void dense_row(Problem *p, const bool *allowed, int32_t s, int h) {
    int D = p->D;
    int64_t at = ((int64_t)s * p->H + h) * D;
    int kh = h / (p->H / p->K);
    double score[DENSE_MAX_S], max = -INFINITY, sum = 0, scale = 1 / sqrt(D), delta = 0;
    for (int32_t k = 0; k < p->S; k++) {
        if (!allowed[k]) continue;
        score[k] = scale * dot(p->q + at, p->kv + (((int64_t)k * 2 + 0) * p->K + kh) * D, D);
        max = fmax(max, score[k]);
    }
    for (int32_t k = 0; k < p->S; k++)
        if (allowed[k]) sum += exp(score[k] - max);
    p->lse[s * p->H + h] = max + log(sum);
    if (isinf(max)) return; /* no key: o = 0, lse = -inf, no gradient */
    for (int32_t k = 0; k < p->S; k++) {
        if (!allowed[k]) continue;
        const float *v = p->kv + (((int64_t)k * 2 + 1) * p->K + kh) * D;
        for (int i = 0; i < D; i++) p->o[at + i] += exp(score[k] - max) / sum * (double)v[i];
    }
    for (int i = 0; i < D; i++) delta += p->o[at + i] * (double)p->d_o[at + i];
    for (int32_t k = 0; k < p->S; k++) {
        if (!allowed[k]) continue;
        int64_t k_at = (((int64_t)k * 2 + 0) * p->K + kh) * D, v_at = k_at + (int64_t)p->K * D;
        double prob = exp(score[k] - max) / sum;
        double ds = prob * (dot(p->d_o + at, p->kv + v_at, D) - delta) * scale;
        for (int i = 0; i < D; i++) {
            p->dq[at + i] += ds * (double)p->kv[k_at + i];
            p->dkv[k_at + i] += ds * (double)p->q[at + i];
            p->dkv[v_at + i] += prob * (double)p->d_o[at + i];
        }
    }
}

static inline void dense_rows(Problem *p) {
    for (int32_t s = 0; s < p->S; s++) {
        bool allowed[DENSE_MAX_S] = {false};
        for (int64_t b = 0; b < p->mask.n; b++) {
            Band x = p->mask.bands[b];
            for (int32_t k = x.k_begin; k < x.k_end; k++)
                if (s >= x.q_begin && s < x.q_end && k >= s + x.lo && k <= s + x.hi)
                    allowed[k] = true;
        }
        for (int h = 0; h < p->H; h++) dense_row(p, allowed, s, h);
    }
}

static inline void widen_to(double *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = (double)from[i];
}

static inline void rows_by_op(Problem *p) {
    const Ops *ops = cpu_ops();
    int64_t S = p->S, nq = S * p->H * p->D, nkv = S * 2 * p->K * p->D;
    float *o = NEW(float, nq), *dq = NEW(float, nq), *dkv = NEW(float, nkv);
    float *lse = NEW(float, S * p->H), *delta = NEW(float, S * p->H);
    AttnShape shape = {S, S, p->H, p->K, p->D, 1 / sqrtf((float)p->D)};
    AttnWork *work;
    EXPECT_OK(ops->attn_work_create(&work, p->mask.bands, p->mask.n, shape, NULL, NULL));
    ops->attention_fwd(&(AttnFwd){.o = o, .lse = lse, .q = p->q, .kv = p->kv, .work = work}, NULL);
    ops->attention_delta(delta, p->d_o, o, S, p->H, p->D, NULL);
    ops->attention_bwd(&(AttnBwd){.dq = dq,
                                  .dkv = dkv,
                                  .d_o = p->d_o,
                                  .q = p->q,
                                  .kv = p->kv,
                                  .lse = lse,
                                  .delta = delta,
                                  .work = work},
                       NULL);
    ops->attn_work_free(work);
    widen_to(p->o, o, nq), widen_to(p->dq, dq, nq), widen_to(p->dkv, dkv, nkv);
    for (int64_t s = 0; s < S; s++)
        for (int h = 0; h < p->H; h++) p->lse[s * p->H + h] = (double)lse[h * S + s];
    free(o), free(dq), free(dkv), free(lse), free(delta);
}

static inline void problem_open(Problem *p, const char *name, int32_t S, const Band *bands,
                                int64_t n, int K, int group, int D, uint64_t seed) {
    *p = (Problem){.name = name, .S = S, .H = K * group, .K = K, .D = D};
    EXPECT_OK(mask_bands(&p->mask, S, bands, n));
    int64_t nq = (int64_t)S * p->H * D, nkv = (int64_t)S * 2 * K * D;
    p->q = draw_normal(nq, 1, seed), p->kv = draw_normal(nkv, 2, seed);
    p->d_o = draw_normal(nq, 3, seed);
    p->o = NEW(double, nq), p->dq = NEW(double, nq), p->dkv = NEW(double, nkv);
    p->lse = NEW(double, (int64_t)S * p->H);
    if (S <= DENSE_MAX_S)
        dense_rows(p);
    else
        rows_by_op(p);
}

static inline void problem_close(Problem *p) {
    mask_free(&p->mask);
    free(p->q), free(p->kv), free(p->d_o);
    free(p->o), free(p->lse), free(p->dq), free(p->dkv);
}

/* This rank's rows of a tensor of the stream, as activations in device memory. Padding rows hold
 * numbers too: nobody may read them. */
static inline void upload_rows(const Side *side, void *device, const float *global,
                               const int64_t *token, int64_t rows, int64_t S, int64_t width) {
    int act = side->ops->act_bytes; /* bf16 is the upper half of fp32, little-endian */
    char *local = NEW(char, rows *width *act);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            float x = token[r] < S ? global[token[r] * width + i] : 8192;
            memcpy(local + (r * width + i) * act, (char *)&x + 4 - act, (size_t)act);
        }
    side->ops->mem_copy(device, local, rows * width * act, side->stream);
    EXPECT_OK(side->ops->stream_sync(side->stream));
    free(local);
}

static inline float *download(const Side *side, const void *device, int64_t n, int bytes_each) {
    char *raw = NEW(char, n *bytes_each);
    float *x = NEW(float, n);
    side->ops->mem_copy(raw, device, n * bytes_each, side->stream);
    EXPECT_OK(side->ops->stream_sync(side->stream));
    for (int64_t i = 0; i < n; i++)
        memcpy((char *)&x[i] + 4 - bytes_each, raw + i * bytes_each, (size_t)bytes_each);
    free(raw);
    return x;
}

static inline void compare(Side *side, const Problem *p, const CpOptions *o, const char *what,
                           const float *found, const double *expected, const int64_t *token,
                           int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            double x = (double)found[r * width + i];
            double y = token[r] < p->S ? expected[token[r] * width + i] : 0;
            double error = fabs(x - y) / fmax(1, fabs(y));
            EXPECT(error <= side->tolerance, /* and not NaN */
                   "%s, S %d, backend %d degree %d, H %d K %d D %d: %s of token %lld [%lld] is "
                   "%.9g, dense attention gives %.9g",
                   p->name, p->S, (int)o->backend, o->overlap_degree, p->H, p->K, p->D, what,
                   (long long)token[r], (long long)i, x, y);
            side->worst = fmax(side->worst, error);
        }
}

/* Forward and backward of one runtime, compared, and a second time to the bit, now with a prefetch.
 */
static inline void dense_run(Side *side, const Problem *p, CpBackend backend, int degree,
                             RingAccum accum) {
    CpOptions o = {.backend = backend,
                   .ring_accum = accum,
                   .rank = side->comm->rank,
                   .size = side->comm->size,
                   .overlap_degree = degree,
                   .tokens = p->S,
                   .seq_len = p->S,
                   .mask.kind = MASK_CAUSAL,
                   .H = p->H,
                   .K = p->K,
                   .D = p->D};
    MicroBatch mb = {.B = 1, .T = p->S};
    int32_t *zeros = NEW(int32_t, p->S);
    mb.tokens = mb.labels = mb.positions = zeros;
    mb.weights = (float *)zeros;
    CpBatch *batch = cp_batch_from_mask(&o, &p->mask, &mb);
    CpBatch *between = p->between ? cp_batch_from_mask(&o, p->between, &mb) : NULL;
    int64_t S = batch->S, q_width = p->H * p->D, kv_width = 2 * p->K * p->D;
    int64_t *token = NEW(int64_t, S);
    for (int32_t r = 0; r < S; r++)
        token[r] = dispatch_token_of(&batch->plan.dispatch, side->comm->rank, r);

    const Ops *ops = side->ops;
    int act = ops->act_bytes;
    Arena arena = {0};
    CpRuntime *rt;
    void *q, *kv, *out, *d_o;
    float *lse, *dq, *dkv;
    EXPECT_OK(cp_create(&rt, &o, ops, side->comm, &arena));
    arena_reserve(&arena, "test", "q", S * q_width * act, &q);
    arena_reserve(&arena, "test", "kv", S * kv_width * act, &kv);
    arena_reserve(&arena, "test", "o", S * q_width * act, &out);
    arena_reserve(&arena, "test", "lse", S * p->H * 4, (void **)&lse);
    arena_reserve(&arena, "test", "do", S * q_width * act, &d_o);
    arena_reserve(&arena, "test", "dq", S * q_width * 4, (void **)&dq);
    arena_reserve(&arena, "test", "dkv", S * kv_width * 4, (void **)&dkv);
    EXPECT_OK(arena_commit(&arena, ops));
    char *nan = NEW(char, arena.bytes);
    memset(nan, 0xff, (size_t)arena.bytes); /* everywhere: nothing may stay unwritten */
    ops->mem_copy(arena.base, nan, arena.bytes, side->stream);
    free(nan);
    upload_rows(side, q, p->q, token, S, p->S, q_width);
    upload_rows(side, kv, p->kv, token, S, p->S, kv_width);
    upload_rows(side, d_o, p->d_o, token, S, p->S, q_width);

    AttnFwd fwd = {.o = out, .lse = lse, .q = q, .kv = kv};
    AttnBwd bwd = {.dq = dq, .dkv = dkv, .d_o = d_o, .q = q, .kv = kv, .lse = lse};
    float *first_dq = NULL, *first_dkv = NULL, *found_dq = NULL, *found_dkv = NULL;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1 && between != NULL) {
            EXPECT_OK(cp_begin(rt, between, side->stream));
            EXPECT_OK(cp_forward(rt, &fwd, side->stream));
            EXPECT_OK(cp_backward(rt, &bwd, out, side->stream));
        }
        EXPECT_OK(cp_begin(rt, batch, side->stream));
        EXPECT_OK(cp_forward(rt, &fwd, side->stream));
        if (pass == 1) EXPECT_OK(cp_prefetch(rt, kv, side->stream));
        EXPECT_OK(cp_backward(rt, &bwd, out, side->stream));
        found_dq = download(side, dq, S * q_width, 4);
        found_dkv = download(side, dkv, S * kv_width, 4);
        if (pass == 0) first_dq = found_dq, first_dkv = found_dkv;
    }
    EXPECT(memcmp(first_dq, found_dq, (size_t)(S * q_width) * 4) == 0 &&
               memcmp(first_dkv, found_dkv, (size_t)(S * kv_width) * 4) == 0,
           "%s: a second run gave other bits", p->name);

    float *found_o = download(side, out, S * q_width, act);
    float *found_lse = download(side, lse, S * p->H, 4);
    compare(side, p, &o, "o", found_o, p->o, token, S, q_width);
    compare(side, p, &o, "dq", found_dq, p->dq, token, S, q_width);
    compare(side, p, &o, "dkv", found_dkv, p->dkv, token, S, kv_width);
    for (int64_t r = 0; r < S && !cp_backend_is(backend, BACKEND_SPLITS_HEADS); r++)
        for (int h = 0; h < p->H; h++) {
            double x = (double)found_lse[h * S + r];
            double y = token[r] < p->S ? p->lse[token[r] * p->H + h] : -INFINITY;
            EXPECT(x == y || fabs(x - y) <= side->tolerance * fmax(1, fabs(y)),
                   "%s, backend %d degree %d: lse of token %lld is %g, expected %g", p->name,
                   (int)backend, degree, (long long)token[r], x, y);
        }
    side->runs++;
    cp_free(rt);
    arena_free(&arena);
    cp_batch_free(batch);
    cp_batch_free(between);
    free(token), free(zeros);
    free(first_dq), free(first_dkv), free(found_dq), free(found_dkv), free(found_o),
        free(found_lse);
}

/* Every runtime under one mask. */
static inline void dense_run_all(Side *side, const char *name, int32_t S, const Band *bands,
                                 int64_t n, uint64_t seed) {
    static const int groups[] = {1, 3, 4}, degrees[] = {0, 1, 2, 4, -1};
    int group = groups[seed % 3];
    Problem p;
    problem_open(&p, name, S, bands, n, 1 + (int)(seed % 2), group, side->D, seed);
    for (CpBackend b = 0; b < CP_BACKENDS; b++) {
        bool staged = cp_backend_is(b, BACKEND_NEEDED_ROWS);
        if (cp_backend_is(b, BACKEND_ONE_RANK | BACKEND_SPLITS_HEADS) || (side->fused && !staged))
            continue;
        for (int i = staged && !side->fused ? 0 : 4; i < 5; i++)
            dense_run(side, &p, b, degrees[i], ACCUM_FP32);
    }
    if (!side->fused) dense_run(side, &p, BACKEND_RING, 0, ACCUM_BF16);
    problem_close(&p);
    if (side->fused) return;
    problem_open(&p, name, S, bands, n, side->comm->size, group, side->D, seed);
    for (CpBackend b = 0; b < CP_BACKENDS; b++)
        if (cp_backend_is(b, BACKEND_SPLITS_HEADS)) dense_run(side, &p, b, -1, ACCUM_FP32);
    problem_close(&p);
}

/* MagiAttention's mask cases, scaled down, and `lists` random band lists. */
static inline void dense_run_cases(Side *side, uint64_t lists) {
    Band bands[CASE_SLICES_MAX];
    for (int i = 0; i < N_MASK_CASES; i++) {
        const MaskCase *c = &mask_cases[i];
        int32_t scale = (int32_t)ceil_div(c->S, DENSE_MAX_S);
        for (; c->S > DENSE_MAX_S && scale % 2 != 0 && scale % 5 != 0; scale++) {
        } /* most cases divide */
        int64_t n = mask_case_bands(c, scale, bands), kept = 0;
        for (int64_t j = 0; j < n; j++) { /* rounding may have emptied a slice or made two meet */
            bool fits = !band_is_empty(bands[j]);
            for (int64_t k = 0; k < kept && fits; k++)
                fits = band_is_empty(band_intersect(bands[k], bands[j]));
            if (fits) bands[kept++] = bands[j];
        }
        dense_run_all(side, c->name, (int32_t)(c->S / scale), bands, kept, (uint64_t)i);
    }
    dense_run_all(side, "T7 full in 128 pieces", 128, bands, mask_case_pieces(128, bands), 1);
    for (uint64_t seed = 0; seed < lists; seed++) {
        Draw d = {seed, 0};
        /* From fewer tokens than ranks to a few tiles of the kernels, mostly not divisible. */
        int32_t S = 1 + draw_below(&d, seed % 8 == 0 ? 100 : 48);
        int64_t n = draw_bands(&d, S, 1 + draw_below(&d, 10), bands);
        dense_run_all(side, "random bands", S, bands, n, seed);
    }
}

/* Shards of 512 rows and 8 MiB of keys and values: what magi's one call cuts into pieces on up to
 * four ranks. Between the passes a window, under which so little moves that it does not. */
static inline void dense_run_large(Side *side) {
    int32_t S = 512 * side->comm->size;
    int D = side->D < 32 ? 64 : side->D, K = (8 << 20) / (512 * 2 * D * side->ops->act_bytes);
    Band causal = {0, S, 0, S, BAND_NO_LO, 0};
    Problem p;
    Mask window;
    EXPECT_OK(mask_causal(&window, S, S, 10));
    problem_open(&p, "large shards", S, &causal, 1, K, 1, D, 1);
    p.between = &window;
    dense_run(side, &p, BACKEND_MAGI, -1, ACCUM_FP32);
    problem_close(&p);
    mask_free(&window);
}

/* Shards that are longer than all padding of fused magi, for the buffer that holds either that
 * padding or, in degree 0 (also when it is chosen automatically), local keys. */
static inline void dense_run_long(Side *side) {
    int32_t S = (ATTN_REMOTE_RANGES * ATTN_PAD_ROWS + 250) * side->comm->size;
    Band full = {0, S, 0, S, BAND_NO_LO, BAND_NO_HI};
    Problem p;
    problem_open(&p, "long shards", S, &full, 1, 1, 1, side->D, 1);
    for (int degree = -1; degree <= 1; degree++)
        dense_run(side, &p, BACKEND_MAGI, degree, ACCUM_FP32);
    problem_close(&p);
}

#endif
