/* rope.cu: q | k | v of the fused projection taken apart and q, k rotated by their positions; and
 * the way back for the gradients, the same rotation by the negative angle.
 *
 * The pair (i, i + D/2) of a head turns by position inv_freq[i]: (a, b) -> (a cos - b sin,
 * b cos + a sin). A block per row: cosines and sines once in shared memory for all heads, in full
 * fp32 precision (positions reach 10^5, where fast sines lose all digits); then W pairs a thread.
 * Bytes: 4 S (H+2K) D forward, 6 S (H+2K) D backward (gradients come in fp32). */
#include "common.cuh"

/* joined[S, H+2K, D] bf16; q[S,H,D] and kv[S,2K,D]: bf16 forward, fp32 backward. absmax: of joined,
 * backward only; NULL: not wanted */
template <int W, bool BACKWARD, class T>
static __global__ void __launch_bounds__(1024)
    rope_kernel(bf16 *joined, float *absmax, T *q, T *kv, const int32_t *positions,
                const float *inv_freq, int H, int K, int D) {
    extern __shared__ float cosine[];
    int half = D / 2, per_head = half / W, heads = H + 2 * K;
    float *sine = cosine + half;
    int64_t row = blockIdx.x;
    unsigned max = 0;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float s, c;
        sincosf((float)positions[row] * inv_freq[i], &s, &c);
        cosine[i] = c;
        sine[i] = BACKWARD ? -s : s;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < heads * per_head; item += blockDim.x) {
        int head = item / per_head, i = item % per_head * W;
        bf16 *one = joined + (row * heads + head) * D + i;
        T *two = head < H ? q + (row * H + head) * D + i : kv + (row * 2 * K + head - H) * D + i;
        float a[W], b[W];
        if (BACKWARD) {
            load(a, two);
            load(b, two + half);
        } else {
            load(a, one);
            load(b, one + half);
        }
        if (head < H + K) { /* not v */
#pragma unroll
            for (int e = 0; e < W; e++) {
                float c = cosine[i + e], s = sine[i + e], old = a[e];
                a[e] = old * c - b[e] * s;
                b[e] = b[e] * c + old * s;
            }
        }
        if (BACKWARD) {
            store(one, a);
            store(one + half, b);
            max = absmax_of(absmax_of(max, a), b);
        } else {
            store(two, a);
            store(two + half, b);
        }
    }
    if (BACKWARD && absmax != NULL) raise_absmax(absmax, max);
}

template <bool BACKWARD, class T>
static void launch(bf16 *joined, float *absmax, T *q, T *kv, const Rope *r, cudaStream_t stream) {
    if (r->S == 0) return;
    with_width(r->D % 16 == 0 && aligned16({joined, q, kv}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        int threads = row_threads((int64_t)(r->H + 2 * r->K) * (r->D / 2 / W));
        rope_kernel<W, BACKWARD><<<(unsigned)r->S, threads, r->D * sizeof(float), stream>>>(
            joined, absmax, q, kv, r->positions, r->inv_freq, r->H, r->K, r->D);
    });
}

void cuda_rope_split_fwd(void *q, void *kv, const void *qkv, const Rope *rope, Stream *stream) {
    launch<false>((bf16 *)qkv, NULL, (bf16 *)q, (bf16 *)kv, rope, stream->s);
    CUDA_CHECK_LAUNCH("rope_split_fwd");
}

void cuda_rope_split_bwd(void *dqkv, float *absmax, const float *dq, const float *dkv,
                         const Rope *rope, Stream *stream) {
    launch<true>((bf16 *)dqkv, absmax, (float *)dq, (float *)dkv, rope, stream->s);
    CUDA_CHECK_LAUNCH("rope_split_bwd");
}
