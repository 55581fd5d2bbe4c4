/* reduce.cu: sums in double, and the elementwise casts and additions on flat arrays.
 *
 * A sum has two stages, both in a fixed order: blocks walk x with a stride (4 n bytes, four
 * elements a thread at a time whatever the alignment, so that the order does not depend on it),
 * then one block adds their parts. */
#include "common.cuh"

enum { THREADS = 256, PARTS = 1024 };

template <bool WIDE, bool SQUARES>
static __global__ void part_sums_kernel(double *parts, const float *x, int64_t n) {
    double sum = 0;
    int64_t stride = (int64_t)gridDim.x * THREADS * 4;
#pragma unroll 4
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4; i < n; i += stride) {
        float v[4] = {};
        if (WIDE && i + 4 <= n) {
            load(v, x + i);
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (i + e < n) v[e] = x[i + e];
        }
#pragma unroll
        for (int e = 0; e < 4; e++) sum += SQUARES ? (double)v[e] * (double)v[e] : (double)v[e];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

static __global__ void add_parts_kernel(double *out, const double *parts, int n) {
    double sum = block_sum((int)threadIdx.x < n ? parts[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) *out += sum;
}

template <bool SQUARES>
static void add_sum(double *out, const float *x, int64_t n, const char *op, cudaStream_t stream) {
    if (n == 0) return;
    int blocks = (int)i64_min(PARTS, ceil_div(n, THREADS * 4));
    double *parts = (double *)cuda_scratch_new(blocks * (int64_t)sizeof *parts, op, stream);
    if (parts == NULL) return;
    auto kernel =
        aligned16({x}) ? part_sums_kernel<true, SQUARES> : part_sums_kernel<false, SQUARES>;
    kernel<<<blocks, THREADS, 0, stream>>>(parts, x, n);
    add_parts_kernel<<<1, PARTS, 0, stream>>>(out, parts, blocks);
    CUDA_CHECK_LAUNCH(op);
    cuda_scratch_free(parts, stream);
}

void cuda_sum_f32(double *out, const float *x, int64_t n, Stream *stream) {
    add_sum<false>(out, x, n, "sum_f32", stream->s);
}

void cuda_sum_squares(double *out, const float *x, int64_t n, Stream *stream) {
    add_sum<true>(out, x, n, "sum_squares", stream->s);
}

/* Words `pair` * 2 and the next of x; zeros behind the end. */
template <bool WIDE>
static __device__ ulonglong2 load_words(const unsigned char *x, int64_t bytes, int64_t pair) {
    if (WIDE && 16 * (pair + 1) <= bytes) return reinterpret_cast<const ulonglong2 *>(x)[pair];
    unsigned long long word[2] = {};
    for (int64_t b = 16 * pair; b < bytes && b < 16 * (pair + 1); b++)
        word[b / 8 % 2] |= (unsigned long long)x[b] << b % 8 * 8;
    return make_ulonglong2(word[0], word[1]);
}

/* Reads x once, 16 bytes a thread at a time. The sum is of integers: atomics keep it exact. */
template <bool WIDE>
static __global__ void checksum_kernel(unsigned long long *out, const unsigned char *x,
                                       int64_t bytes) {
    unsigned long long sum = 0;
    int64_t stride = (int64_t)gridDim.x * THREADS, words = (bytes + 7) / 8;
#pragma unroll 4
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; 2 * i < words; i += stride) {
        ulonglong2 v = load_words<WIDE>(x, bytes, i);
        sum += checksum_mix(v.x, 2 * i);
        if (2 * i + 1 < words) sum += checksum_mix(v.y, 2 * i + 1);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) atomicAdd(out, sum);
}

void cuda_checksum(uint64_t *out, const void *x, int64_t bytes, Stream *stream) {
    if (bytes == 0) return;
    int blocks = (int)i64_min(PARTS, ceil_div(bytes, THREADS * 16));
    auto kernel = aligned16({x}) ? checksum_kernel<true> : checksum_kernel<false>;
    kernel<<<blocks, THREADS, 0, stream->s>>>((unsigned long long *)out, (const unsigned char *)x,
                                              bytes);
    CUDA_CHECK_LAUNCH("checksum");
}

/* W elements a thread; what is left of n, one each */
template <int W, bool ADD, class T, class U>
static __global__ void map_kernel(T *dst, const U *src, int64_t n) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W, vectors_end = n - n % W;
    if (i < vectors_end) {
        float v[W], old[W] = {};
        load(v, src + i);
        if (ADD) load(old, dst + i);
#pragma unroll
        for (int e = 0; e < W; e++) v[e] += old[e];
        store(dst + i, v);
    } else if (i = vectors_end + (i - vectors_end) / W, i < n) {
        float v[1], old[1] = {};
        load(v, src + i);
        if (ADD) load(old, dst + i);
        v[0] += old[0];
        store(dst + i, v);
    }
}

template <bool ADD, class T, class U>
static void map(T *dst, const U *src, int64_t n, cudaStream_t stream) {
    if (n == 0) return;
    with_width(aligned16({dst, src}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        int64_t blocks = ceil_div(n / W + n % W, THREADS);
        map_kernel<W, ADD><<<(unsigned)blocks, THREADS, 0, stream>>>(dst, src, n);
    });
}

void cuda_cast_f32(void *dst, const float *src, int64_t n, Stream *stream) {
    map<false>((bf16 *)dst, src, n, stream->s);
    CUDA_CHECK_LAUNCH("cast_f32");
}

void cuda_add_f32(float *dst, const float *src, int64_t n, Stream *stream) {
    map<true>(dst, src, n, stream->s);
    CUDA_CHECK_LAUNCH("add_f32");
}

void cuda_widen(float *dst, const void *src, bool add, int64_t n, Stream *stream) {
    (add ? map<true, float, bf16> : map<false, float, bf16>)(dst, (const bf16 *)src, n, stream->s);
    CUDA_CHECK_LAUNCH("widen");
}
