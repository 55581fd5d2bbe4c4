/* embedding.cu: x[s] = table[tokens[s]], and its gradient.
 *
 * Forward: a block per row; 4 S C bytes.
 * Backward: dtable[t] += sum of dx[s] over rows s of token t, in row order, without atomics: a
 * stable sort of (token, row) makes the rows of a token neighbours in row order; then one block per
 * row and column stripe, of which those at the first row of a token walk all of its rows. Bytes:
 * 2 S C read, 8 C per distinct token. Eight rows are in flight, so that a token that fills a whole
 * batch costs S / 8 latencies. */
#include "common.cuh"

#include <cub/device/device_radix_sort.cuh>

enum { THREADS = 128, IN_FLIGHT = 8 };

template <int W>
static __global__ void __launch_bounds__(1024)
    embedding_fwd_kernel(bf16 *x, const int32_t *tokens, const bf16 *table, int C) {
    bf16 *to = x + (int64_t)blockIdx.x * C;
    const bf16 *from = table + (int64_t)tokens[blockIdx.x] * C;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float v[W];
        load(v, from + c);
        store(to + c, v);
    }
}

static __global__ void row_numbers_kernel(int32_t *rows, int64_t S) {
    int64_t s = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (s < S) rows[s] = (int32_t)s;
}

template <int W>
static __global__ void embedding_bwd_kernel(float *dtable, const bf16 *dx, const int32_t *tokens,
                                            const int32_t *rows, int64_t S, int C) {
    int64_t i = blockIdx.x;
    int token = tokens[i], c = (blockIdx.y * THREADS + threadIdx.x) * W;
    if ((i > 0 && tokens[i - 1] == token) || c >= C) return;
    float *to = dtable + (int64_t)token * C + c;
    float sum[W];
    load(sum, to);
    while (i < S && tokens[i] == token) {
        int n = 1;
        while (n < IN_FLIGHT && i + n < S && tokens[i + n] == token) n++;
        float v[IN_FLIGHT][W];
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
            if (j < n) load(v[j], dx + (int64_t)rows[i + j] * C + c);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++)
            if (j < n)
#pragma unroll
                for (int e = 0; e < W; e++) sum[e] += v[j][e];
        i += n;
    }
    store(to, sum);
}

void cuda_embedding_fwd(void *x, const int32_t *tokens, const void *table, int64_t S, int C,
                        Stream *stream) {
    if (S == 0) return;
    with_width(C % 8 == 0 && aligned16({x, table}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        embedding_fwd_kernel<W><<<(unsigned)S, row_threads(C / W), 0, stream->s>>>(
            (bf16 *)x, tokens, (const bf16 *)table, C);
    });
    CUDA_CHECK_LAUNCH("embedding_fwd");
}

void cuda_embedding_bwd(float *dtable, const void *dx, const int32_t *tokens, int64_t S, int C,
                        int V, Stream *stream) {
    const char *op = "embedding_bwd";
    if (S == 0) return;
    int bits = 1;
    while ((int64_t)1 << bits < V) bits++;
    size_t sort_bytes = 0;
    int32_t *none = NULL;
    cub::DeviceRadixSort::SortPairs(NULL, sort_bytes, none, none, none, none, (int)S, 0, bits,
                                    stream->s);
    int64_t list = round_up(S, 64); /* elements, which keeps every part 256-byte aligned */
    void *scratch = cuda_scratch_new(3 * list * 4 + (int64_t)sort_bytes, op, stream->s);
    if (scratch == NULL) return;
    int32_t *numbers = (int32_t *)scratch, *sorted = numbers + list, *rows = sorted + list;
    row_numbers_kernel<<<(unsigned)ceil_div(S, THREADS), THREADS, 0, stream->s>>>(numbers, S);
    CUDA_CHECK_DEFERRED(cub::DeviceRadixSort::SortPairs(rows + list, sort_bytes, tokens, sorted,
                                                        numbers, rows, (int)S, 0, bits, stream->s));
    with_width(C % 8 == 0 && aligned16({dtable, dx}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        dim3 grid((unsigned)S, (unsigned)ceil_div(C, THREADS * W));
        embedding_bwd_kernel<W>
            <<<grid, THREADS, 0, stream->s>>>(dtable, (const bf16 *)dx, sorted, rows, S, C);
    });
    CUDA_CHECK_LAUNCH(op);
    cuda_scratch_free(scratch, stream->s);
}
