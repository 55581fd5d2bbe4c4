/* gpu_attention.cu: the attention kernels of cuda/ against a dense double-precision reference, and their
 * speed. Needs a GPU; links only the attention files, src/base.c and src/rng.c.
 *
 *   gpu_attention test            every case, in child processes: a hang or a crash costs one group
 *   gpu_attention bench [filter]  ms and TFLOP/s over allowed pairs, calls back to back
 *   gpu_attention once WHAT D S   one call (for a profiler): WHAT = fwd | bwd */
#include "attention.h"
extern "C" {
#include "rng.h"
}

#include <cuda_bf16.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

typedef __nv_bfloat16 bf16;
typedef std::vector<Band> Bands;

static void cuda_ok(cudaError_t e, int line) {
    if (e == cudaSuccess) return;
    printf("CUDA error at line %d: %s\n", line, cudaGetErrorString(e));
    fflush(stdout);
    _exit(3);
}
#define CU(x) cuda_ok((x), __LINE__)

/* ---- random numbers and masks --------------------------------------------------------------- */

static uint64_t draw_index;
static int64_t draw(int64_t lo, int64_t hi) { /* uniform in [lo, hi] */
    uint64_t x = rng_u64(7, rng_stream(RNG_TEST, 0), draw_index++);
    return lo + (int64_t)(x % (uint64_t)(hi - lo + 1));
}

static void add_band(Bands &out, int q0, int q1, int k0, int k1, int64_t lo, int64_t hi) {
    if (q0 >= q1 || k0 >= k1 || lo > hi) return;
    Band b = {q0, q1, k0, k1, (int)lo, (int)hi};
    out.push_back(b);
}

/* Cuts a rectangle at random; each piece is empty, full, causal, inverse, a window, or two bands that
 * share it along a diagonal. */
static void random_bands(Bands &out, int q0, int q1, int k0, int k1, int depth) {
    if (depth > 0 && draw(0, 9) < 8) {
        if (draw(0, 1) && q1 - q0 > 1) {
            int cut = draw(0, 3) ? (int)draw(q0 + 1, q1 - 1) : q0 + 1;
            random_bands(out, q0, cut, k0, k1, depth - 1);
            random_bands(out, cut, q1, k0, k1, depth - 1);
            return;
        }
        if (k1 - k0 > 1) {
            int cut = (int)draw(k0 + 1, k1 - 1);
            random_bands(out, q0, q1, k0, cut, depth - 1);
            random_bands(out, q0, q1, cut, k1, depth - 1);
            return;
        }
    }
    int64_t a = draw(k0 - q1, k1 - q0), b = draw(k0 - q1, k1 - q0);
    switch (draw(0, 6)) {
    case 0: break;
    case 1: add_band(out, q0, q1, k0, k1, BAND_NO_LO, BAND_NO_HI); break;
    case 2: add_band(out, q0, q1, k0, k1, BAND_NO_LO, k1 - q1); break;
    case 3: add_band(out, q0, q1, k0, k1, k0 - q0, BAND_NO_HI); break;
    case 4: add_band(out, q0, q1, k0, k1, std::min(a, b), std::max(a, b)); break;
    case 5: add_band(out, q0, q1, k0, k1, BAND_NO_LO, a); break;
    default:
        add_band(out, q0, q1, k0, k1, BAND_NO_LO, a);
        add_band(out, q0, q1, k0, k1, a + 1, BAND_NO_HI);
    }
}

static Bands documents_bands(const std::vector<int> &lengths) {
    Bands out;
    int at = 0;
    for (int n : lengths) {
        add_band(out, at, at + n, at, at + n, BAND_NO_LO, 0);
        at += n;
    }
    return out;
}

/* Log-uniform in [100, 4000], packed to S. */
static std::vector<int> document_lengths(int S) {
    std::vector<int> out;
    for (int n = 0; n < S; n += out.back()) {
        double u = rng_uniform(0, rng_stream(RNG_TEST, 1), out.size());
        out.push_back(std::min((int)(100 * pow(40, u)), S - n));
    }
    return out;
}

static double bands_area(const Bands &bands) {
    double sum = 0;
    for (const Band &b : bands)
        for (int64_t q = b.q_begin; q < b.q_end; q++) {
            int64_t lo = std::max<int64_t>(b.k_begin, q + b.lo);
            int64_t hi = std::min<int64_t>(b.k_end, q + b.hi + 1);
            if (hi > lo) sum += (double)(hi - lo);
        }
    return sum;
}

/* ---- device buffers with sentinels ---------------------------------------------------------- */

/* Everything runs on this one stream: a non-blocking one does not wait for the default stream, where
 * cudaMemset would still be under way. */
static Stream test_stream;

static void copy(void *to, const void *from, size_t bytes) {
    CU(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, test_stream.s));
    CU(cudaStreamSynchronize(test_stream.s));
}

enum { GUARD = 4096 };
template <class T> struct Buffer {
    T *d = NULL;
    size_t n = 0;
    void create(size_t count) {
        n = count;
        uint8_t *base;
        CU(cudaMalloc((void **)&base, n * sizeof(T) + 2 * GUARD));
        CU(cudaMemsetAsync(base, 0xff, n * sizeof(T) + 2 * GUARD, test_stream.s)); /* NaN everywhere */
        d = (T *)(base + GUARD);
    }
    void destroy() { CU(cudaFree((uint8_t *)d - GUARD)); }
    void poison() { CU(cudaMemsetAsync(d, 0xff, n * sizeof(T), test_stream.s)); }
    void put(const std::vector<T> &x) { copy(d, x.data(), n * sizeof(T)); }
    std::vector<T> get() {
        std::vector<T> x(n);
        copy(x.data(), d, n * sizeof(T));
        return x;
    }
    bool guards_whole() {
        std::vector<uint8_t> g(2 * GUARD);
        copy(g.data(), (uint8_t *)d - GUARD, GUARD);
        copy(g.data() + GUARD, d + n, GUARD);
        for (uint8_t x : g)
            if (x != 0xff) return false;
        return true;
    }
};

static std::vector<bf16> random_bf16(size_t n, uint64_t stream, double deviation) {
    std::vector<bf16> x(n);
    for (size_t i = 0; i < n; i++)
        x[i] = __float2bfloat16(
            (float)(deviation * rng_normal(5, rng_stream(RNG_TEST, stream), draw_index + i)));
    draw_index += n;
    return x;
}

/* ---- the reference, dense and in double ------------------------------------------------------- */

struct Shape {
    int Sq, Sk, H, K, D;
};

__global__ void ref_scores(double *s, const bf16 *q, const bf16 *kv, const uint8_t *mask, Shape x,
                           double scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y, h = blockIdx.z;
    if (k >= x.Sk) return;
    const bf16 *a = q + ((int64_t)row * x.H + h) * x.D;
    const bf16 *b = kv + ((int64_t)k * 2 * x.K + h / (x.H / x.K)) * x.D;
    double sum = 0;
    for (int d = 0; d < x.D; d++) sum += (double)__bfloat162float(a[d]) * (double)__bfloat162float(b[d]);
    s[((int64_t)h * x.Sq + row) * x.Sk + k] =
        mask[(int64_t)row * x.Sk + k] ? sum * scale : -INFINITY;
}

__global__ void ref_softmax(double *s, double *lse, Shape x) { /* one thread per row and head */
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= (int64_t)x.H * x.Sq) return;
    double *p = s + row * x.Sk, top = -INFINITY, sum = 0;
    for (int k = 0; k < x.Sk; k++) top = fmax(top, p[k]);
    for (int k = 0; k < x.Sk; k++) sum += top == -INFINITY ? 0 : exp(p[k] - top);
    for (int k = 0; k < x.Sk; k++) p[k] = sum > 0 ? exp(p[k] - top) / sum : 0;
    lse[row] = sum > 0 ? top + log(sum) : -INFINITY;
}

__global__ void ref_out(double *o, const double *p, const bf16 *kv, Shape x) {
    int d = threadIdx.x, row = blockIdx.x, h = blockIdx.y;
    double sum = 0;
    for (int k = 0; k < x.Sk; k++)
        sum += p[((int64_t)h * x.Sq + row) * x.Sk + k] *
               (double)__bfloat162float(kv[((int64_t)k * 2 * x.K + x.K + h / (x.H / x.K)) * x.D + d]);
    o[((int64_t)row * x.H + h) * x.D + d] = sum;
}

/* dS = scale P (dP - delta), into ds */
__global__ void ref_ds(double *ds, const double *p, const double *o, const bf16 *d_o, const bf16 *kv,
                       Shape x, double scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y, h = blockIdx.z;
    if (k >= x.Sk) return;
    const bf16 *a = d_o + ((int64_t)row * x.H + h) * x.D;
    const double *c = o + ((int64_t)row * x.H + h) * x.D;
    const bf16 *b = kv + ((int64_t)k * 2 * x.K + x.K + h / (x.H / x.K)) * x.D;
    double dp = 0, delta = 0;
    for (int d = 0; d < x.D; d++) {
        dp += (double)__bfloat162float(a[d]) * (double)__bfloat162float(b[d]);
        delta += (double)__bfloat162float(a[d]) * c[d];
    }
    int64_t at = ((int64_t)h * x.Sq + row) * x.Sk + k;
    ds[at] = scale * p[at] * (dp - delta);
}

__global__ void ref_dq(double *dq, const double *ds, const bf16 *kv, Shape x) {
    int d = threadIdx.x, row = blockIdx.x, h = blockIdx.y;
    double sum = 0;
    for (int k = 0; k < x.Sk; k++)
        sum += ds[((int64_t)h * x.Sq + row) * x.Sk + k] *
               (double)__bfloat162float(kv[((int64_t)k * 2 * x.K + h / (x.H / x.K)) * x.D + d]);
    dq[((int64_t)row * x.H + h) * x.D + d] = sum;
}

__global__ void ref_dkv(double *dkv, const double *p, const double *ds, const bf16 *q,
                        const bf16 *d_o, Shape x) {
    int d = threadIdx.x, k = blockIdx.x, kh = blockIdx.y, group = x.H / x.K;
    double dk = 0, dv = 0;
    for (int h = kh * group; h < (kh + 1) * group; h++)
        for (int row = 0; row < x.Sq; row++) {
            int64_t at = ((int64_t)h * x.Sq + row) * x.Sk + k;
            int64_t from = ((int64_t)row * x.H + h) * x.D + d;
            dk += ds[at] * (double)__bfloat162float(q[from]);
            dv += p[at] * (double)__bfloat162float(d_o[from]);
        }
    dkv[((int64_t)k * 2 * x.K + kh) * x.D + d] = dk;
    dkv[((int64_t)k * 2 * x.K + x.K + kh) * x.D + d] = dv;
}

struct Reference {
    std::vector<double> o, lse, dq, dkv;
};

static Reference reference(const Bands &bands, Shape x, double scale, const bf16 *q, const bf16 *kv,
                           const bf16 *d_o) {
    std::vector<uint8_t> mask((size_t)x.Sq * x.Sk, 0);
    for (const Band &b : bands)
        for (int64_t r = b.q_begin; r < b.q_end; r++)
            for (int64_t k = std::max<int64_t>(b.k_begin, r + b.lo);
                 k < std::min<int64_t>(b.k_end, r + b.hi + 1); k++) {
                uint8_t &m = mask[(size_t)(r * x.Sk + k)];
                REQUIRE(m == 0); /* the test's own lists must be disjoint */
                m = 1;
            }
    size_t pairs = (size_t)x.H * x.Sq * x.Sk;
    Buffer<uint8_t> dmask;
    Buffer<double> p, ds, lse, o, dq, dkv;
    dmask.create(mask.size());
    dmask.put(mask);
    p.create(pairs);
    ds.create(pairs);
    lse.create((size_t)x.H * x.Sq);
    o.create((size_t)x.Sq * x.H * x.D);
    dq.create(o.n);
    dkv.create((size_t)x.Sk * 2 * x.K * x.D);
    dim3 grid((x.Sk + 127) / 128, x.Sq, x.H);
    ref_scores<<<grid, 128, 0, test_stream.s>>>(p.d, q, kv, dmask.d, x, scale);
    ref_softmax<<<(x.H * x.Sq + 63) / 64, 64, 0, test_stream.s>>>(p.d, lse.d, x);
    ref_out<<<dim3(x.Sq, x.H), x.D, 0, test_stream.s>>>(o.d, p.d, kv, x);
    ref_ds<<<grid, 128, 0, test_stream.s>>>(ds.d, p.d, o.d, d_o, kv, x, scale);
    ref_dq<<<dim3(x.Sq, x.H), x.D, 0, test_stream.s>>>(dq.d, ds.d, kv, x);
    ref_dkv<<<dim3(x.Sk, x.K), x.D, 0, test_stream.s>>>(dkv.d, p.d, ds.d, q, d_o, x);
    CU(cudaGetLastError());
    Reference r = {o.get(), lse.get(), dq.get(), dkv.get()};
    dmask.destroy();
    p.destroy();
    ds.destroy();
    lse.destroy();
    o.destroy();
    dq.destroy();
    dkv.destroy();
    return r;
}

/* ---- comparison ------------------------------------------------------------------------------- */

static double as_double(float x) { return (double)x; }
static double as_double(bf16 x) { return (double)__bfloat162float(x); }

/* Relative error of the whole tensor and largest error against the largest value; values below
 * `floor` count as that (a row with one key has no gradient but noise). A mismatch prints where it is. `heads` and `width` describe [row, head, width] for the coordinates. */
template <class T>
static bool agrees(const char *name, const std::vector<T> &x, const std::vector<double> &ref, int heads,
                   int width, double tolerance, double floor, double *worst) {
    double top = floor, diff2 = 0, ref2 = 0, max_error = 0;
    for (double r : ref)
        if (isfinite(r)) top = std::max(top, fabs(r));
    size_t bad = 0, first = 0;
    std::vector<size_t> by_row(16), by_column(16);
    for (size_t i = 0; i < ref.size(); i++) {
        double a = as_double(x[i]), r = ref[i];
        if (!isfinite(r) && a == r) continue;
        double e = fabs(a - r);
        if (isfinite(e)) {
            diff2 += e * e;
            ref2 += r * r;
            max_error = std::max(max_error, e);
        }
        if (!(e <= 4 * tolerance * top + 1e-30)) {
            if (bad++ == 0) first = i;
            by_row[i / width / heads / 8 % 16]++;
            by_column[i % width / 8 % 16]++;
        }
    }
    double relative = sqrt(diff2 / std::max(ref2, floor * floor * (double)ref.size() + 1e-30));
    *worst = std::max(*worst, relative);
    if (bad == 0 && relative <= tolerance) return true;
    printf("    %s: relative %.2e (limit %.0e), max error %.3e of max %.3e, %zu of %zu bad", name,
           relative, tolerance, max_error, top, bad, ref.size());
    if (bad) {
        size_t i = first;
        printf("; first [%zu, %zu, %zu]: %g, expected %g\n      bad by row / 8 %% 16:", i / width / heads,
               i / width % heads, i % width, as_double(x[i]), ref[i]);
        for (size_t n : by_row) printf(" %zu", n);
        printf("\n      by column / 8:");
        for (size_t n : by_column) printf(" %zu", n);
    }
    printf("\n");
    return false;
}

/* ---- one case ---------------------------------------------------------------------------------- */

struct Case {
    Shape x;
    Bands bands;
    bool portable;
    int stages; /* the bands are dealt to this many calls */
    bool any_order; /* dq may differ in its bits from run to run */
};

static AttnWork *make_work(const Bands &bands, Shape x, bool portable) {
    AttnShape s = {x.Sq, x.Sk, x.H, x.K, x.D, (float)(1 / sqrt((double)x.D))};
    AttnWork *work = NULL;
    Status st = (portable ? cuda_attn_work_create_portable : cuda_attn_work_create)(
        &work, bands.data(), (int64_t)bands.size(), s, &test_stream);
    REQUIRE(st == OK);
    return work;
}

static bool run_case(const char *name, const Case &c) {
    const Shape x = c.x;
    double scale = (double)(float)(1 / sqrt((double)x.D));
    Buffer<bf16> q, kv, d_o, o;
    Buffer<float> o_acc, lse, delta, dq, dkv;
    q.create((size_t)x.Sq * x.H * x.D);
    kv.create((size_t)x.Sk * 2 * x.K * x.D);
    d_o.create(q.n);
    o.create(q.n);
    o_acc.create(q.n);
    lse.create((size_t)x.H * x.Sq);
    delta.create(lse.n);
    dq.create(q.n);
    dkv.create(kv.n);
    q.put(random_bf16(q.n, 10, 2.0)); /* peaked, so that one wrong key shows */
    kv.put(random_bf16(kv.n, 11, 1.0));
    d_o.put(random_bf16(q.n, 12, 1.0));
    Reference ref = reference(c.bands, x, scale, q.d, kv.d, d_o.d);

    std::vector<Bands> stages((size_t)c.stages);
    for (size_t i = 0; i < c.bands.size(); i++) stages[i % stages.size()].push_back(c.bands[i]);
    std::vector<AttnWork *> works;
    for (const Bands &b : stages) works.push_back(make_work(b, x, c.portable));
    std::vector<bf16> o1;
    std::vector<float> lse1, dq1, dkv1, o_acc1;
    bool ok = true;
    size_t dq_differs = 0;
    cuda_attention_deterministic(!c.any_order);
    for (int repeat = 0; repeat < 3; repeat++) {
        o.poison();
        o_acc.poison();
        lse.poison();
        delta.poison();
        dq.poison();
        dkv.poison();
        for (size_t i = 0; i < works.size(); i++) {
            bool last = i + 1 == works.size(), only = works.size() == 1 && repeat == 2;
            cuda_attention_fwd(last ? o.d : NULL, only ? NULL : o_acc.d, lse.d, q.d, kv.d, works[i],
                               i > 0, &test_stream);
        }
        cuda_attention_delta(delta.d, d_o.d, o.d, x.Sq, x.H, x.D, &test_stream);
        for (size_t i = 0; i < works.size(); i++)
            cuda_attention_bwd(dq.d, dkv.d, d_o.d, q.d, kv.d, lse.d, delta.d, works[i], i > 0, i > 0,
                               &test_stream);
        CU(cudaStreamSynchronize(test_stream.s));
        if (repeat == 0) {
            o1 = o.get();
            o_acc1 = o_acc.get();
            lse1 = lse.get();
            dq1 = dq.get();
            dkv1 = dkv.get();
            continue;
        }
        bool same = memcmp(o1.data(), o.get().data(), o.n * 2) == 0 &&
                    memcmp(lse1.data(), lse.get().data(), lse.n * 4) == 0 &&
                    memcmp(dkv1.data(), dkv.get().data(), dkv.n * 4) == 0;
        if (!same) printf("    repeat %d: o, lse or dkv differ in their bits\n", repeat);
        ok &= same;
        std::vector<float> again = dq.get();
        for (size_t i = 0; i < dq.n; i++)
            dq_differs += memcmp(&again[i], &dq1[i], 4) != 0;
    }
    if (!c.any_order && dq_differs) {
        printf("    dq differs in its bits\n");
        ok = false;
    }
    double worst = 0, lse_worst = 0;
    ok &= agrees("o", o1, ref.o, x.H, x.D, 6e-3, 0.01, &worst);
    ok &= agrees("o_acc", o_acc1, ref.o, x.H, x.D, 6e-3, 0.01, &worst);
    for (size_t i = 0; i < lse1.size(); i++) {
        double e = fabs((double)lse1[i] - ref.lse[i]);
        if ((double)lse1[i] == ref.lse[i]) e = 0;
        if (!(e < 2e-4)) {
            if (!(lse_worst >= 2e-4) && isfinite(lse_worst))
                printf("    lse: first [head %zu, row %zu]: %g, expected %g\n", i / x.Sq, i % x.Sq,
                       lse1[i], ref.lse[i]);
            ok = false;
        }
        if (!(e <= lse_worst)) lse_worst = e;
    }
    ok &= agrees("dq", dq1, ref.dq, x.H, x.D, 1e-2, 0.3, &worst);
    ok &= agrees("dkv", dkv1, ref.dkv, 2 * x.K, x.D, 1e-2, 0.3, &worst);
    bool guards = o.guards_whole() && o_acc.guards_whole() && lse.guards_whole() &&
                  dq.guards_whole() && dkv.guards_whole() && delta.guards_whole();
    if (!guards) printf("    a buffer's sentinels were overwritten\n");
    ok &= guards;
    printf("  %s %s D=%d H=%d/%d %dx%d bands=%zu stages=%d: worst %.1e, lse %.1e, dq bits differ %zu\n",
           ok ? "ok  " : "FAIL", name, x.D, x.H, x.K, x.Sq, x.Sk, c.bands.size(), c.stages, worst,
           lse_worst, dq_differs);
    fflush(stdout);
    for (AttnWork *w : works) cuda_attn_work_free(w);
    q.destroy();
    kv.destroy();
    d_o.destroy();
    o.destroy();
    o_acc.destroy();
    lse.destroy();
    delta.destroy();
    dq.destroy();
    dkv.destroy();
    return ok;
}

/* ---- groups of cases ---------------------------------------------------------------------------- */

static Bands one_band(int Sq, int Sk, int64_t lo, int64_t hi) {
    Bands b;
    add_band(b, 0, Sq, 0, Sk, lo, hi);
    return b;
}

static bool run_named(bool portable, int D, bool any_order) {
    const int64_t no_lo = BAND_NO_LO, no_hi = BAND_NO_HI;
    bool ok = true;
    auto run = [&](const char *name, Shape x, Bands b, int stages = 1) {
        ok &= run_case(name, Case{x, b, portable, stages, any_order});
    };
    run("one tile", {128, 128, 1, 1, D}, one_band(128, 128, no_lo, no_hi));
    run("two steps", {128, 256, 1, 1, D}, one_band(128, 256, no_lo, no_hi));
    run("three steps, two tiles", {256, 384, 1, 1, D}, one_band(256, 384, no_lo, no_hi));
    run("causal", {512, 512, 4, 1, D}, one_band(512, 512, no_lo, 0));
    run("causal, ragged", {333, 333, 6, 2, D}, one_band(333, 333, no_lo, 0));
    run("window", {500, 500, 2, 2, D}, one_band(500, 500, -100, 0));
    run("one row", {1, 300, 8, 1, D}, one_band(1, 300, no_lo, no_hi));
    run("one key", {300, 1, 8, 1, D}, one_band(300, 1, no_lo, no_hi));
    run("no band", {70, 90, 4, 1, D}, Bands());
    run("more keys", {100, 700, 8, 2, D}, one_band(100, 700, no_lo, 600));
    run("more rows", {700, 100, 8, 2, D}, one_band(700, 100, no_lo, -600));
    run("documents", {600, 600, 8, 2, D}, documents_bands({100, 7, 200, 1, 150, 142}));
    Bands halves;
    add_band(halves, 0, 400, 0, 200, no_lo, 0);
    add_band(halves, 0, 400, 200, 400, no_lo, 0);
    run("causal in two stages", {400, 400, 8, 2, D}, halves, 2);
    return ok;
}

static bool run_random(bool portable, int D, int count, uint64_t seed) {
    static const int heads[4][2] = {{8, 2}, {6, 2}, {8, 1}, {2, 2}};
    bool ok = true;
    draw_index = seed << 40;
    for (int i = 0; i < count; i++) {
        const int *h = heads[i % 4];
        int top = i % 3 ? 300 : 700;
        Shape x = {(int)draw(1, top), (int)draw(1, top), h[0], h[1], D};
        Bands b;
        random_bands(b, 0, x.Sq, 0, x.Sk, (int)draw(0, 6));
        ok &= run_case("random", Case{x, b, portable, (int)draw(1, 3), i % 4 == 3});
    }
    return ok;
}

/* ---- many runs, the same bits ------------------------------------------------------------------- */

/* About normal, of deviation 1. */
__global__ void noise(bf16 *x, size_t n, uint64_t seed) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        uint64_t z = (i + seed * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9; /* splitmix64 */
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += (float)(z >> (16 * k) & 0xffff) / 65536.0f - 0.5f;
        x[i] = __float2bfloat16(sum * 1.732f);
    }
}

__global__ void count_differences(unsigned long long *count, const uint32_t *a, const uint32_t *b,
                                  size_t n) {
    unsigned long long mine = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        mine += a[i] != b[i];
    if (mine) atomicAdd(count, mine);
}

struct Bench {
    Buffer<bf16> q, kv, d_o, o;
    Buffer<float> lse, delta, dq, dkv;
    AttnWork *work;
    Shape shape;
    void create(Shape x, const Bands &bands, bool portable) {
        shape = x;
        q.create((size_t)x.Sq * x.H * x.D);
        kv.create((size_t)x.Sk * 2 * x.K * x.D);
        d_o.create(q.n);
        o.create(q.n);
        lse.create((size_t)x.H * x.Sq);
        delta.create(lse.n);
        dq.create(q.n);
        dkv.create(kv.n);
        noise<<<1024, 256, 0, test_stream.s>>>(q.d, q.n, 1);
        noise<<<1024, 256, 0, test_stream.s>>>(kv.d, kv.n, 2);
        noise<<<1024, 256, 0, test_stream.s>>>(d_o.d, d_o.n, 3);
        work = make_work(bands, x, portable);
    }
    void destroy() {
        cuda_attn_work_free(work);
        q.destroy();
        kv.destroy();
        d_o.destroy();
        o.destroy();
        lse.destroy();
        delta.destroy();
        dq.destroy();
        dkv.destroy();
    }
    void fwd() { cuda_attention_fwd(o.d, NULL, lse.d, q.d, kv.d, work, false, &test_stream); }
    void prepare() {
        fwd();
        cuda_attention_delta(delta.d, d_o.d, o.d, shape.Sq, shape.H, shape.D, &test_stream);
    }
    void bwd() {
        cuda_attention_bwd(dq.d, dkv.d, d_o.d, q.d, kv.d, lse.d, delta.d, work, false, false,
                           &test_stream);
    }
};

static Bands named_bands(const char *mask, int S);

static bool run_repeat(int D) {
    static const struct {
        const char *mask;
        int S;
    } cases[] = {{"causal", 2048}, {"causal", 8192}, {"docs", 8192}, {"window", 8192}};
    enum { RUNS = 100 };
    bool ok = true;
    cuda_attention_deterministic(true);
    for (auto &c : cases) {
        Bench b;
        b.create(Shape{c.S, c.S, D == 64 ? 32 : 24, 8, D}, named_bands(c.mask, c.S), false);
        Buffer<float> dq, dkv;
        Buffer<bf16> o;
        Buffer<unsigned long long> count;
        dq.create(b.dq.n);
        dkv.create(b.dkv.n);
        o.create(b.o.n);
        count.create(1);
        CU(cudaMemsetAsync(count.d, 0, 8, test_stream.s));
        b.prepare();
        b.bwd();
        CU(cudaMemcpyAsync(dq.d, b.dq.d, dq.n * 4, cudaMemcpyDefault, test_stream.s));
        CU(cudaMemcpyAsync(dkv.d, b.dkv.d, dkv.n * 4, cudaMemcpyDefault, test_stream.s));
        CU(cudaMemcpyAsync(o.d, b.o.d, o.n * 2, cudaMemcpyDefault, test_stream.s));
        for (int i = 1; i < RUNS; i++) {
            b.fwd();
            b.bwd();
            count_differences<<<1024, 256, 0, test_stream.s>>>(count.d, (uint32_t *)dq.d,
                                                               (uint32_t *)b.dq.d, dq.n);
            count_differences<<<1024, 256, 0, test_stream.s>>>(count.d, (uint32_t *)dkv.d,
                                                               (uint32_t *)b.dkv.d, dkv.n);
            count_differences<<<1024, 256, 0, test_stream.s>>>(count.d, (uint32_t *)o.d,
                                                               (uint32_t *)b.o.d, o.n / 2);
        }
        unsigned long long differ = count.get()[0];
        CU(cudaGetLastError());
        printf("  %s %s D=%d S=%d: %llu words differ in %d runs\n", differ ? "FAIL" : "ok  ", c.mask, D,
               c.S, differ, RUNS);
        ok &= differ == 0;
        b.destroy();
        dq.destroy();
        dkv.destroy();
        o.destroy();
        count.destroy();
    }
    return ok;
}

static bool run_group(const char *group) {
    int D = 0, n = 0;
    CU(cudaStreamCreateWithFlags(&test_stream.s, cudaStreamNonBlocking));
    if (sscanf(group, "portable-named-%d", &D) == 1) return run_named(true, D, false);
    if (sscanf(group, "sm90-named-%d", &D) == 1) return run_named(false, D, false);
    if (sscanf(group, "sm90-any-%d", &D) == 1) return run_named(false, D, true);
    if (sscanf(group, "sm90-repeat-%d", &D) == 1) return run_repeat(D);
    if (sscanf(group, "portable-random-%d-%d", &D, &n) == 2)
        return run_random(true, D, n, (uint64_t)D);
    if (sscanf(group, "sm90-random-%d-%d", &D, &n) == 2)
        return run_random(false, D, n, 1000 + (uint64_t)D);
    if (sscanf(group, "sm90-long-%d", &D) == 1) { /* many items a CTA: the rings wrap many times */
        bool ok = true;
        for (int portable = 0; portable < 2; portable++) {
            ok &= run_case("long causal", Case{{2048, 2048, 16, 4, D}, one_band(2048, 2048, BAND_NO_LO, 0),
                                               portable != 0, 1, false});
            ok &= run_case("long documents",
                           Case{{2000, 2000, 24, 8, D},
                                documents_bands({300, 650, 17, 400, 129, 504}), portable != 0, 1, false});
        }
        return ok;
    }
    printf("unknown group %s\n", group);
    return false;
}

/* ---- speed --------------------------------------------------------------------------------------- */

/* Median ms between consecutive calls issued back to back. */
template <class F> static double time_stream(F call, int repeats) {
    for (int i = 0; i < 2; i++) call();
    CU(cudaStreamSynchronize(test_stream.s));
    std::vector<cudaEvent_t> events((size_t)repeats + 1);
    for (cudaEvent_t &e : events) CU(cudaEventCreate(&e));
    call(); /* the host runs ahead of this one */
    CU(cudaEventRecord(events[0], test_stream.s));
    for (int i = 0; i < repeats; i++) {
        call();
        CU(cudaEventRecord(events[(size_t)i + 1], test_stream.s));
    }
    CU(cudaStreamSynchronize(test_stream.s));
    std::vector<float> ms((size_t)repeats);
    for (size_t i = 0; i < ms.size(); i++) CU(cudaEventElapsedTime(&ms[i], events[i], events[i + 1]));
    for (cudaEvent_t &e : events) CU(cudaEventDestroy(e));
    std::sort(ms.begin(), ms.end());
    return (double)ms[ms.size() / 2];
}

static Bands named_bands(const char *mask, int S) {
    if (!strcmp(mask, "causal")) return one_band(S, S, BAND_NO_LO, 0);
    if (!strcmp(mask, "full")) return one_band(S, S, BAND_NO_LO, BAND_NO_HI);
    if (!strcmp(mask, "window")) return one_band(S, S, -1023, 0);
    if (!strcmp(mask, "4x2k")) return documents_bands({2048, 2048, 2048, 2048});
    return documents_bands(document_lengths(S));
}

static void bench_one(const char *mask, int S, int D, int H, int K, bool portable) {
    Shape x = {S, S, H, K, D};
    Bands bands = named_bands(mask, S);
    double area = bands_area(bands), flops = 4 * area * H * D;
    Bench b;
    b.create(x, bands, portable);
    b.prepare();
    CU(cudaStreamSynchronize(test_stream.s));
    int repeats = (int)std::min(50.0, std::max(5.0, 2e13 / flops));
    double fwd = time_stream([&] { b.fwd(); }, repeats);
    cuda_attention_deterministic(false);
    double any = time_stream([&] { b.bwd(); }, std::max(5, repeats / 2));
    cuda_attention_deterministic(true);
    double bwd = time_stream([&] { b.bwd(); }, std::max(5, repeats / 2));
    for (int i = 0; i < 3; i++) b.bwd(); /* the host must not wait for these */
    double t0 = time_now();
    enum { PLANS = 10 };
    AttnWork *works[PLANS];
    for (AttnWork *&w : works) w = make_work(bands, x, portable);
    double plan = (time_now() - t0) / PLANS;
    for (AttnWork *w : works) cuda_attn_work_free(w);
    CU(cudaStreamSynchronize(test_stream.s));
    printf("%-8s %-7s D=%-3d H=%d/%d S=%-6d fwd %7.3f ms %4.0f TFLOP/s   bwd %7.3f ms %4.0f, any order "
           "%7.3f ms %4.0f   work list %.0f us\n",
           portable ? "portable" : "sm90", mask, D, H, K, S, fwd, flops / fwd / 1e9, bwd,
           2.5 * flops / bwd / 1e9, any, 2.5 * flops / any / 1e9, plan * 1e6);
    fflush(stdout);
    b.destroy();
}

#ifdef ATTN_TUNE
/* Times every setting on every shape; the settings are read from the environment. */
static int run_sweep(bool forward) {
    static const struct {
        const char *mask;
        int S, D, H;
    } cases[] = {{"causal", 2048, 64, 32}, {"4x2k", 8192, 64, 32}, {"causal", 8192, 64, 32}, {"full", 8192, 64, 32},
                 {"docs", 8192, 64, 32}, {"docs", 32768, 64, 32}, {"window", 32768, 64, 32}, {"causal", 32768, 64, 32},
                 {"causal", 2048, 128, 24}, {"4x2k", 8192, 128, 24}, {"causal", 8192, 128, 24}, {"full", 8192, 128, 24},
                 {"docs", 8192, 128, 24}, {"docs", 32768, 128, 24}, {"causal", 32768, 128, 24}, {"causal", 8192, 128, 64}};
    CU(cudaStreamCreateWithFlags(&test_stream.s, cudaStreamNonBlocking));
    for (auto &c : cases) {
        Shape x = {c.S, c.S, c.H, 8, c.D};
        Bands bands = named_bands(c.mask, c.S);
        double flops = 4 * bands_area(bands) * c.H * c.D;
        int repeats = flops > 4e12 ? 2 : 6;
        Bench b;
        b.create(x, bands, false);
        b.prepare();
        printf("%-7s D=%-3d S=%-6d fwd", c.mask, c.D, c.S);
        for (int v = 0; forward && v < (c.D == 64 ? 5 : 2); v++) {
            setenv("FWD_VARIANT", std::to_string(v).c_str(), 1);
            cuda_attn_work_free(b.work);
            b.work = make_work(bands, x, false);
            printf("  %d: %.0f", v, flops / time_stream([&] { b.fwd(); }, repeats) / 1e9);
            if (v == 1 && c.D == 64) {
                setenv("FWD_BUDGET", "1000", 1);
                printf(" (%.0f)", flops / time_stream([&] { b.fwd(); }, repeats) / 1e9);
                unsetenv("FWD_BUDGET");
            }
        }
        unsetenv("FWD_VARIANT");
        printf("\n     bwd det/any by budget:parts ");
        for (int parts : c.H / 8 == 3 ? std::vector<int>{1, 3} : std::vector<int>{1, 2, c.H / 8})
            for (int budget : {8, 32, 64, 1000}) {
                if (flops > 4e12 && (budget == 8 || parts == 2)) continue;
                setenv("BWD_PARTS", std::to_string(parts).c_str(), 1);
                setenv("BWD_BUDGET", std::to_string(budget).c_str(), 1);
                cuda_attention_deterministic(true);
                double det = time_stream([&] { b.bwd(); }, repeats);
                cuda_attention_deterministic(false);
                double any = time_stream([&] { b.bwd(); }, repeats);
                printf(" %d:%d %.0f/%.0f", budget, parts, 2.5 * flops / det / 1e9, 2.5 * flops / any / 1e9);
            }
        printf("\n");
        fflush(stdout);
        unsetenv("BWD_PARTS");
        unsetenv("BWD_BUDGET");
        b.destroy();
    }
    return 0;
}
#endif

static bool run_bench(const char *which) {
    CU(cudaStreamCreateWithFlags(&test_stream.s, cudaStreamNonBlocking));
    int D = 0, H = 0, K = 0, S = 0;
    char mask[16], kind[16];
    if (sscanf(which, "%15[a-z0-9]-%15[a-z0-9]-%d-%d-%d-%d", kind, mask, &S, &D, &H, &K) != 6) return false;
    bench_one(mask, S, D, H, K, !strcmp(kind, "portable"));
    return true;
}

/* ---- children ------------------------------------------------------------------------------------ */

static char *own_path;

static bool in_child(const char *mode, const char *what, int seconds) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(own_path, own_path, mode, what, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    double limit = time_now() + seconds;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (time_now() > limit) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            printf("FAIL %s: no end after %d s\n", what, seconds);
            return false;
        }
        usleep(5000);
    }
    if (WIFSIGNALED(status)) printf("FAIL %s: signal %d\n", what, WTERMSIG(status));
    else if (WEXITSTATUS(status)) printf("FAIL %s: exit %d\n", what, WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    own_path = (char *)"/proc/self/exe";
    const char *mode = argc > 1 ? argv[1] : "test";
    if (!strcmp(mode, "group") && argc > 2) return run_group(argv[2]) ? 0 : 1;
    if (!strcmp(mode, "measure") && argc > 2) return run_bench(argv[2]) ? 0 : 1;
#ifdef ATTN_TUNE
    if (!strcmp(mode, "sweep")) return run_sweep(argc <= 2);
#endif
    if (!strcmp(mode, "once") && argc > 4) {
        CU(cudaStreamCreateWithFlags(&test_stream.s, cudaStreamNonBlocking));
        int D = atoi(argv[3]), S = atoi(argv[4]);
        Shape x = {S, S, D == 64 ? 32 : 24, 8, D};
        Bench b;
        b.create(x, named_bands("causal", S), false);
        b.prepare();
        if (!strcmp(argv[2], "bwd")) b.bwd();
        CU(cudaStreamSynchronize(test_stream.s));
        return 0;
    }
    int failed = 0, total = 0;
    if (!strcmp(mode, "test")) {
        static const char *const groups[] = {
            "portable-named-64",     "portable-named-128",    "sm90-named-64",
            "sm90-named-128",        "portable-random-48-8",  "portable-random-64-12",
            "portable-random-128-12", "portable-random-112-8", "portable-random-96-6",
            "portable-random-16-4",  "sm90-random-64-40",     "sm90-random-128-40",
            "sm90-any-64",           "sm90-any-128",          "sm90-long-64",
            "sm90-long-128",         "sm90-repeat-64",        "sm90-repeat-128"};
        for (const char *g : groups) {
            if (argc > 2 && !strstr(g, argv[2])) continue;
            double t0 = time_now();
            bool ok = in_child("group", g, 60);
            printf("%s %s (%.1f s)\n", ok ? "PASS" : "FAIL", g, time_now() - t0);
            failed += !ok;
            total++;
        }
        printf("%d of %d groups passed\n", total - failed, total);
        return failed != 0;
    }
    if (!strcmp(mode, "bench")) {
        static const char *const lines[] = {
            "sm90-causal-2048-64-32-8",    "sm90-4x2k-8192-64-32-8",      "sm90-causal-8192-64-32-8",
            "sm90-causal-32768-64-32-8",   "sm90-full-8192-64-32-8",      "sm90-docs-8192-64-32-8",
            "sm90-docs-32768-64-32-8",     "sm90-window-32768-64-32-8",   "sm90-causal-2048-128-24-8",
            "sm90-4x2k-8192-128-24-8",     "sm90-causal-8192-128-24-8",   "sm90-causal-32768-128-24-8",
            "sm90-full-8192-128-24-8",     "sm90-docs-8192-128-24-8",     "sm90-docs-32768-128-24-8",
            "sm90-window-32768-128-24-8",  "sm90-causal-8192-128-64-8",   "portable-causal-8192-64-32-8",
            "portable-causal-8192-128-24-8"};
        for (const char *l : lines)
            if (argc <= 2 || strstr(l, argv[2])) in_child("measure", l, 30);
        return 0;
    }
    printf("usage: gpu_attention test|bench [filter] | once fwd|bwd D S\n");
    return 2;
}
