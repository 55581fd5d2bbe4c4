/* cross_entropy.cu: loss = w (log sum exp(x) - x[label]) and, in place, its gradient
 * w (softmax(x) - onehot), over logits[S,Vp] whose columns from V on are padding. With z-loss, also
 * w z lse^2 where lse = log sum exp(x), and in place w (softmax(x) (1 + 2 z lse) - onehot).
 *
 * A block per row, two passes: an online maximum and sum of exponentials (Milakov and Gimelshein,
 * 2018), then the gradient. At V = 128256 a row has 256 kB, and one block of 1024 threads per SM
 * keeps 132 rows, 34 MB, under way: the second pass reads them from L2. Bytes of device memory:
 * 2 S V forward, 4 S V with the gradient. One FMA and one exponential per element and pass. */
#include "common.cuh"
#include "ptx.cuh"

#include <float.h>

enum { THREADS = 1024, IN_FLIGHT = 4 };

template <int W> static __device__ __forceinline__ void zero_row(bf16 *x, int Vp) {
    const float zero[W] = {};
    for (int c = threadIdx.x * W; c < Vp; c += THREADS * W) store(x + c, zero);
}

/* IN_FLIGHT accesses from column c on, THREADS W columns apart; -inf where there are no logits */
template <int W>
static __device__ __forceinline__ void load_some(float (&v)[IN_FLIGHT][W], const bf16 *x, int c,
                                                 int V) {
#pragma unroll
    for (int j = 0; j < IN_FLIGHT; j++) {
        int at = c + j * THREADS * W;
        if (at < V) load(v[j], x + at);
#pragma unroll
        for (int i = 0; i < W; i++)
            if (at + i >= V) v[j][i] = -INFINITY;
    }
}

/* Z: with z-loss */
template <int W, bool GRAD, bool Z>
static __global__ void __launch_bounds__(THREADS)
    cross_entropy_kernel(float *loss, bf16 *logits, const int32_t *labels, const float *weights,
                         int V, int Vp, float *z_loss, float z_coef) {
    bf16 *x = logits + (int64_t)blockIdx.x * Vp;
    float weight = weights[blockIdx.x];
    if (weight == 0) { /* such a row may hold anything, as may its label */
        if (threadIdx.x == 0) loss[blockIdx.x] = 0;
        if (Z && threadIdx.x == 0) z_loss[blockIdx.x] = 0;
        if (GRAD) zero_row<W>(x, Vp);
        return;
    }
    int label = labels[blockIdx.x];
    float picked = __bfloat162float(x[label]); /* read by all before any writes: barriers below */

    float max = -FLT_MAX / 2, sum = 0; /* finite, so that -inf minus it is no NaN */
    for (int c = threadIdx.x * W; c < V; c += IN_FLIGHT * THREADS * W) {
        float v[IN_FLIGHT][W], old = max;
        load_some(v, x, c, V);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
#pragma unroll
            for (int i = 0; i < W; i++) max = fmaxf(max, v[j][i]);
        float shift = max * LOG2E;
        sum *= exp2_fast(old * LOG2E - shift);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
#pragma unroll
            for (int i = 0; i < W; i++) sum += exp2_fast(fmaf(v[j][i], LOG2E, -shift));
    }
    float row_max = block_max(max), shift = row_max * LOG2E;
    sum = block_sum(sum * exp2_fast(max * LOG2E - shift));
    if (threadIdx.x == 0) loss[blockIdx.x] = weight * (logf(sum) + row_max - picked);
    if (!GRAD) return;

    float scale = weight / sum;
    if (Z) {
        float lse = logf(sum) + row_max;
        if (threadIdx.x == 0) z_loss[blockIdx.x] = weight * z_coef * lse * lse;
        scale *= 1 + 2 * z_coef * lse;
    }
    for (int c = threadIdx.x * W; c < Vp; c += IN_FLIGHT * THREADS * W) {
        float v[IN_FLIGHT][W];
        load_some(v, x, c, V);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) {
            int at = c + j * THREADS * W;
#pragma unroll
            for (int i = 0; i < W; i++) {
                v[j][i] = exp2_fast(fmaf(v[j][i], LOG2E, -shift)) * scale;
                if (at + i == label) v[j][i] -= weight;
            }
            if (at < Vp) store(x + at, v[j]);
        }
    }
}

void cuda_cross_entropy(const CrossEntropy *a, Stream *stream) {
    REQUIRE(a->z_loss == NULL || a->grad);
    if (a->S == 0) return;
    with_width(a->Vp % 8 == 0 && aligned16({a->logits}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        auto kernel = a->z_loss != NULL ? cross_entropy_kernel<W, true, true>
                      : a->grad         ? cross_entropy_kernel<W, true, false>
                                        : cross_entropy_kernel<W, false, false>;
        kernel<<<(unsigned)a->S, THREADS, 0, stream->s>>>(
            a->loss, (bf16 *)a->logits, a->labels, a->weights, a->V, a->Vp, a->z_loss, a->z_coef);
    });
    CUDA_CHECK_LAUNCH("cross_entropy");
}
