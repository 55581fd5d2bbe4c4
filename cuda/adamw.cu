/* adamw.cu: AdamW with decoupled decay on n elements: m, v and master in fp32, the new master
 * rounded to bf16 for the model. 30 bytes and about 15 FLOPs per element: memory-bound. Eight
 * elements a thread: two 16-byte accesses to each fp32 array, one to the weights. */
#include "common.cuh"

enum { THREADS = 256 };

template <int W>
static __device__ __forceinline__ void update(float *master, float *m, float *v, bf16 *param,
                                              const float *grad, AdamwStep a, float inv_bias1,
                                              float inv_bias2) {
    float x[W], first[W], second[W], g[W];
    load(g, grad);
    load(first, m);
    load(second, v);
    load(x, master);
#pragma unroll
    for (int i = 0; i < W; i++) {
        float scaled = g[i] * a.grad_scale;
        first[i] = a.beta1 * first[i] + (1 - a.beta1) * scaled;
        second[i] = a.beta2 * second[i] + (1 - a.beta2) * scaled * scaled;
        float step = first[i] * inv_bias1 / (sqrtf(second[i] * inv_bias2) + a.eps);
        x[i] -= a.lr * (step + a.weight_decay * x[i]);
    }
    store(m, first);
    store(v, second);
    store(master, x);
    store(param, x);
}

/* W elements a thread; what is left of n, one each in a last block */
template <int W>
static __global__ void adamw_kernel(float *master, float *m, float *v, bf16 *param,
                                    const float *grad, AdamwStep a, float inv_bias1,
                                    float inv_bias2, int64_t n) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W, vectors_end = n - n % W;
    if (i < vectors_end) {
        update<W>(master + i, m + i, v + i, param + i, grad + i, a, inv_bias1, inv_bias2);
    } else if (i = vectors_end + (i - vectors_end) / W, i < n) {
        update<1>(master + i, m + i, v + i, param + i, grad + i, a, inv_bias1, inv_bias2);
    }
}

void cuda_adamw(float *master, float *m, float *v, void *param, const float *grad,
                const AdamwStep *step, int64_t n, Stream *stream) {
    if (n == 0) return;
    with_width(aligned16({master, m, v, param, grad}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        int64_t threads = n / W + n % W;
        adamw_kernel<W><<<(unsigned)ceil_div(threads, THREADS), THREADS, 0, stream->s>>>(
            master, m, v, (bf16 *)param, grad, *step, 1 / step->bias1, 1 / step->bias2, n);
    });
    CUDA_CHECK_LAUNCH("adamw");
}
