/* gpu_attention.cuh: what gpu_attention.cu tests with: masks, guarded device buffers, and a dense
 * reference in double. */
#ifndef CRIA_TESTS_GPU_ATTENTION_CUH
#define CRIA_TESTS_GPU_ATTENTION_CUH

#include "attention.h"
extern "C" {
#include "data/synthetic.h"
#include "base/rng.h"
}

#include <cuda_bf16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <type_traits>
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

/* ---- random numbers and masks ---------------------------------------------------------------- */

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

/* AttnBlocks a rectangle at random; each piece is empty, full, causal, inverse, a window, or two
 * bands that share it along a diagonal. */
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
    case 0:
        break;
    case 1:
        add_band(out, q0, q1, k0, k1, BAND_NO_LO, BAND_NO_HI);
        break;
    case 2:
        add_band(out, q0, q1, k0, k1, BAND_NO_LO, k1 - q1);
        break;
    case 3:
        add_band(out, q0, q1, k0, k1, k0 - q0, BAND_NO_HI);
        break;
    case 4:
        add_band(out, q0, q1, k0, k1, std::min(a, b), std::max(a, b));
        break;
    case 5:
        add_band(out, q0, q1, k0, k1, BAND_NO_LO, a);
        break;
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

/* ---- device buffers with sentinels ----------------------------------------------------------- */

/* Everything runs on this one stream: a non-blocking one does not wait for the default stream,
 * where cudaMemset would still be under way. */
static Ops test_ops; /* of which `deterministic` counts */
static Stream test_stream = {&test_ops};

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
        CU(cudaMemsetAsync(base, 0xff, n * sizeof(T) + 2 * GUARD,
                           test_stream.s)); /* NaN everywhere */
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

/* ---- the reference, dense and in double ------------------------------------------------------ */

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
    for (int d = 0; d < x.D; d++)
        sum += (double)__bfloat162float(a[d]) * (double)__bfloat162float(b[d]);
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

/* What the kernels cannot avoid: P and dS go into the next product, and o into memory, in bf16. */
template <bool ROUND> __device__ double kept(double x) {
    return ROUND ? (double)__bfloat162float(__double2bfloat16(x)) : x;
}

template <bool ROUND> __global__ void ref_out(double *o, const double *p, const bf16 *kv, Shape x) {
    int d = threadIdx.x, row = blockIdx.x, h = blockIdx.y;
    double sum = 0;
    for (int k = 0; k < x.Sk; k++)
        sum +=
            kept<ROUND>(p[((int64_t)h * x.Sq + row) * x.Sk + k]) *
            (double)__bfloat162float(kv[((int64_t)k * 2 * x.K + x.K + h / (x.H / x.K)) * x.D + d]);
    o[((int64_t)row * x.H + h) * x.D + d] = kept<ROUND>(sum);
}

/* dS = scale P (dP - delta), into ds */
__global__ void ref_ds(double *ds, const double *p, const double *o, const bf16 *d_o,
                       const bf16 *kv, Shape x, double scale) {
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

template <bool ROUND>
__global__ void ref_dq(double *dq, const double *ds, const bf16 *kv, Shape x) {
    int d = threadIdx.x, row = blockIdx.x, h = blockIdx.y;
    double sum = 0;
    for (int k = 0; k < x.Sk; k++)
        sum += kept<ROUND>(ds[((int64_t)h * x.Sq + row) * x.Sk + k]) *
               (double)__bfloat162float(kv[((int64_t)k * 2 * x.K + h / (x.H / x.K)) * x.D + d]);
    dq[((int64_t)row * x.H + h) * x.D + d] = sum;
}

template <bool ROUND>
__global__ void ref_dkv(double *dkv, const double *p, const double *ds, const bf16 *q,
                        const bf16 *d_o, Shape x) {
    int d = threadIdx.x, k = blockIdx.x, kh = blockIdx.y, group = x.H / x.K;
    double dk = 0, dv = 0;
    for (int h = kh * group; h < (kh + 1) * group; h++)
        for (int row = 0; row < x.Sq; row++) {
            int64_t at = ((int64_t)h * x.Sq + row) * x.Sk + k;
            int64_t from = ((int64_t)row * x.H + h) * x.D + d;
            dk += kept<ROUND>(ds[at]) * (double)__bfloat162float(q[from]);
            dv += kept<ROUND>(p[at]) * (double)__bfloat162float(d_o[from]);
        }
    dkv[((int64_t)k * 2 * x.K + kh) * x.D + d] = dk;
    dkv[((int64_t)k * 2 * x.K + x.K + kh) * x.D + d] = dv;
}

struct Reference {
    std::vector<double> lse;
    struct {
        std::vector<double> o, dq, dkv;
    } exact, rounded; /* rounded: with the roundings to bf16 that the kernels have to make */
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
    Reference r;
    auto outputs = [&](auto &out, auto rounded) {
        constexpr bool ROUND = decltype(rounded)::value;
        ref_out<ROUND><<<dim3(x.Sq, x.H), x.D, 0, test_stream.s>>>(o.d, p.d, kv, x);
        ref_ds<<<grid, 128, 0, test_stream.s>>>(ds.d, p.d, o.d, d_o, kv, x, scale);
        ref_dq<ROUND><<<dim3(x.Sq, x.H), x.D, 0, test_stream.s>>>(dq.d, ds.d, kv, x);
        ref_dkv<ROUND><<<dim3(x.Sk, x.K), x.D, 0, test_stream.s>>>(dkv.d, p.d, ds.d, q, d_o, x);
        CU(cudaGetLastError());
        out.o = o.get();
        out.dq = dq.get();
        out.dkv = dkv.get();
    };
    outputs(r.exact, std::false_type());
    outputs(r.rounded, std::true_type());
    r.lse = lse.get();
    dmask.destroy();
    p.destroy();
    ds.destroy();
    lse.destroy();
    o.destroy();
    dq.destroy();
    dkv.destroy();
    return r;
}

#endif
