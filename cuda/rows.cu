/* rows.cu: rows gathered, scattered and summed by index, for what travels between ranks. A warp per
 * row, 16 bytes a lane (4 where rows are no multiple of that): every row is read and written once.
 */
#include "common.cuh"

enum { THREADS = 256 };

template <class T, bool GATHER>
static __global__ void move_rows_kernel(T *dst, const T *src, const int32_t *index, int64_t n,
                                        int64_t width) {
    int64_t i = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (i >= n) return;
    int64_t row = index[i];
    T *to = dst + (GATHER ? i : row) * width;
    const T *from = src + (GATHER ? row : i) * width;
#pragma unroll 4
    for (int64_t c = threadIdx.x % 32; c < width; c += 32) to[c] = from[c];
}

template <int W>
static __global__ void sum_rows_kernel(float *dst, const float *base, const float *src,
                                       const int32_t *begin, const int32_t *from, int64_t n,
                                       int64_t width) {
    int64_t i = (int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (i >= n) return;
    const int first = begin[i], end = begin[i + 1];
    if (first == end && dst == base) return;
    for (int64_t c = threadIdx.x % 32 * W; c < width; c += 32 * W) {
        float sum[W], x[W];
        load(sum, base + i * width + c);
        for (int j = first; j < end; j++) {
            load(x, src + from[j] * width + c);
#pragma unroll
            for (int e = 0; e < W; e++) sum[e] += x[e];
        }
        store(dst + i * width + c, sum);
    }
}

static unsigned blocks_for(int64_t n) {
    return (unsigned)ceil_div(n, THREADS / 32);
}

template <bool GATHER>
static void move_rows(void *dst, const void *src, const int32_t *index, int64_t n,
                      int64_t row_bytes, cudaStream_t stream) {
    if (n == 0 || row_bytes == 0) return;
    if (row_bytes % 16 == 0 && aligned16({dst, src}))
        move_rows_kernel<uint4, GATHER><<<blocks_for(n), THREADS, 0, stream>>>(
            (uint4 *)dst, (const uint4 *)src, index, n, row_bytes / 16);
    else
        move_rows_kernel<uint32_t, GATHER><<<blocks_for(n), THREADS, 0, stream>>>(
            (uint32_t *)dst, (const uint32_t *)src, index, n, row_bytes / 4);
}

void cuda_gather_rows(void *dst, const void *src, const int32_t *index, int64_t n,
                      int64_t row_bytes, Stream *stream) {
    move_rows<true>(dst, src, index, n, row_bytes, stream->s);
    CUDA_CHECK_LAUNCH("gather_rows");
}

void cuda_scatter_rows(void *dst, const void *src, const int32_t *index, int64_t n,
                       int64_t row_bytes, Stream *stream) {
    move_rows<false>(dst, src, index, n, row_bytes, stream->s);
    CUDA_CHECK_LAUNCH("scatter_rows");
}

void cuda_sum_rows(float *dst, const float *base, const float *src, const int32_t *begin,
                   const int32_t *from, int64_t n, int64_t row_floats, Stream *stream) {
    if (n == 0 || row_floats == 0) return;
    with_width(row_floats % 8 == 0 && aligned16({dst, base, src}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        sum_rows_kernel<W>
            <<<blocks_for(n), THREADS, 0, stream->s>>>(dst, base, src, begin, from, n, row_floats);
    });
    CUDA_CHECK_LAUNCH("sum_rows");
}
