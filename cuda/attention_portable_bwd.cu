/* attention_portable_bwd.cu: the portable backward: two kernels, so that every output has one owner
 * and nothing is reduced across CTAs: key tiles own dk and dv, query tiles own dq (7 products
 * instead of 5, but the same bits every time). */
#include "attention_portable.cuh"

namespace {

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
        store_row<DP>(to, dk[0], r, p.D, p.accumulate);
        store_row<DP>(to + p.K * p.D, dv[0], r, p.D, p.accumulate);
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
            store_row<DP>(p.dq + (tile.row0 + row) * q_stride + head * p.D + 2 * t, dq[0], r, p.D,
                          p.accumulate);
    }
}

/* The backward's two passes start when all remote keys are ready; dKV is signalled after both. */
__global__ void wait_kv_ready_kernel(const RemoteKv remote) {
    for (int i = 0; i < remote.n; i++) wait_kv_ready(&remote.kv_ready[i]);
}
__global__ void signal_dkv_done_kernel(const RemoteKv remote) {
    for (int i = 0; i < remote.n; i++) signal_dkv_done(&remote.dkv_done[i]);
}

} /* namespace */

void attn_portable_bwd(const AttnBwd *a, cudaStream_t stream) {
    Params p = params_of(a->work, a->q, a->kv);
    p.d_o = (const bf16 *)a->d_o;
    p.lse = a->lse;
    p.delta = a->delta;
    p.dq = a->dq;
    p.dkv = a->dkv;
    p.list = a->work->by_k;
    p.accumulate = a->accumulate_dkv;
    if (a->accumulate_dkv) p.list.n_tiles = p.list.n_busy;
    if (p.remote.n) wait_kv_ready_kernel<<<1, 1, 0, stream>>>(p.remote);
    launch(p.D <= 64 ? bwd_kv_kernel<64> : bwd_kv_kernel<128>, p, p.K, 6, stream);
    p.list = a->work->by_q;
    p.accumulate = a->accumulate_dq;
    if (a->accumulate_dq) p.list.n_tiles = p.list.n_busy;
    launch(p.D <= 64 ? bwd_q_kernel<64> : bwd_q_kernel<128>, p, p.H, 6, stream);
    if (p.remote.n) signal_dkv_done_kernel<<<1, 1, 0, stream>>>(p.remote);
}
