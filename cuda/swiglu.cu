/* swiglu.cu: h = silu(gate) up with gate_up[S,2F] = gate | up, and its gradient.
 *
 * With s = sigmoid(gate):  dgate = dh up s (1 + gate (1 - s)),  dup = dh gate s.
 * Bytes: 6 S F forward, 10 to 12 S F backward. W elements a thread; THREADS W columns of a row a
 * block. The fast exponential and reciprocal keep it memory-bound; their error (2^-21) vanishes in
 * the rounding to bf16. */
#include "common.cuh"

enum { THREADS = GPU_SWIGLU_THREADS };

static __device__ __forceinline__ float sigmoid(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-x)); /* e^-x past 2^126 gives the 0 that it should */
}

template <int W>
static __global__ void swiglu_fwd_kernel(bf16 *h, float *absmax, const bf16 *gate_up, int F,
                                         int stripes) {
    int64_t row = blockIdx.x / stripes;
    int c = (blockIdx.x % stripes * THREADS + threadIdx.x) * W;
    unsigned max = 0;
    if (c < F) {
        float gate[W], up[W], out[W];
        load(gate, gate_up + row * 2 * F + c);
        load(up, gate_up + row * 2 * F + F + c);
#pragma unroll
        for (int i = 0; i < W; i++) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
        store(h + row * F + c, out);
        max = absmax_of(max, out);
    }
    if (absmax != NULL) raise_absmax(absmax, max);
}

/* dgate_up may be gate_up: a thread reads its elements before it writes them. */
template <int W>
static __global__ void swiglu_bwd_kernel(bf16 *dgate_up, bf16 *h, float *absmax, const bf16 *dh,
                                         const bf16 *gate_up, int F, int stripes) {
    int64_t row = blockIdx.x / stripes;
    int c = (blockIdx.x % stripes * THREADS + threadIdx.x) * W;
    unsigned max = 0;
    if (c < F) {
        float gate[W], up[W], d[W], dgate[W], dup[W], out[W];
        load(gate, gate_up + row * 2 * F + c);
        load(up, gate_up + row * 2 * F + F + c);
        load(d, dh + row * F + c);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float s = sigmoid(gate[i]);
            out[i] = gate[i] * s * up[i];
            dgate[i] = d[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
            dup[i] = d[i] * gate[i] * s;
        }
        store(dgate_up + row * 2 * F + c, dgate);
        store(dgate_up + row * 2 * F + F + c, dup);
        if (h != NULL) store(h + row * F + c, out);
        max = absmax_of(absmax_of(max, dgate), dup);
    }
    if (absmax != NULL) raise_absmax(absmax, max);
}

void cuda_swiglu_fwd(void *h, float *absmax, const void *gate_up, int64_t S, int F,
                     Stream *stream) {
    if (S == 0) return;
    with_width(F % 8 == 0 && aligned16({h, gate_up}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        int stripes = (int)ceil_div(F, THREADS * W);
        swiglu_fwd_kernel<W><<<(unsigned)(S * stripes), THREADS, 0, stream->s>>>(
            (bf16 *)h, absmax, (const bf16 *)gate_up, F, stripes);
    });
    CUDA_CHECK_LAUNCH("swiglu_fwd");
}

void cuda_swiglu_bwd(void *dgate_up, void *h, float *absmax, const void *dh, const void *gate_up,
                     int64_t S, int F, Stream *stream) {
    if (S == 0) return;
    with_width(F % 8 == 0 && aligned16({dgate_up, h, dh, gate_up}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        int stripes = (int)ceil_div(F, THREADS * W);
        swiglu_bwd_kernel<W><<<(unsigned)(S * stripes), THREADS, 0, stream->s>>>(
            (bf16 *)dgate_up, (bf16 *)h, absmax, (const bf16 *)dh, (const bf16 *)gate_up, F,
            stripes);
    });
    CUDA_CHECK_LAUNCH("swiglu_bwd");
}
