/* attention_portable.cu: attention over a band list with mma.sync, for sm_80 and newer and any
 * head_dim that is a multiple of 16 up to 128. The oracle of the faster kernels, and what other
 * devices run.
 *
 * Tiles of 64 x 64, four warps of 16 rows; operands in shared memory with the 16-byte chunks of a
 * row swizzled against bank conflicts, two stages filled by cp.async. head_dim is padded to DP (64
 * or 128) with zeros. The backward is two kernels, so that every output has one owner and nothing
 * is reduced across CTAs: key tiles own dk and dv, query tiles own dq (7 products instead of 5, but
 * the same bits every time). */
#include "attention.h"

#include <cuda_bf16.h>

namespace {

using bf16 = __nv_bfloat16;
constexpr int TILE = 64, THREADS = 128;
constexpr float LOG2E = 1.44269504f;

struct Params {
    bf16 *o;
    float *o_acc, *lse_out, *dq, *dkv;
    const bf16 *q, *kv, *d_o;
    const float *lse, *delta;
    AttnList list;
    AttnSources sources;
    int own_keys, first_source;
    int Sq, Sk, H, K, D;
    float scale;
    bool resume, accumulate;
};

/* ---- tiles ----------------------------------------------------------------------------------- */

__device__ __forceinline__ uint32_t shared_addr(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

template <int DP>
__device__ __forceinline__ uint32_t chunk_at(const bf16 *tile, int row, int chunk) {
    return shared_addr(tile) + row * DP * 2 + ((chunk ^ (row & 7)) << 4);
}

/* tile[64, DP] = x[row0 .. row0 + 64, D], asynchronously; zeros outside [0, n_rows) and past D. */
template <int DP>
__device__ void load_tile(bf16 *tile, const bf16 *x, int64_t stride, int row0, int n_rows, int D) {
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
template <int DP> __device__ void load_keys(bf16 *tile, const Params &p, int offset, int row) {
    const int64_t stride = (int64_t)2 * p.K * p.D;
    const bool own = row < p.first_source;
    const bf16 *kv = (own ? p.kv : (const bf16 *)p.sources.kv) + offset;
    int rows = own ? p.own_keys : p.Sk - p.first_source;
    load_tile<DP>(tile, kv, stride, own ? row : row - p.first_source, rows, p.D);
}
__device__ __forceinline__ void load_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> __device__ __forceinline__ void load_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t pack(float lo, float hi) {
    __nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
    return *(uint32_t *)&x;
}

/* d[16, 8N] = a[this warp's 16 rows, DP] b[8N rows from b_row on, DP]^T. Accumulators: lane (g =
 * lane / 4, t = lane % 4) holds rows g (elements 0, 1) and g + 8 (2, 3) at columns 8i + 2t, + 1. */
template <int DP, int N>
__device__ void product_nt(float (&d)[N][4], const bf16 *a, const bf16 *b, int b_row = 0) {
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
            mma(d[2 * i], x, y[0], y[1]);
            mma(d[2 * i + 1], x, y[2], y[3]);
        }
    }
}

/* d[16, DP] += bf16(p[16, 8N]) b[8N rows from b_row on, DP] */
template <int DP, int N>
__device__ void product_nn(float (&d)[DP / 8][4], const float (&p)[N][4], const bf16 *b,
                           int b_row = 0) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t x[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]),
                         pack(p[2 * k + 1][0], p[2 * k + 1][1]),
                         pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int i = 0; i < DP / 16; i++) {
            uint32_t y[4];
            ldmatrix_trans(y, chunk_at<DP>(b, b_row + 16 * k + lane % 16, 2 * i + lane / 16));
            mma(d[2 * i], x, y[0], y[1]);
            mma(d[2 * i + 1], x, y[2], y[3]);
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
__device__ void mask(float (&s)[N][4], const Walk &at, int row, int t, int column = 0) {
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

/* ---- forward: one CTA per (query tile, head) ------------------------------------------------- */

template <int DP> __global__ void __launch_bounds__(THREADS) fwd_kernel(const Params p) {
    extern __shared__ __align__(128) uint8_t raw[];
    bf16 *sq = (bf16 *)raw, *sk = sq + TILE * DP, *sv = sk + 2 * TILE * DP;
    const AttnTile tile = p.list.tiles[blockIdx.x];
    const int head = blockIdx.y, kv_head = head / (p.H / p.K);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tile_row = threadIdx.x / 32 * 16 + g;
    const int64_t q_stride = (int64_t)p.H * p.D;
    const int k = kv_head * p.D, v = k + p.K * p.D; /* in a row of kv */
    const float c = p.scale * LOG2E;
    float o[DP / 8][4], m[2], l[2];

#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = tile_row + 8 * r;
        bool old = p.resume && row < tile.rows;
        float lse = old ? p.lse_out[(int64_t)head * p.Sq + tile.row0 + row] : -INFINITY;
        m[r] = lse / p.scale;
        l[r] = lse > -INFINITY && t == 0 ? 1.0f : 0.0f;
        const float *from = p.o_acc + (tile.row0 + row) * q_stride + head * p.D + 2 * t;
#pragma unroll
        for (int i = 0; i < DP / 8; i++) {
            float2 x = old && 8 * i < p.D ? *(const float2 *)(from + 8 * i) : make_float2(0, 0);
            o[i][2 * r] = x.x;
            o[i][2 * r + 1] = x.y;
        }
    }

    int arrived = 0; /* sources */
    auto load_kv = [&](const Walk &at, int stage) {
        wait_for_sources(p.sources, at.column(), &arrived);
        load_keys<DP>(sk + stage * TILE * DP, p, k, at.column());
        load_keys<DP>(sv + stage * TILE * DP, p, v, at.column());
        load_commit();
    };
    Walk at(p.list, tile), ahead = at;
    if (at.more()) {
        load_tile<DP>(sq, p.q + head * p.D, q_stride, tile.row0, p.Sq, p.D);
        load_kv(ahead, 0);
        ahead.next();
    }
    for (int stage = 0; at.more(); at.next(), stage ^= 1) {
        if (ahead.more()) {
            load_kv(ahead, stage ^ 1);
            ahead.next();
            load_wait<1>();
        } else {
            load_wait<0>();
        }
        __syncthreads();
        float s[8][4];
        product_nt<DP>(s, sq, sk + stage * TILE * DP);
        mask(s, at, tile.row0 + tile_row, t);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = m[r];
#pragma unroll
            for (int i = 0; i < 8; i++) top = fmaxf(top, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
            float base = top == -INFINITY ? 0 : top * c;
            float factor = exp2f(m[r] * c - base);
            m[r] = top;
            l[r] *= factor;
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    s[i][2 * r + e] = exp2f(s[i][2 * r + e] * c - base);
                    l[r] += s[i][2 * r + e];
                }
#pragma unroll
            for (int i = 0; i < DP / 8; i++) {
                o[i][2 * r] *= factor;
                o[i][2 * r + 1] *= factor;
            }
        }
        product_nn<DP>(o, s, sv + stage * TILE * DP);
        __syncthreads();
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(0xffffffff, l[r], 1);
        l[r] += __shfl_xor_sync(0xffffffff, l[r], 2);
        int row = tile_row + 8 * r;
        if (row >= tile.rows) continue;
        float inverse = l[r] > 0 ? 1 / l[r] : 0;
        if (t == 0)
            p.lse_out[(int64_t)head * p.Sq + tile.row0 + row] =
                l[r] > 0 ? m[r] * p.scale + logf(l[r]) : -INFINITY;
        int64_t to = (tile.row0 + row) * q_stride + head * p.D + 2 * t;
#pragma unroll
        for (int i = 0; i < DP / 8; i++) {
            if (8 * i >= p.D) continue;
            float x = o[i][2 * r] * inverse, y = o[i][2 * r + 1] * inverse;
            if (p.o_acc) *(float2 *)(p.o_acc + to + 8 * i) = make_float2(x, y);
            if (p.o) *(uint32_t *)(p.o + to + 8 * i) = pack(x, y);
        }
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* dst (+)= src for this lane's row of an accumulator */
template <int DP>
__device__ void store_row(float *dst, const float (&x)[DP / 8][4], int r, int D, bool add) {
#pragma unroll
    for (int i = 0; i < DP / 8; i++) {
        if (8 * i >= D) continue;
        float2 *to = (float2 *)(dst + 8 * i);
        float2 old = add ? *to : make_float2(0, 0);
        *to = make_float2(x[i][2 * r] + old.x, x[i][2 * r + 1] + old.y);
    }
}

/* dk and dv: one CTA per (key tile, KV head), over the group's heads; everything is transposed, so
 * that P^T and dS^T are A operands. */
template <int DP> __global__ void __launch_bounds__(THREADS) bwd_kv_kernel(const Params p) {
    extern __shared__ __align__(128) uint8_t raw[];
    bf16 *sk = (bf16 *)raw, *sv = sk + TILE * DP, *sq = sv + TILE * DP, *sdo = sq + 2 * TILE * DP;
    __shared__ float lse[2][TILE], delta[2][TILE];
    const AttnTile tile = p.list.tiles[blockIdx.x];
    const int kv_head = blockIdx.y, group = p.H / p.K;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tile_key = threadIdx.x / 32 * 16 + g;
    const int64_t q_stride = (int64_t)p.H * p.D;
    const float c = p.scale * LOG2E;
    float dk[DP / 8][4] = {}, dv[DP / 8][4] = {};

#pragma unroll 1
    for (int i = 0; i < 2; i++) /* K and V; unrolled it takes a register too many */
        load_keys<DP>(sk + i * TILE * DP, p, (i * p.K + kv_head) * p.D, tile.row0);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        auto load_q = [&](const Walk &at, int stage) {
            load_tile<DP>(sq + stage * TILE * DP, p.q + head * p.D, q_stride, at.column(), p.Sq,
                          p.D);
            load_tile<DP>(sdo + stage * TILE * DP, p.d_o + head * p.D, q_stride, at.column(), p.Sq,
                          p.D);
            load_commit();
            if (threadIdx.x < TILE) { /* rows outside the band: lse = inf, so P = 0 */
                int row = at.column() + threadIdx.x;
                bool inside = row < at.run->band.k_end;
                float x = inside ? p.lse[(int64_t)head * p.Sq + row] : -INFINITY;
                lse[stage][threadIdx.x] = x == -INFINITY ? INFINITY : x * LOG2E;
                delta[stage][threadIdx.x] = inside ? p.delta[(int64_t)head * p.Sq + row] : 0;
            }
        };
        Walk at(p.list, tile), ahead = at;
        if (at.more()) {
            load_q(ahead, 0);
            ahead.next();
        }
        for (int stage = 0; at.more(); at.next(), stage ^= 1) {
            if (ahead.more()) {
                load_q(ahead, stage ^ 1);
                ahead.next();
                load_wait<1>();
            } else {
                load_wait<0>();
            }
            __syncthreads();
#pragma unroll 1
            for (int half = 0; half < TILE;
                 half += TILE / 2) { /* all at once needs too many registers */
                float s[4][4], ds[4][4];
                product_nt<DP>(s, sk, sq + stage * TILE * DP, half);
                mask(s, at, tile.row0 + tile_key, t, half);
                product_nt<DP>(ds, sv, sdo + stage * TILE * DP, half);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int row = half + 8 * i + 2 * t + e % 2;
                        s[i][e] = exp2f(s[i][e] * c - lse[stage][row]);
                        ds[i][e] = p.scale * s[i][e] * (ds[i][e] - delta[stage][row]);
                    }
                product_nn<DP>(dv, s, sdo + stage * TILE * DP, half);
                product_nn<DP>(dk, ds, sq + stage * TILE * DP, half);
            }
            __syncthreads();
        }
    }
    load_wait<0>();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = tile_key + 8 * r;
        if (row >= tile.rows) continue;
        float *to = p.dkv + (int64_t)(tile.row0 + row) * 2 * p.K * p.D + kv_head * p.D + 2 * t;
        store_row<DP>(to, dk, r, p.D, p.accumulate);
        store_row<DP>(to + p.K * p.D, dv, r, p.D, p.accumulate);
    }
}

/* dq: one CTA per (query tile, head) */
template <int DP> __global__ void __launch_bounds__(THREADS) bwd_q_kernel(const Params p) {
    extern __shared__ __align__(128) uint8_t raw[];
    bf16 *sq = (bf16 *)raw, *sdo = sq + TILE * DP, *sk = sdo + TILE * DP, *sv = sk + 2 * TILE * DP;
    const AttnTile tile = p.list.tiles[blockIdx.x];
    const int head = blockIdx.y, kv_head = head / (p.H / p.K);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int tile_row = threadIdx.x / 32 * 16 + g;
    const int64_t q_stride = (int64_t)p.H * p.D;
    const int k = kv_head * p.D, v = k + p.K * p.D; /* in a row of kv */
    const float c = p.scale * LOG2E;
    float dq[DP / 8][4] = {}, lse[2], delta[2];

#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = tile_row + 8 * r;
        int64_t from = (int64_t)head * p.Sq + tile.row0 + row;
        float x = row < tile.rows ? p.lse[from] : -INFINITY;
        lse[r] = x == -INFINITY ? INFINITY : x * LOG2E;
        delta[r] = row < tile.rows ? p.delta[from] : 0;
    }
    auto load_kv = [&](const Walk &at, int stage) {
        load_keys<DP>(sk + stage * TILE * DP, p, k, at.column());
        load_keys<DP>(sv + stage * TILE * DP, p, v, at.column());
        load_commit();
    };
    Walk at(p.list, tile), ahead = at;
    if (at.more()) {
        load_tile<DP>(sq, p.q + head * p.D, q_stride, tile.row0, p.Sq, p.D);
        load_tile<DP>(sdo, p.d_o + head * p.D, q_stride, tile.row0, p.Sq, p.D);
        load_kv(ahead, 0);
        ahead.next();
    }
    for (int stage = 0; at.more(); at.next(), stage ^= 1) {
        if (ahead.more()) {
            load_kv(ahead, stage ^ 1);
            ahead.next();
            load_wait<1>();
        } else {
            load_wait<0>();
        }
        __syncthreads();
        float s[8][4], ds[8][4];
        product_nt<DP>(s, sq, sk + stage * TILE * DP);
        mask(s, at, tile.row0 + tile_row, t);
        product_nt<DP>(ds, sdo, sv + stage * TILE * DP);
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                ds[i][e] = p.scale * exp2f(s[i][e] * c - lse[e / 2]) * (ds[i][e] - delta[e / 2]);
        product_nn<DP>(dq, ds, sk + stage * TILE * DP);
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = tile_row + 8 * r;
        if (row < tile.rows)
            store_row<DP>(p.dq + (tile.row0 + row) * q_stride + head * p.D + 2 * t, dq, r, p.D,
                          p.accumulate);
    }
}

/* The backward's two passes begin when all keys are there, and end before any gradient leaves. */
__global__ void arrival_kernel(const AttnSources sources) {
    for (int i = 0; i < sources.n; i++) wait_for_arrival(&sources.arrived[i]);
}
__global__ void departure_kernel(const AttnSources sources) {
    for (int i = 0; i < sources.n; i++) announce_departure(&sources.departed[i]);
}

void launch(void (*kernel)(const Params), const Params &p, int heads, int tiles_in_shared,
            cudaStream_t stream) {
    if (p.list.n_tiles == 0) return;
    int bytes = tiles_in_shared * TILE * (p.D <= 64 ? 64 : 128) * 2;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    kernel<<<dim3((unsigned)p.list.n_tiles, (unsigned)heads), THREADS, bytes, stream>>>(p);
}

Params params_of(const AttnWork *work, const void *q, const void *kv) {
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
    p.sources = work->sources;
    p.own_keys = attn_own_keys(work);
    p.first_source = attn_first_source(work);
    return p;
}

} /* namespace */

void attn_portable_grids(AttnGrid *by_q, AttnGrid *by_k) {
    *by_q = *by_k = AttnGrid{TILE, TILE};
}

void attn_portable_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                       const AttnWork *work, bool resume, cudaStream_t stream) {
    Params p = params_of(work, q, kv);
    p.o = (bf16 *)o;
    p.o_acc = o_acc;
    p.lse_out = lse;
    p.resume = resume;
    p.list = work->by_q;
    if (resume && !o) p.list.n_tiles = p.list.n_busy; /* other rows stay as they are */
    launch(p.D <= 64 ? fwd_kernel<64> : fwd_kernel<128>, p, p.H, 5, stream);
}

void attn_portable_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                       const float *lse, const float *delta, const AttnWork *work,
                       bool accumulate_dq, bool accumulate_dkv, cudaStream_t stream) {
    Params p = params_of(work, q, kv);
    p.d_o = (const bf16 *)d_o;
    p.lse = lse;
    p.delta = delta;
    p.dq = dq;
    p.dkv = dkv;
    p.list = work->by_k;
    p.accumulate = accumulate_dkv;
    if (accumulate_dkv) p.list.n_tiles = p.list.n_busy;
    if (p.sources.n) arrival_kernel<<<1, 1, 0, stream>>>(p.sources);
    launch(p.D <= 64 ? bwd_kv_kernel<64> : bwd_kv_kernel<128>, p, p.K, 6, stream);
    p.list = work->by_q;
    p.accumulate = accumulate_dq;
    if (accumulate_dq) p.list.n_tiles = p.list.n_busy;
    launch(p.D <= 64 ? bwd_q_kernel<64> : bwd_q_kernel<128>, p, p.H, 6, stream);
    if (p.sources.n) departure_kernel<<<1, 1, 0, stream>>>(p.sources);
}
