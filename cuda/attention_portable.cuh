/* attention_portable.cuh: attention over a band list with mma.sync, for sm_80 and newer and any
 * head_dim that is a multiple of 16 up to 128: what its forward and backward share. The oracle of
 * the faster kernels, and what other devices run.
 *
 * Tiles of 64 x 64, four warps of 16 rows; operands in shared memory with the 16-byte chunks of a
 * row swizzled against bank conflicts, two stages filled by cp.async. head_dim is padded to DP (64
 * or 128) with zeros. */
#ifndef CRIA_CUDA_ATTENTION_PORTABLE_CUH
#define CRIA_CUDA_ATTENTION_PORTABLE_CUH

#include <cuda_bf16.h>

#include "attention.h"
#include "ptx.cuh"

using bf16 = __nv_bfloat16;
static constexpr int TILE = 64, THREADS = 128;

struct Params {
    bf16 *o;
    float *o_acc, *lse_out, *dq, *dkv;
    const bf16 *q, *kv, *d_o;
    const float *lse, *delta;
    AttnList list;
    RemoteKv remote;
    int local_keys, first_remote;
    int Sq, Sk, H, K, D;
    float scale;
    bool resume, accumulate;
};

/* ---- tiles ----------------------------------------------------------------------------------- */

template <int DP>
static __device__ __forceinline__ uint32_t chunk_at(const bf16 *tile, int row, int chunk) {
    return smem_addr(tile) + row * DP * 2 + ((chunk ^ (row & 7)) << 4);
}

/* tile[64, DP] = x[row0 .. row0 + 64, D], asynchronously; zeros outside [0, n_rows) and past D. */
template <int DP>
static __device__ void load_tile(bf16 *tile, const bf16 *x, int64_t stride, int row0, int n_rows,
                                 int D) {
    for (int i = threadIdx.x; i < TILE * DP / 8; i += THREADS) {
        int r = i / (DP / 8), chunk = i % (DP / 8), row = row0 + r;
        bool inside = row < n_rows && chunk * 8 < D;
        const bf16 *from = inside ? x + row * stride + chunk * 8 : x;
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(chunk_at<DP>(tile, r, chunk)),
            "l"(from), "r"(inside ? 16 : 0)
            : "memory");
    }
}

/* tile[64, DP] = keys from `row` on, `offset` elements into each row of kv. */
template <int DP>
static __device__ void load_keys(bf16 *tile, const Params &p, int offset, int row) {
    const int64_t stride = (int64_t)2 * p.K * p.D;
    const bool local = row < p.first_remote;
    const bf16 *kv = (local ? p.kv : (const bf16 *)p.remote.kv) + offset;
    int rows = local ? p.local_keys : p.Sk - p.first_remote;
    load_tile<DP>(tile, kv, stride, local ? row : row - p.first_remote, rows, p.D);
}
static __device__ __forceinline__ void load_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> static __device__ __forceinline__ void load_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* d[16, 8N] = a[this warp's 16 rows, DP] b[8N rows from b_row on, DP]^T. Accumulators: lane (g =
 * lane / 4, t = lane % 4) holds rows g (elements 0, 1) and g + 8 (2, 3) at columns 8i + 2t, + 1. */
template <int DP, int N>
static __device__ void product_nt(float (&d)[N][4], const bf16 *a, const bf16 *b, int b_row = 0) {
    const int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16;
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) d[i][e] = 0;
#pragma unroll
    for (int k = 0; k < DP / 16; k++) {
        uint32_t x[4], y[4];
        ldmatrix(x, chunk_at<DP>(a, row0 + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            int row = b_row + 16 * i + lane / 16 * 8 + lane % 8;
            ldmatrix(y, chunk_at<DP>(b, row, 2 * k + lane / 8 % 2));
            mma_bf16(d[2 * i], x, y[0], y[1]);
            mma_bf16(d[2 * i + 1], x, y[2], y[3]);
        }
    }
}

/* d[16, DP] += bf16(p[16, 8N]) b[8N rows from b_row on, DP] */
template <int DP, int N>
static __device__ void product_nn(float (&d)[DP / 8][4], const float (&p)[N][4], const bf16 *b,
                                  int b_row = 0) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t x[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                         pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                         pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int i = 0; i < DP / 16; i++) {
            uint32_t y[4];
            ldmatrix_trans(y, chunk_at<DP>(b, b_row + 16 * k + lane % 16, 2 * i + lane / 16));
            mma_bf16(d[2 * i], x, y[0], y[1]);
            mma_bf16(d[2 * i + 1], x, y[2], y[3]);
        }
    }
}

/* Walks the steps of a tile's runs. */
struct Walk {
    const AttnRun *run;
    int left, j; /* runs after this one; step of this one */
    __device__ Walk(const AttnList &list, const AttnTile &tile)
        : run(list.runs + tile.run_begin), left(tile.run_end - tile.run_begin), j(0) {}
    __device__ bool more() const { return left > 0; }
    __device__ int column() const { return run->first + j * TILE; }
    __device__ bool masked() const { return j < run->full_begin || j >= run->full_end; }
    __device__ void next() {
        if (++j == run->n_steps) {
            run++;
            left--;
            j = 0;
        }
    }
};

/* s: 8N columns from `column` of the step on */
template <int N>
static __device__ void mask(float (&s)[N][4], const Walk &at, int row, int t, int column = 0) {
    if (!at.masked()) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int begin, end;
        band_limits(at.run->band, row + 8 * r, at.column() + column + 2 * t, &begin, &end);
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * i + e < begin || 8 * i + e >= end) s[i][2 * r + e] = -INFINITY;
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static void launch(void (*kernel)(const Params), const Params &p, int heads, int tiles_in_shared,
                   cudaStream_t stream) {
    if (p.list.n_tiles == 0) return;
    int bytes = tiles_in_shared * TILE * (p.D <= 64 ? 64 : 128) * 2;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<dim3((unsigned)p.list.n_tiles, (unsigned)heads), THREADS, bytes, stream>>>(p);
}

static Params params_of(const AttnWork *work, const void *q, const void *kv) {
    AttnShape s = work->shape;
    Params p = {};
    p.q = (const bf16 *)q;
    p.kv = (const bf16 *)kv;
    p.Sq = (int)s.Sq;
    p.Sk = (int)s.Sk;
    p.H = s.H;
    p.K = s.K;
    p.D = s.D;
    p.scale = s.scale;
    p.remote = work->remote;
    p.local_keys = attn_local_keys(work);
    p.first_remote = attn_first_remote(work);
    return p;
}

#endif
