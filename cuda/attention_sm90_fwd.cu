/* attention_sm90_fwd.cu: o = softmax(scale q k^T) v over a band list, on Hopper.
 *
 * Online softmax over tiles of keys (Milakov and Gimelshein, 2018; Dao et al., FlashAttention,
 * 2022); warp specialisation and the overlap of softmax with matrix products as in FlashAttention-3
 * (Shah et al., 2024). 4 D flops per allowed (row, key) pair and head.
 *
 * One persistent CTA per SM. Warpgroup 0 is the producer: one lane takes (tile, head) items from a
 * counter, longest first, and loads Q, then K and V of every step of every run of the tile; beside
 * each K it leaves a Step record, so that consumers see one flat sequence of steps whatever the
 * bands were. Each other warpgroup owns 64 rows: S = Q K^T and O in accumulators, P in registers.
 *   D = 128: S(j) and P(j-1) V are in flight together; the softmax of S(j) covers P(j-1) V.
 *   D = 64 (bound by exponentials, not by the tensor cores): S(j+1) and P(j-1) V both run under the
 *   softmax of S(j), which needs two S buffers.
 * O is rescaled only when a row's maximum grows by more than 2^8: until then the old one serves.
 *
 * TFLOP/s on an H200, 2026-11-22, calls back to back:
 *                      causal 2k  4 x 2k  causal 8k  causal 32k  documents 8k
 *   D = 64, 32/8 heads       310     352        455         505           289
 *   D = 128, 24/8 heads      469     543        661         643           449
 *   D = 128, 64/8 heads      524     563        669         612           467
 * D = 64, causal 2k, by rows x keys of a tile: 128 x 128 314, 192 x 80 285, 192 x 64 286, 192 x 128
 * without AHEAD 284, 192 x 80 with warpgroups that take turns 283. From about 4k keys a row 192 x
 * 80 is the faster one. */
#include "attention.h"
#include "attention_sm90.cuh"

namespace {

/* W: the wide tiles of D = 64. AHEAD: S runs a step ahead. */
template <int D, int W> struct Fwd;
template <> struct Fwd<128, 0> {
    static constexpr int WGS = 2, STEP = 128, STAGES = 2, REGS = 232, IDLE = 40;
    static constexpr bool AHEAD = false;
};
template <> struct Fwd<64, 0> {
    static constexpr int WGS = 2, STEP = 128, STAGES = 4, REGS = 232, IDLE = 40;
    static constexpr bool AHEAD = true;
};
template <> struct Fwd<64, 1> {
    static constexpr int WGS = 3, STEP = 80, STAGES = 4, REGS = 160, IDLE = 32;
    static constexpr bool AHEAD = true;
};

struct FwdParams {
    __nv_bfloat16 *o;
    float *o_acc, *lse;
    AttnList list;
    ItemOrder order;
    int32_t *counters;
    int Sq, H, K;
    float scale;
    bool resume;
    AttnArrival arrival;
};

struct Item {
    int row0, rows, head, n_steps; /* n_steps < 0: no more items */
};

template <int D, int W> struct FwdShared {
    using C = Fwd<D, W>;
    static constexpr int ROWS = 64 * C::WGS;
    __nv_bfloat16 q[2][ROWS * D]; /* then the staging of O */
    __nv_bfloat16 k[C::STAGES][C::STEP * D], v[C::STAGES][C::STEP * D];
    Step step[2 * C::STAGES]; /* a slot is written again only after its mask was applied */
    Item item[2];
    uint64_t q_full[2], q_empty[2];
    uint64_t k_full[C::STAGES], k_empty[C::STAGES], v_full[C::STAGES], v_empty[C::STAGES];
};

template <int D, int W>
__device__ void produce(FwdShared<D, W> &sm, const CUtensorMap *map_q, const CUtensorMap *map_kv,
                        const FwdParams &p) {
    using C = Fwd<D, W>;
    constexpr int ST = C::STAGES;
    uint32_t tiles = 0, steps = 0; /* produced so far */
    bool arrived = false;
    int item;
    while ((item = atomicAdd(&p.counters[0], 1)) < p.order.n_items) {
        HeadItem hi = item_decode(item, p.order);
        const AttnTile *tile = &p.list.tiles[hi.tile];
        const int n_steps = tile->n_steps, row0 = tile->row0;
        const int k_panel = hi.head / (p.H / p.K) * (D / 64), v_panel = k_panel + p.K * (D / 64);

        const int qi = ring_index<2>(tiles);
        mbar_wait(&sm.q_empty[qi], ring_parity<2>(tiles++) ^ 1);
        sm.item[qi] = Item{row0, tile->rows, hi.head, n_steps};
        if (n_steps > 0) {
            mbar_arrive_expect(&sm.q_full[qi], 64 * C::WGS * D * 2);
            tma_load(sm.q[qi], map_q, 0, row0, hi.head * (D / 64), &sm.q_full[qi]);
        } else {
            mbar_arrive(&sm.q_full[qi]);
        }

        int last = -1; /* the step whose V is due: K runs one step ahead */
        auto load_v = [&] {
            if (last < 0) return;
            const int i = ring_index<ST>(steps - 1);
            mbar_wait(&sm.v_empty[i], ring_parity<ST>(steps - 1) ^ 1);
            mbar_arrive_expect(&sm.v_full[i], C::STEP * D * 2);
            tma_load(sm.v[i], map_kv, 0, last, v_panel, &sm.v_full[i]);
        };
        for (int r = tile->run_begin; r < tile->run_end; r++) {
            const AttnRun *run = &p.list.runs[r];
            int c0 = run->first;
            if (!arrived && c0 >= p.arrival.first) {
                load_v(); /* what is here already need not wait */
                last = -1;
                wait_for_arrival(p.arrival.flag);
                arrived = true;
            }
            for (int j = 0; j < run->n_steps; j++, c0 += C::STEP) {
                const int i = ring_index<ST>(steps);
                mbar_wait(&sm.k_empty[i], ring_parity<ST>(steps) ^ 1);
                Step &step = sm.step[ring_index<2 * ST>(steps)];
                step.c0 = c0;
                step.masked = j < run->full_begin || j >= run->full_end;
                if (step.masked) step.band = run->band;
                mbar_arrive_expect(&sm.k_full[i], C::STEP * D * 2);
                tma_load(sm.k[i], map_kv, 0, c0, k_panel, &sm.k_full[i]);
                load_v();
                last = c0;
                steps++;
            }
        }
        load_v();
    }
    const int qi = ring_index<2>(tiles);
    mbar_wait(&sm.q_empty[qi], ring_parity<2>(tiles) ^ 1);
    sm.item[qi].n_steps = -1;
    mbar_arrive(&sm.q_full[qi]);
    counters_reset(p.counters);
}

/* One step of the online softmax on raw scores s of two rows: s becomes exp2(c (s - m)); m, l and
 * factor (what O and l of earlier steps are to be multiplied with) are per row; l is this thread's
 * part. Returns whether any row of the warp has factor != 1. */
template <int R>
__device__ __forceinline__ bool softmax_step(float (&s)[R], float (&m)[2], float (&l)[2],
                                             float (&factor)[2], float c) {
    float top[2] = {s[0], s[2]}, mc[2];
#pragma unroll
    for (int i = 0; i < R; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i]);
    bool grow = false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffff, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffff, top[r], 2));
        bool grows = (top[r] - m[r]) * c > 8.0f; /* false when both are -inf */
        float next = grows ? top[r] : m[r];
        factor[r] = grows ? exp2_fast((m[r] - next) * c) : 1.0f;
        m[r] = next;
        mc[r] = next == -INFINITY ? 0.0f : next * c;
        l[r] *= factor[r];
        grow |= grows;
    }
#pragma unroll
    for (int i = 0; i < R; i++) {
        s[i] = exp2_fast(fmaf(s[i], c, -mc[i / 2 % 2]));
        l[i / 2 % 2] += s[i];
    }
    return __any_sync(0xffffffff, grow);
}

template <int R> __device__ __forceinline__ void rescale(float (&o)[R], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < R; i++) o[i] *= factor[i / 2 % 2];
}

template <int D, int W> __device__ void consume(FwdShared<D, W> &sm, const FwdParams &p, int wg) {
    using C = Fwd<D, W>;
    constexpr int ST = C::STAGES, STEP = C::STEP, BLOCKS = STEP / 16;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
    const float c = p.scale * 1.44269504f; /* exp(scale x) = exp2(c x) */
    uint32_t tiles = 0, steps = 0;         /* before this one */
    float o[D / 2], m[2], l[2], factor[2];
    uint32_t pb[BLOCKS][4];

    for (;; tiles++) {
        const int qi = ring_index<2>(tiles);
        mbar_wait(&sm.q_full[qi], ring_parity<2>(tiles));
        const Item item = sm.item[qi];
        const int n = __shfl_sync(0xffffffff, item.n_steps, 0);
        if (n < 0) break;
        const int tile_row = wg * 64 + warp * 16 + g; /* and tile_row + 8 */
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = tile_row + 8 * r;
            bool old = p.resume && row < item.rows;
            float lse = old ? p.lse[(int64_t)item.head * p.Sq + item.row0 + row] : -INFINITY;
            m[r] = lse / p.scale;
            l[r] = lse > -INFINITY && t == 0 ? 1.0f : 0.0f;
            const float *from =
                p.o_acc + ((int64_t)(item.row0 + row) * p.H + item.head) * D + 2 * t;
#pragma unroll
            for (int i = 0; i < D / 8; i++) {
                float2 x = old ? *(const float2 *)(from + 8 * i) : make_float2(0, 0);
                o[4 * i + 2 * r] = x.x;
                o[4 * i + 2 * r + 1] = x.y;
            }
        }
        uint8_t *q_tile = (uint8_t *)sm.q[qi] + wg * 64 * 128;
        const uint64_t q_desc = desc_tile(smem_addr(q_tile));

        /* Each takes the number of a step, counted over the CTA's life. */
        auto wait_k = [&](uint32_t n) {
            mbar_wait(&sm.k_full[ring_index<ST>(n)], ring_parity<ST>(n));
        };
        auto wait_v = [&](uint32_t n) {
            mbar_wait(&sm.v_full[ring_index<ST>(n)], ring_parity<ST>(n));
        };
        auto release = [&](uint64_t *empty) {
            __syncwarp();
            if (lane == 0) mbar_arrive(empty);
        };
        auto issue_qk = [&](float(&s)[STEP / 2], uint32_t n) {
            uint64_t k_desc = desc_tile(smem_addr(sm.k[ring_index<ST>(n)]));
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < D / 16; i++)
                wgmma_ss<0, 0>(s, q_desc + (i / 4) * 64 * C::WGS * 8 + i % 4 * 2,
                               k_desc + (i / 4) * STEP * 8 + i % 4 * 2, i > 0);
            wgmma_commit();
        };
        auto issue_pv = [&](uint32_t n) {
            uint64_t v_desc = desc_tile(smem_addr(sm.v[ring_index<ST>(n)]), STEP);
            wgmma_pin(o);
            wgmma_fence();
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) wgmma_rs<1>(o, pb[b], v_desc + 128 * b, 1);
            wgmma_commit();
        };
        auto mask = [&](float(&s)[STEP / 2], uint32_t n) {
            const Step &step = sm.step[ring_index<2 * ST>(n)];
            if (step.masked) mask_scores(s, step, item.row0 + tile_row, 2 * t);
        };
        auto pack = [&](float(&s)[STEP / 2]) {
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) pack_block(pb[b], s, b);
        };

        if constexpr (!C::AHEAD) {
            if (n > 0) {
                float s[STEP / 2];
                wait_k(steps);
                issue_qk(s, steps);
                wgmma_wait<0>();
                wgmma_pin(s);
                mask(s, steps);
                release(&sm.k_empty[ring_index<ST>(steps)]);
                softmax_step(s, m, l, factor, c);
                rescale(o, factor);
                pack(s);
#pragma unroll 1
                for (uint32_t j = steps + 1; j != steps + n; j++) {
                    wait_k(j);
                    issue_qk(s, j);
                    wait_v(j - 1);
                    issue_pv(j - 1);
                    wgmma_wait<1>();
                    wgmma_pin(s);
                    mask(s, j);
                    release(&sm.k_empty[ring_index<ST>(j)]);
                    bool grown = softmax_step(s, m, l, factor, c);
                    wgmma_wait<0>();
                    wgmma_pin(o);
                    release(&sm.v_empty[ring_index<ST>(j - 1)]);
                    if (grown) rescale(o, factor);
                    pack(s);
                }
            }
        } else {
            if (n > 0) {
                float s0[STEP / 2], s1[STEP / 2];
                wait_k(steps);
                issue_qk(s0, steps);
                wgmma_wait<0>();
                wgmma_pin(s0);
                release(&sm.k_empty[ring_index<ST>(steps)]);
                /* The softmax of step j, on s, over the products of its neighbours. The last step
                 * of a tile multiplies whatever lies in the next K stage; nobody reads the result.
                 */
                auto step = [&](float(&s)[STEP / 2], float(&next)[STEP / 2], uint32_t j,
                                bool first) {
                    bool more = j + 1 != steps + n;
                    if (more) wait_k(j + 1);
                    if (!first) wait_v(j - 1);
                    wgmma_pin(s);
                    issue_qk(next, j + 1);
                    if (!first) issue_pv(j - 1);
                    mask(s, j);
                    bool grown = softmax_step(s, m, l, factor, c);
                    wgmma_wait<0>();
                    wgmma_pin(next);
                    wgmma_pin(o);
                    if (!first) release(&sm.v_empty[ring_index<ST>(j - 1)]);
                    if (more) release(&sm.k_empty[ring_index<ST>(j + 1)]);
                    if (grown) rescale(o, factor);
                    pack(s);
                };
                step(s0, s1, steps, true);
#pragma unroll 1
                for (uint32_t j = steps + 1; j != steps + n; j += 2) {
                    step(s1, s0, j, false);
                    if (j + 1 == steps + n) break;
                    step(s0, s1, j + 1, false);
                }
            }
        }
        if (n > 0) {
            steps += n;
            wait_v(steps - 1);
            issue_pv(steps - 1);
            wgmma_wait<0>();
            wgmma_pin(o);
            release(&sm.v_empty[ring_index<ST>(steps - 1)]);
        }

#pragma unroll
        for (int r = 0; r < 2; r++) {
            l[r] += __shfl_xor_sync(0xffffffff, l[r], 1);
            l[r] += __shfl_xor_sync(0xffffffff, l[r], 2);
            factor[r] = l[r] > 0 ? 1 / l[r] : 0;
            int row = tile_row + 8 * r;
            if (t == 0 && row < item.rows)
                p.lse[(int64_t)item.head * p.Sq + item.row0 + row] =
                    l[r] > 0 ? m[r] * p.scale + logf(l[r]) : -INFINITY;
        }
        rescale(o, factor);
        if (p.o_acc) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int row = tile_row + 8 * r;
                float *to = p.o_acc + ((int64_t)(item.row0 + row) * p.H + item.head) * D + 2 * t;
                if (row < item.rows)
#pragma unroll
                    for (int i = 0; i < D / 8; i++)
                        *(float2 *)(to + 8 * i) =
                            make_float2(o[4 * i + 2 * r], o[4 * i + 2 * r + 1]);
            }
        }
        if (p.o) { /* each warp turns its 16 rows round in the place of Q */
            named_barrier(1 + wg, 128);
            uint8_t *stage = q_tile + warp * 16 * 128;
#pragma unroll
            for (int b = 0; b < D / 16; b++) {
                uint32_t block[4];
                pack_block(block, o, b);
                int row = lane % 16, chunk = b % 4 * 2 + lane / 16;
                stmatrix(smem_addr(stage + b / 4 * 64 * C::WGS * 128 + row * 128 +
                                   ((chunk ^ (row & 7)) << 4)),
                         block);
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                int row = lane / 8 + i % 4 * 4, chunk = lane % 8, tile = wg * 64 + warp * 16 + row;
                uint4 x = *(const uint4 *)(stage + i / 4 * 64 * C::WGS * 128 + row * 128 +
                                           ((chunk ^ (row & 7)) << 4));
                if (tile < item.rows)
                    *(uint4 *)(p.o + ((int64_t)(item.row0 + tile) * p.H + item.head) * D +
                               i / 4 * 64 + chunk * 8) = x;
            }
            fence_async_proxy();
        }
        release(&sm.q_empty[qi]);
    }
}

template <int D, int W>
__global__ void __launch_bounds__((Fwd<D, W>::WGS + 1) * 128, 1)
    fwd_kernel(const __grid_constant__ CUtensorMap map_q,
               const __grid_constant__ CUtensorMap map_kv, const FwdParams p) {
    using C = Fwd<D, W>;
    extern __shared__ uint8_t raw[];
    FwdShared<D, W> &sm = shared_as<FwdShared<D, W>>(raw);
    const int wg = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&map_q);
        prefetch_map(&map_kv);
        for (int i = 0; i < 2; i++) {
            mbar_init(&sm.q_full[i], 1);
            mbar_init(&sm.q_empty[i], 4 * C::WGS);
        }
        for (int i = 0; i < C::STAGES; i++) {
            mbar_init(&sm.k_full[i], 1);
            mbar_init(&sm.v_full[i], 1);
            mbar_init(&sm.k_empty[i], 4 * C::WGS); /* each consumer warp for itself */
            mbar_init(&sm.v_empty[i], 4 * C::WGS);
        }
        mbar_init_fence();
    }
    __syncthreads();
    if (wg == 0) {
        registers_shrink<C::IDLE>();
        if (threadIdx.x == 0) produce<D, W>(sm, &map_q, &map_kv, p);
    } else {
        registers_grow<C::REGS>();
        consume<D, W>(sm, p, wg - 1);
    }
}

template <int D, int W>
void launch(const FwdParams &p, const void *q, const void *kv, int64_t Sk, int sm_count,
            cudaStream_t stream) {
    using C = Fwd<D, W>;
    constexpr int bytes = shared_bytes<FwdShared<D, W>>();
    static_assert(bytes <= 227 * 1024);
    cudaFuncSetAttribute(fwd_kernel<D, W>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    CUtensorMap map_q = tile_map(q, p.Sq, p.H, D, 64 * C::WGS);
    CUtensorMap map_kv = tile_map(Sk ? kv : q, Sk, 2 * p.K, D, C::STEP);
    fwd_kernel<D, W>
        <<<(unsigned)i64_min(p.order.n_items, sm_count), (C::WGS + 1) * 128, bytes, stream>>>(
            map_q, map_kv, p);
}

template <int D, int W> AttnGrid grid_of() {
    return AttnGrid{64 * Fwd<D, W>::WGS, Fwd<D, W>::STEP};
}

} /* namespace */

int attn_sm90_wide(int D, double keys_per_row) {
    return D == 64 && keys_per_row > 3000;
}

AttnGrid attn_sm90_fwd_grid(int D, int wide) {
    return D == 128 ? grid_of<128, 0>() : wide ? grid_of<64, 1>() : grid_of<64, 0>();
}

void attn_sm90_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                   const AttnWork *work, bool resume, cudaStream_t stream) {
    AttnShape s = work->shape;
    AttnList list = work->by_q;
    if (resume && !o) list.n_tiles = list.n_busy; /* rows that nothing touches stay as they are */
    if (list.n_tiles == 0) return;
    /* the keys and values that are walked at the same time are to stay in L2 */
    int64_t groups = (32ll << 20) / i64_max(s.Sk * s.D * 4, 1);
    FwdParams p = {(__nv_bfloat16 *)o,
                   o_acc,
                   lse,
                   list,
                   item_order(list.n_tiles, s.H, i64_max(groups, 1) * (s.H / s.K)),
                   work->counters,
                   (int)s.Sq,
                   s.H,
                   s.K,
                   s.scale,
                   resume,
                   work->arrival};
    if (s.D == 128)
        launch<128, 0>(p, q, kv, s.Sk, work->sm_count, stream);
    else if (work->wide)
        launch<64, 1>(p, q, kv, s.Sk, work->sm_count, stream);
    else
        launch<64, 0>(p, q, kv, s.Sk, work->sm_count, stream);
}
