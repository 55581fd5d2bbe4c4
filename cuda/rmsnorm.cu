/* rmsnorm.cu: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradient.
 *
 * Forward, 4 S C bytes: a block per row; the second pass over the row finds it in L1. (Blocks that
 * walk rows and fetch the next one early ran at 73 % of a copy's rate, these at 82 %.)
 * Backward, with n = x rstd:  dx = dres + rstd (w dy - n mean(w dy n)),  dw += sum over rows dy n.
 * 6 to 10 S C bytes. A few blocks per SM walk rows; a thread always holds the same columns, so that
 * the block's part of dw grows without a barrier. The parts ([blocks, C], 4 % of the bytes at S =
 * 8192) are added by a second kernel in block order. A row that a block holds with 8 elements a
 * thread stays in registers, and the next one is on its way while this one's sum goes round the
 * block: memory would stand still meanwhile (96 % of a copy's rate, 80 % without). Wider rows are
 * read twice, the second time from L1, and their dw grows in shared memory. */
#include "common.cuh"

enum {
    ROW_COLUMNS_MAX = 8 * 1024, /* of the backward that holds a row in registers */
    BWD_THREADS_A_SM = 1024
};

/* Also what the backward writes again, hence one expression for both: the same bits. */
template <int W>
static __device__ __forceinline__ void normed(float (&y)[W], const float (&x)[W],
                                              const float (&w)[W], float rstd) {
#pragma unroll
    for (int i = 0; i < W; i++) y[i] = x[i] * rstd * w[i];
}

template <int W>
static __global__ void __launch_bounds__(1024)
    rmsnorm_fwd_kernel(bf16 *y, float *rstd, float *absmax, const bf16 *x, const bf16 *w, int C,
                       float eps) {
    int64_t at = (int64_t)blockIdx.x * C;
    unsigned max = 0;
    float sum = 0;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float v[W];
        load(v, x + at + c);
#pragma unroll
        for (int i = 0; i < W; i++) sum += v[i] * v[i];
    }
    float r = 1.0f / sqrtf(block_sum(sum) / (float)C + eps);
    if (rstd != NULL && threadIdx.x == 0) rstd[blockIdx.x] = r;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float v[W], weight[W];
        load(v, x + at + c);
        load(weight, w + c);
        normed(v, v, weight, r);
        store(y + at + c, v);
        if (absmax != NULL) max = absmax_of(max, v);
    }
    if (absmax != NULL) raise_absmax(absmax, max);
}

/* As rmsnorm_bwd_kernel, for a row of at most 8 columns a thread, C a multiple of 8. */
static __global__ void __launch_bounds__(1024) rmsnorm_bwd_row_kernel(RmsnormBwd a, float *parts) {
    int C = a.C, c = threadIdx.x * 8;
    bool inside = c < C;
    const bf16 *dy = (const bf16 *)a.dy + c, *x = (const bf16 *)a.x + c,
               *dres = (const bf16 *)a.dres + c;
    float dw[8] = {}, next_r = 0;
    uint4 weight = {}, next_dy = {}, next_x = {}, next_dres = {};
    unsigned max = 0;
    auto fetch = [&](int64_t s) {
        next_r = a.rstd[s];
        if (!inside) return;
        next_dy = load_raw(dy + s * C);
        next_x = load_raw(x + s * C);
        if (a.dres != NULL) next_dres = load_raw(dres + s * C);
    };
    if (inside) weight = load_raw((const bf16 *)a.w + c);
    if (blockIdx.x < a.S) fetch(blockIdx.x);
    for (int64_t s = blockIdx.x; s < a.S; s += gridDim.x) {
        uint4 row_dy = next_dy, row_x = next_x,
              row_dres = next_dres; /* 16 bits a number: registers */
        float g[8], v[8], w[8], r = next_r, dot = 0;
        if (s + gridDim.x < a.S) fetch(s + gridDim.x);
        widen(g, row_dy);
        widen(v, row_x);
        widen(w, weight);
#pragma unroll
        for (int i = 0; i < 8; i++) dot += w[i] * g[i] * v[i];
        float slope = block_sum(dot) * r * r / (float)C;
        if (!inside) continue;
        float out[8];
        widen(g, row_dy);
        widen(v, row_x);
        widen(w, weight);
        widen(out, row_dres); /* zeros where there is none */
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out[i] += r * (w[i] * g[i] - v[i] * slope);
            dw[i] += g[i] * (v[i] * r);
        }
        store((bf16 *)a.dx + s * C + c, out);
        if (a.absmax != NULL) max = absmax_of(max, out);
        if (a.y == NULL) continue;
        normed(v, v, w, r);
        store((bf16 *)a.y + s * C + c, v);
    }
    if (a.absmax != NULL) raise_absmax(a.absmax, max);
    if (inside) store(parts + (int64_t)blockIdx.x * C + c, dw);
}

/* dres may be dx: a thread reads an element before it writes it, and a block its row. */
template <int W>
static __global__ void __launch_bounds__(1024)
    rmsnorm_bwd_kernel(bf16 *dx, float *absmax, float *parts, bf16 *y, const bf16 *dy,
                       const bf16 *x, const bf16 *w, const float *rstd, const bf16 *dres, int64_t S,
                       int C) {
    unsigned max = 0;
    extern __shared__ float4 shared[];
    float *dw = (float *)shared; /* [C], every thread its own columns */
    const float zero[W] = {};
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) store(dw + c, zero);
    for (int64_t s = blockIdx.x; s < S; s += gridDim.x) {
        int64_t at = s * C;
        float dot = 0;
        for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
            float g[W], v[W], weight[W];
            load(g, dy + at + c);
            load(v, x + at + c);
            load(weight, w + c);
#pragma unroll
            for (int i = 0; i < W; i++) dot += weight[i] * g[i] * v[i];
        }
        float r = rstd[s], slope = block_sum(dot) * r * r / (float)C;
        for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
            float g[W], v[W], weight[W], sum[W], out[W] = {};
            load(g, dy + at + c);
            load(v, x + at + c);
            load(weight, w + c);
            load(sum, dw + c);
            if (dres != NULL) load(out, dres + at + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                out[i] += r * (weight[i] * g[i] - v[i] * slope);
                sum[i] += g[i] * (v[i] * r);
            }
            store(dx + at + c, out);
            store(dw + c, sum);
            if (absmax != NULL) max = absmax_of(max, out);
            if (y == NULL) continue;
            normed(v, v, weight, r);
            store(y + at + c, v);
        }
    }
    if (absmax != NULL) raise_absmax(absmax, max);
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float sum[W];
        load(sum, dw + c);
        store(parts + (int64_t)blockIdx.x * C + c, sum);
    }
}

/* dw[c] += sum of parts[n,C] over n: 32 columns a block; each of 32 warps adds every 32nd part, and
 * the warps' sums are added in order. */
static __global__ void add_parts_kernel(float *dw, const float *parts, int n, int C) {
    __shared__ float sums[32][33];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
    float sum = 0;
    if (c < C)
        for (int i = warp; i < n; i += 32) sum += parts[(int64_t)i * C + c];
    sums[warp][lane] = sum;
    __syncthreads();
    float total = warp_sum(sums[lane][warp]); /* of column `warp` of the block */
    int column = blockIdx.x * 32 + warp;
    if (lane == 0 && column < C) dw[column] += total;
}

void cuda_rmsnorm_fwd(void *y, float *rstd, float *absmax, const void *x, const void *w, int64_t S,
                      int C, float eps, Stream *stream) {
    if (S == 0) return;
    with_width(C % 8 == 0 && aligned16({y, x, w}), [&](auto width) {
        constexpr int W = decltype(width)::value;
        rmsnorm_fwd_kernel<W><<<(unsigned)S, row_threads(C / W), 0, stream->s>>>(
            (bf16 *)y, rstd, absmax, (const bf16 *)x, (const bf16 *)w, C, eps);
    });
    CUDA_CHECK_LAUNCH("rmsnorm_fwd");
}

void cuda_rmsnorm_bwd(const RmsnormBwd *a, Stream *stream) {
    const char *op = "rmsnorm_bwd";
    const int64_t S = a->S;
    const int C = a->C;
    if (S == 0) return;
    bool wide = C % 8 == 0 && aligned16({a->dx, a->y, a->dy, a->x, a->w, a->dres});
    with_width(wide, [&](auto width) {
        constexpr int W = decltype(width)::value;
        int threads = row_threads(C / W);
        int blocks = (int)i64_min(S, (int64_t)cuda_sm_count() * (BWD_THREADS_A_SM / threads));
        int shared = C * (int)sizeof(float);
        float *parts = (float *)cuda_scratch_new((int64_t)blocks * shared, op, stream->s);
        if (parts == NULL) return;
        if (W == 8 && C <= ROW_COLUMNS_MAX) {
            rmsnorm_bwd_row_kernel<<<(unsigned)blocks, threads, 0, stream->s>>>(*a, parts);
            add_parts_kernel<<<(unsigned)ceil_div(C, 32), 1024, 0, stream->s>>>(a->dw, parts,
                                                                                blocks, C);
            cuda_scratch_free(parts, stream->s);
            return;
        }
        /* Static shared memory counts towards the 48 KiB that need no attribute, too. */
        CUDA_CHECK_DEFERRED(cudaFuncSetAttribute(
            rmsnorm_bwd_kernel<W>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
        rmsnorm_bwd_kernel<W><<<(unsigned)blocks, threads, shared, stream->s>>>(
            (bf16 *)a->dx, a->absmax, parts, (bf16 *)a->y, (const bf16 *)a->dy, (const bf16 *)a->x,
            (const bf16 *)a->w, a->rstd, (const bf16 *)a->dres, S, C);
        add_parts_kernel<<<(unsigned)ceil_div(C, 32), 1024, 0, stream->s>>>(a->dw, parts, blocks,
                                                                            C);
        cuda_scratch_free(parts, stream->s);
    });
    CUDA_CHECK_LAUNCH(op);
}
