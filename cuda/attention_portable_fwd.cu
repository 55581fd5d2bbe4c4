/* attention_portable_fwd.cu: the portable forward: one CTA per (query tile, head). */
#include "attention_portable.cuh"

namespace {

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

    int ready = 0; /* remote ranges */
    auto load_kv = [&](const Walk &at, int stage) {
        wait_remote_kv(p.remote, at.column(), &ready);
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
            if (p.o) *(uint32_t *)(p.o + to + 8 * i) = pack_bf16(x, y);
        }
    }
}

} /* namespace */

void attn_portable_grids(AttnGrid *by_q, AttnGrid *by_k) {
    *by_q = *by_k = AttnGrid{TILE, TILE};
}

void attn_portable_fwd(const AttnFwd *a, cudaStream_t stream) {
    Params p = params_of(a->work, a->q, a->kv);
    p.o = (bf16 *)a->o;
    p.o_acc = a->o_acc;
    p.lse_out = a->lse;
    p.resume = a->resume;
    p.list = a->work->by_q;
    if (a->resume && !a->o) p.list.n_tiles = p.list.n_busy; /* other rows keep their values */
    launch(p.D <= 64 ? fwd_kernel<64> : fwd_kernel<128>, p, p.H, 5, stream);
}
