/* ranks: 1 2 3 4 5 7 8 -- timeout: 600
 * Every runtime against dense attention in fp64: MagiAttention's mask cases (scaled down) and random
 * band lists, forward and backward. `mpi_cp N` draws N lists (default 300). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cp/cp.h"
#include "mask_cases.h"

#define EXPECT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "rank %d: ", comm_world_rank());                                       \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, " %s\n", status_message());                                            \
            comm_abort(1);                                                                         \
        }                                                                                          \
    } while (0)
#define EXPECT_OK(call) EXPECT((call) == OK, "%s", #call)

enum { D = 4, MAX_S = 144 };

typedef struct {
    const char *name;
    int32_t S;
    Mask mask;
    int H, K;
    float *q, *kv, *d_o;                /* [S,H,D], [S,2,K,D], [S,H,D] of the whole stream */
    double *o, *lse, *dq, *dkv;         /* what dense attention gives; lse [S,H] */
} Problem;

static float *draw(int64_t n, uint64_t which, uint64_t seed) {
    float *x = NEW(float, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(seed, rng_stream(RNG_TEST, which), (uint64_t)i);
    return x;
}

static double dot(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < D; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* One query row and head, everything from the definition. */
static void dense_row(Problem *p, const bool *allowed, int32_t s, int h) {
    int64_t at = ((int64_t)s * p->H + h) * D;
    int kh = h / (p->H / p->K);
    double score[MAX_S], max = -INFINITY, sum = 0, scale = 1 / sqrt(D), delta = 0;
    for (int32_t k = 0; k < p->S; k++) {
        if (!allowed[k]) continue;
        score[k] = scale * dot(p->q + at, p->kv + (((int64_t)k * 2 + 0) * p->K + kh) * D);
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
        double ds = prob * (dot(p->d_o + at, p->kv + v_at) - delta) * scale;
        for (int i = 0; i < D; i++) {
            p->dq[at + i] += ds * (double)p->kv[k_at + i];
            p->dkv[k_at + i] += ds * (double)p->q[at + i];
            p->dkv[v_at + i] += prob * (double)p->d_o[at + i];
        }
    }
}

static void problem_open(Problem *p, const char *name, int32_t S, const Band *bands, int64_t n,
                         int K, int group, uint64_t seed) {
    REQUIRE(S <= MAX_S);
    *p = (Problem){.name = name, .S = S, .H = K * group, .K = K};
    EXPECT_OK(mask_bands(&p->mask, S, bands, n));
    int64_t nq = (int64_t)S * p->H * D, nkv = (int64_t)S * 2 * K * D;
    p->q = draw(nq, 1, seed), p->kv = draw(nkv, 2, seed), p->d_o = draw(nq, 3, seed);
    p->o = NEW(double, nq), p->dq = NEW(double, nq), p->dkv = NEW(double, nkv);
    p->lse = NEW(double, (int64_t)S * p->H);
    for (int32_t s = 0; s < S; s++) {
        bool allowed[MAX_S] = {false};
        for (int64_t b = 0; b < p->mask.n; b++) {
            Band x = p->mask.bands[b];
            for (int32_t k = x.k_begin; k < x.k_end; k++)
                if (s >= x.q_begin && s < x.q_end && k >= s + x.lo && k <= s + x.hi)
                    allowed[k] = true;
        }
        for (int h = 0; h < p->H; h++) dense_row(p, allowed, s, h);
    }
}

static void problem_close(Problem *p) {
    mask_free(&p->mask);
    free(p->q), free(p->kv), free(p->d_o);
    free(p->o), free(p->lse), free(p->dq), free(p->dkv);
}

static void dispatch_rows(float *local, const float *global, const int64_t *token, int64_t rows,
                          int64_t S, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) /* padding rows hold numbers too: nobody may read them */
            local[r * width + i] = token[r] < S ? global[token[r] * width + i] : 1e4f;
}

static void compare(const Problem *p, const CpOptions *o, const char *what, const float *found,
                    const double *expected, const int64_t *token, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            double x = (double)found[r * width + i];
            double y = token[r] < p->S ? expected[token[r] * width + i] : 0;
            EXPECT(fabs(x - y) <= 1e-5 * fmax(1, fabs(y)),
                   "%s, S %d, backend %d degree %d, H %d K %d: %s of token %lld [%lld] is %.9g, "
                   "dense attention gives %.9g", p->name, p->S, (int)o->backend, o->overlap_degree,
                   p->H, p->K, what, (long long)token[r], (long long)i, x, y);
        }
}

static void run(const Problem *p, CpBackend backend, int degree, Comm *comm) {
    CpOptions o = {.backend = backend, .rank = comm->rank, .size = comm->size,
                   .overlap_degree = degree, .tokens = p->S, .seq_len = p->S, .mask = MASK_CAUSAL,
                   .H = p->H, .K = p->K, .D = D};
    MicroBatch mb = {.B = 1, .T = p->S};
    int32_t *zeros = NEW(int32_t, p->S);
    mb.tokens = mb.labels = mb.positions = zeros;
    mb.weights = (float *)zeros;
    CpBatch *batch = cp_batch_from_mask(&o, &p->mask, &mb);
    int64_t S = batch->S, nq = S * p->H * D, nkv = S * 2 * p->K * D;
    int64_t *token = NEW(int64_t, S);
    dispatch_tokens(&batch->plan.dispatch, comm->rank, token);

    const Ops *ops = cpu_ops();
    Arena arena = {0};
    CpRuntime *rt;
    float *q, *kv, *out, *lse, *d_o, *dq, *dkv;
    EXPECT_OK(cp_create(&rt, &o, ops, comm, &arena));
    arena_reserve(&arena, "test", "q", nq * 4, (void **)&q);
    arena_reserve(&arena, "test", "kv", nkv * 4, (void **)&kv);
    arena_reserve(&arena, "test", "o", nq * 4, (void **)&out);
    arena_reserve(&arena, "test", "lse", S * p->H * 4, (void **)&lse);
    arena_reserve(&arena, "test", "do", nq * 4, (void **)&d_o);
    arena_reserve(&arena, "test", "dq", nq * 4, (void **)&dq);
    arena_reserve(&arena, "test", "dkv", nkv * 4, (void **)&dkv);
    EXPECT_OK(arena_commit(&arena, ops));
    memset(arena.base, 0xff, (size_t)arena.bytes); /* NaN everywhere: nothing may stay unwritten */
    dispatch_rows(q, p->q, token, S, p->S, p->H * D);
    dispatch_rows(kv, p->kv, token, S, p->S, 2 * p->K * D);
    dispatch_rows(d_o, p->d_o, token, S, p->S, p->H * D);

    float *first = NEW(float, nq + nkv);
    for (int pass = 0; pass < 2; pass++) { /* a second time, to the bit, now with a prefetch */
        EXPECT_OK(cp_begin(rt, batch, NULL));
        EXPECT_OK(cp_forward(rt, out, lse, q, kv, NULL));
        if (pass == 1) EXPECT_OK(cp_prefetch(rt, kv, NULL));
        EXPECT_OK(cp_backward(rt, dq, dkv, d_o, out, lse, q, kv, NULL));
        if (pass == 0) {
            memcpy(first, dq, (size_t)nq * 4);
            memcpy(first + nq, dkv, (size_t)nkv * 4);
        }
    }
    EXPECT(memcmp(first, dq, (size_t)nq * 4) == 0 && memcmp(first + nq, dkv, (size_t)nkv * 4) == 0,
           "%s: a second run gave other bits", p->name);

    compare(p, &o, "o", out, p->o, token, S, p->H * D);
    compare(p, &o, "dq", dq, p->dq, token, S, p->H * D);
    compare(p, &o, "dkv", dkv, p->dkv, token, S, 2 * p->K * D);
    for (int64_t r = 0; r < S && backend != BACKEND_ULYSSES; r++)
        for (int h = 0; h < p->H; h++) {
            double x = (double)lse[h * S + r];
            double y = token[r] < p->S ? p->lse[token[r] * p->H + h] : -INFINITY;
            EXPECT(x == y || fabs(x - y) <= 1e-5 * fmax(1, fabs(y)),
                   "%s, backend %d degree %d: lse of token %lld is %g, expected %g", p->name,
                   (int)backend, degree, (long long)token[r], x, y);
        }
    cp_free(rt);
    arena_free(&arena);
    cp_batch_free(batch);
    free(token), free(zeros), free(first);
}

static int runs = 0;

static void run_all(const char *name, int32_t S, const Band *bands, int64_t n, uint64_t seed,
                    Comm *comm) {
    static const int groups[] = {1, 3, 4}, degrees[] = {0, 1, 2, 4, -1};
    int group = groups[seed % 3];
    Problem p;
    problem_open(&p, name, S, bands, n, 1 + (int)(seed % 2), group, seed);
    run(&p, BACKEND_RING, 0, comm);
    run(&p, BACKEND_ALLGATHER, 0, comm);
    for (int i = 0; i < 5; i++) run(&p, BACKEND_MAGI, degrees[i], comm);
    problem_close(&p);
    problem_open(&p, name, S, bands, n, comm->size, group, seed);
    run(&p, BACKEND_ULYSSES, 0, comm);
    problem_close(&p);
    runs += 8;
}

int main(int argc, char **argv) {
    EXPECT_OK(comm_start(&argc, &argv));
    Comm *comm;
    EXPECT_OK(comm_mpi_create(&comm));
    uint64_t lists = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
    Band bands[CASE_SLICES_MAX];
    for (int i = 0; i < N_MASK_CASES; i++) {
        const MaskCase *c = &mask_cases[i];
        int32_t scale = (int32_t)ceil_div(c->S, MAX_S);
        for (; c->S > MAX_S && scale % 2 != 0 && scale % 5 != 0; scale++) {} /* most cases divide */
        int64_t n = mask_case_bands(c, scale, bands), kept = 0;
        for (int64_t j = 0; j < n; j++) { /* rounding may have emptied a slice or made two meet */
            bool fits = !band_is_empty(bands[j]);
            for (int64_t k = 0; k < kept && fits; k++)
                fits = band_is_empty(band_intersect(bands[k], bands[j]));
            if (fits) bands[kept++] = bands[j];
        }
        run_all(c->name, (int32_t)(c->S / scale), bands, kept, (uint64_t)i, comm);
    }
    run_all("T7 full in 128 pieces", 128, bands, mask_case_pieces(128, bands), 1, comm);
    for (uint64_t seed = 0; seed < lists; seed++) {
        Draw d = {seed, 0};
        /* From fewer tokens than ranks to a few tiles of the kernels, mostly not divisible. */
        int32_t S = 1 + draw_below(&d, seed % 8 == 0 ? 100 : 48);
        int64_t n = draw_bands(&d, S, 1 + draw_below(&d, 10), bands);
        run_all("random bands", S, bands, n, seed, comm);
    }
    if (comm->rank == 0) printf("%d runs on %d ranks agree with dense attention\n", runs, comm->size);
    comm_free(comm);
    comm_finish();
    return 0;
}
