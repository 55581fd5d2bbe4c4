/* attention_sm90_bwd.cu: dq, dk, dv of attention over a band list, on Hopper.
 *
 *   P = exp(scale q k^T - lse)   dP = dO v^T   dS = scale P (dP - delta)   delta = rowsum(dO O)
 *   dv = P^T dO                  dk = dS^T q   dq = dS k
 *
 * 10 D flops per allowed pair and head. A CTA keeps 128 keys of one KV head in shared memory and
 * walks the query rows that see them, head after head of the group, so dk and dv stay in
 * accumulators and are written once (FlashAttention-2 and -3: Dao, 2023; Shah et al., 2024). Two
 * consumer warpgroups of 64 keys compute S^T and dP^T, so that P^T and dS^T are already A operands
 * of dv and dk; only dS crosses between them through shared memory, for dq, which is staged in fp32
 * and added to global memory by the copy engine: in any order, or each slot's steps in turns
 * (attention.h). Of the first warpgroup, warp 0 takes items and announces their steps, warp 3 loads
 * what a step needs, with lse and delta prepared for the exponent (rows outside the band get lse =
 * +inf, so P = 0 without a mask), and warps 1 and 2 drain dq.
 *
 * Keys of a source (AttnSources) are waited for where they are loaded; the last warp to write a
 * source's dkv announces that they may leave.
 *
 * Whatever else an item waits for (its turn at a slot of dq, or the part before it at dkv) belongs
 * to an earlier step of the same item or to an item with a lower number. Items are taken in the
 * order of their numbers, by CTAs that run and that work on them in that order, so the unfinished
 * item of the lowest number waits for nothing: no hang, however few CTAs run at a time.
 *
 * compute-sanitizer's racecheck reports hazards between plan() or load() and consume(): false ones.
 * One lane arrives for its warp after __syncwarp(), at mbarriers that the other side waits for
 * before it touches the same words (full, empty, kv_full, kv_empty); that is not followed.
 *
 * What bounds it (ncu, one launch, causal 8k, one H200; D = 64 / 128): shared memory 77 / 81 %
 * busy, tensor cores 56 / 66 %, L2 49 / 58 %. One launch reaches 606 TFLOP/s at D = 128; back to
 * back the power limit lowers the clock, and two other structures gain -3 to 4 %: dv issued
 * before dP is waited for, so that both run under arithmetic, and with that a third warpgroup for
 * dq. In turns costs 13 to 27 %. Causal 2k by parts of a group: D = 64: 1: 237, 2: 338, 4: 160; D =
 * 128, 24/8: 1: 278, 3: 206. Figures of all sizes: tests/results. */
#include "attention.h"
#include "attention_sm90.cuh"

namespace {

constexpr int KEYS = 128, STAGES = 2;
/* Of the consumers, 16 keys each: what is counted in warps is complete when all of them are done.
 */
constexpr int WARPS = KEYS / 16, THREADS = 128 + 32 * WARPS;

template <int D> struct Bwd {
    static constexpr int ROWS = D == 64 ? 128 : 64; /* query rows of a step */
};

struct BwdParams {
    float *dkv;
    const float *lse, *delta;
    AttnList list;
    ItemOrder order;
    int32_t *counters, *dkv_turns, *dq_turns; /* dq_turns: NULL for any order */
    int Sq, H, K, n_slots;
    int parts; /* a KV head's group of query heads is walked by so many items */
    float scale;
    bool accumulate_dkv;
    AttnSources sources;
    int32_t *source_warps, source_goal[ATTN_SOURCES]; /* of warps that write a source's dkv */
};

struct BwdItem {
    int row0, rows, kv_head, part, tile, n_steps; /* n_steps < 0: no more items */
    int source;                                   /* < 0 or sources.n: own keys */
};

struct BwdStep {
    Step step;
    int head; /* < 0: no more steps */
    int row_end, slot, turn;
};

template <int D> struct BwdShared {
    static constexpr int ROWS = Bwd<D>::ROWS;
    __nv_bfloat16 k[KEYS * D], v[KEYS * D];
    __nv_bfloat16 q[STAGES][ROWS * D], d_o[STAGES][ROWS * D];
    __nv_bfloat16 ds[2][ROWS * KEYS]; /* two, so that one barrier a step is enough */
    float dq[2][64 * 64];             /* each warpgroup's quarter or half of the step's dq */
    float lse[STAGES][ROWS], delta[STAGES][ROWS]; /* log2 units; times scale */
    BwdStep step[2 * STAGES];
    BwdItem item;
    uint64_t kv_full, kv_empty, step_full[STAGES], full[STAGES], empty[STAGES];
    uint64_t dq_full[2], dq_empty[2];
};

/* One lane: takes items, loads K and V of each and announces its steps. */
template <int D> __device__ void plan(BwdShared<D> &sm, const KeyMaps &keys, const BwdParams &p) {
    const int heads = p.H / p.K / p.parts; /* of an item */
    uint32_t items = 0, steps = 0;
    int item, arrived = 0; /* sources */
#pragma unroll 1
    for (; (item = atomicAdd(&p.counters[0], 1)) < p.order.n_items; items++) {
        const HeadItem at = item_decode(item, p.order);
        const AttnTile *tile = &p.list.tiles[at.tile];
        const int row0 = tile->row0, n_steps = tile->n_steps, kv_head = at.head / p.parts;
        mbar_wait(&sm.kv_empty, (items & 1) ^ 1);
        sm.item = BwdItem{row0,    tile->rows,      kv_head,        at.head - kv_head * p.parts,
                          at.tile, n_steps * heads, tile->phase - 1};
        if (tile->phase > 0) wait_for_sources(p.sources, row0, &arrived);
        /* sources of which nothing is needed are done when the call has begun */
        for (int i = 0; item == 0 && i < p.sources.n; i++)
            if (p.source_goal[i] == 0) announce_departure(&p.sources.departed[i]);
        if (n_steps > 0) {
            mbar_arrive_expect(&sm.kv_full, 2 * KEYS * D * 2);
            load_keys(sm.k, keys, row0, kv_head * (D / 64), &sm.kv_full);
            load_keys(sm.v, keys, row0, (p.K + kv_head) * (D / 64), &sm.kv_full);
        } else {
            mbar_arrive(&sm.kv_full);
        }
#pragma unroll 1
        for (int head = at.head * heads; head < (at.head + 1) * heads; head++) {
#pragma unroll 1
            for (int r = tile->run_begin; r < tile->run_end; r++) {
                const AttnRun *run = &p.list.runs[r];
#pragma unroll 1
                for (int j = run->n_steps - 1; j >= 0; j--, steps++) {
                    const int i = ring_index<STAGES>(steps);
                    mbar_wait(&sm.empty[i], ring_parity<STAGES>(steps) ^ 1);
                    BwdStep &step = sm.step[ring_index<2 * STAGES>(steps)];
                    step.head = head;
                    step.row_end = run->band.k_end;
                    step.slot = run->slot + j;
                    step.turn = run->turn;
                    step.step.c0 = run->first + j * Bwd<D>::ROWS;
                    step.step.masked = j < run->full_begin || j >= run->full_end;
                    if (step.step.masked) step.step.band = run->band;
                    mbar_arrive(&sm.step_full[i]);
                }
            }
        }
    }
    mbar_wait(&sm.kv_empty, (items & 1) ^ 1);
    sm.step[ring_index<2 * STAGES>(steps)].head = -1;
    sm.item.n_steps = -1;
    mbar_arrive(&sm.step_full[ring_index<STAGES>(steps)]); /* for load() */
    mbar_arrive(&sm.kv_full); /* for the consumers, which pass it on to drain() */
    counters_reset(p.counters);
}

/* One warp: q, dO, lse and delta of each step. */
template <int D>
__device__ void load(BwdShared<D> &sm, const CUtensorMap *map_q, const CUtensorMap *map_do,
                     const BwdParams &p) {
    constexpr int ROWS = Bwd<D>::ROWS;
    const int lane = threadIdx.x % 32;
    for (uint32_t n = 0;; n++) {
        const int i = ring_index<STAGES>(n);
        mbar_wait(&sm.step_full[i], ring_parity<STAGES>(n));
        const BwdStep &step = sm.step[ring_index<2 * STAGES>(n)];
        const int head = step.head, row0 = step.step.c0;
        if (head < 0) break;
        if (lane == 0) {
            mbar_arrive_expect(&sm.full[i], 2 * ROWS * D * 2);
            tma_load(sm.q[i], map_q, 0, row0, head * (D / 64), &sm.full[i]);
            tma_load(sm.d_o[i], map_do, 0, row0, head * (D / 64), &sm.full[i]);
        }
        const int64_t from = (int64_t)head * p.Sq + row0;
#pragma unroll
        for (int e = lane; e < ROWS; e += 32) {
            bool inside = row0 + e < step.row_end;
            float lse = inside ? p.lse[from + e] : -INFINITY;
            sm.lse[i][e] = lse == -INFINITY ? INFINITY : lse * 1.44269504f;
            sm.delta[i][e] = inside ? p.delta[from + e] * p.scale : 0;
        }
        __syncwarp();
        if (lane == 0) mbar_arrive(&sm.full[i]);
    }
}

/* One lane: adds each staged dq of consumer warpgroup wg to global memory. */
template <int D>
__device__ void drain(BwdShared<D> &sm, const CUtensorMap *map_dq, const BwdParams &p, int wg) {
    for (uint32_t n = 0;; n++) {
        mbar_wait(&sm.dq_full[wg], n & 1);
        const BwdStep &step = sm.step[ring_index<2 * STAGES>(n)];
        if (step.head < 0) break;
        const int row = step.step.c0 + (D == 64 ? 64 * wg : 0);
        const int column = step.head * D + (D == 128 ? 64 * wg : 0);
        int32_t *turn = NULL;
        const int mine = step.turn;
        if (p.dq_turns) {
            turn = p.dq_turns + ((int64_t)step.head * p.n_slots + step.slot) * 2 + wg;
            while (turn_read(turn) != mine) {
            }
            fence_async_global();
        }
        tma_reduce_add(map_dq, 0, row, column / 32, sm.dq[wg]);
        bulk_commit();
        bulk_wait_read();
        mbar_arrive(&sm.dq_empty[wg]);
        if (turn) {
            bulk_wait();
            fence_async_global();
            turn_write(turn, mine + 1);
        }
    }
    bulk_wait();
}

/* dst[64, D] (+)= x, row 8r of this lane's two; see consume() for the layout. */
template <int D>
__device__ __forceinline__ void store_row(float *dst, const float (&x)[D / 2], int r, bool add) {
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        float2 *to = (float2 *)(dst + 8 * i);
        float2 old = add ? *to : make_float2(0, 0);
        *to = make_float2(x[4 * i + 2 * r] + old.x, x[4 * i + 2 * r + 1] + old.y);
    }
}

template <int D> __device__ void consume(BwdShared<D> &sm, const BwdParams &p, int wg) {
    constexpr int ROWS = Bwd<D>::ROWS, BLOCKS = ROWS / 16;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
    const int tile_key = wg * 64 + warp * 16 + g; /* and tile_key + 8 */
    const float c = p.scale * 1.44269504f;
    auto release = [&](uint64_t *bar) {
        __syncwarp();
        if (lane == 0) mbar_arrive(bar);
    };
    /* where this lane's row of a transposed 8x8 block of dS goes, but for the buffer and block */
    const int ds_row = lane / 16 * 8 + lane % 8, ds_chunk = 2 * warp + lane / 8 % 2;
    const uint32_t ds_at =
        smem_addr(sm.ds[0]) + wg * ROWS * 128 + ds_row * 128 + ((ds_chunk ^ (ds_row & 7)) << 4);
    const uint64_t k_desc = desc_tile(smem_addr(sm.k) + wg * 64 * 128);
    const uint64_t v_desc = desc_tile(smem_addr(sm.v) + wg * 64 * 128);
    const uint64_t kt_desc = desc_tile(smem_addr(sm.k) + (D == 128 ? wg * KEYS * 128 : 0), KEYS);
    uint32_t steps = 0; /* over the CTA's life */
    float dk[D / 2], dv[D / 2];
    uint32_t pb[BLOCKS][4], sb[BLOCKS][4];

    for (uint32_t items = 0;; items++) {
        mbar_wait(&sm.kv_full, items & 1);
        const int n = __shfl_sync(0xffffffff, sm.item.n_steps, 0);
        if (n < 0) break;
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;

#pragma unroll 1
        for (int j = 0; j < n; j++, steps++) {
            const int at = ring_index<STAGES>(steps);
            const uint64_t q_desc = desc_tile(smem_addr(sm.q[at]), ROWS);
            const uint64_t do_desc = desc_tile(smem_addr(sm.d_o[at]), ROWS);
            float s[ROWS / 2], dp[ROWS / 2], dq[32];

            mbar_wait(&sm.full[at], ring_parity<STAGES>(steps));
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < D / 16; i++)
                wgmma_ss<0, 0>(s, k_desc + i / 4 * KEYS * 8 + i % 4 * 2,
                               q_desc + i / 4 * ROWS * 8 + i % 4 * 2, i > 0);
            wgmma_commit();
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < D / 16; i++)
                wgmma_ss<0, 0>(dp, v_desc + i / 4 * KEYS * 8 + i % 4 * 2,
                               do_desc + i / 4 * ROWS * 8 + i % 4 * 2, i > 0);
            wgmma_commit();
            wgmma_wait<1>();
            wgmma_pin(s);
            const Step &step = sm.step[ring_index<2 * STAGES>(steps)].step;
            if (step.masked) mask_scores(s, step, sm.item.row0 + wg * 64 + warp * 16);
#pragma unroll
            for (int i = 0; i < ROWS / 8; i++) {
                float2 lse = *(const float2 *)&sm.lse[at][8 * i + 2 * t];
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[4 * i + e] = exp2_fast(fmaf(s[4 * i + e], c, -(e % 2 ? lse.y : lse.x)));
            }
            wgmma_wait<0>();
            wgmma_pin(dp);
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
#pragma unroll
                for (int i = 2 * b; i < 2 * b + 2; i++) {
                    float2 delta = *(const float2 *)&sm.delta[at][8 * i + 2 * t];
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        dp[4 * i + e] = s[4 * i + e] *
                                        fmaf(dp[4 * i + e], p.scale, -(e % 2 ? delta.y : delta.x));
                }
                pack_block(pb[b], s, b);
                pack_block(sb[b], dp, b);
                stmatrix_trans(ds_at + (steps & 1) * (ROWS * KEYS * 2) + b * 2048, sb[b]);
            }
            fence_async_proxy();
            wgmma_pin(dv);
            wgmma_fence();
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) wgmma_rs<1>(dv, pb[b], do_desc + 128 * b, 1);
            wgmma_commit();

            named_barrier(1, 32 * WARPS); /* dS is whole */
            const uint64_t ds_desc =
                desc_tile(smem_addr(sm.ds[steps & 1]) + (D == 64 ? wg * 64 * 128 : 0));
            wgmma_pin(dk);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++)
                wgmma_ss<0, 1>(dq, ds_desc + i / 4 * ROWS * 8 + i % 4 * 2, kt_desc + 128 * i,
                               i > 0);
            wgmma_commit();
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) wgmma_rs<1>(dk, sb[b], q_desc + 128 * b, 1);
            wgmma_commit();
            wgmma_wait<1>();
            wgmma_pin(dq);
            wgmma_pin(dv);

            mbar_wait(&sm.dq_empty[wg], (steps & 1) ^ 1);
            uint8_t *stage = (uint8_t *)sm.dq[wg];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    int row = warp * 16 + g + 8 * r, chunk = i % 4 * 2 + t / 2;
                    int to = i / 4 * 8192 + row * 128 + ((chunk ^ g) << 4) + t % 2 * 8;
                    *(float2 *)(stage + to) = make_float2(dq[4 * i + 2 * r], dq[4 * i + 2 * r + 1]);
                }
            fence_async_proxy();
            release(&sm.dq_full[wg]);
            wgmma_wait<0>(); /* dk, which ran under dq's way out; kept for the next step: slower */
            wgmma_pin(dk);
            release(&sm.empty[at]);
        }
        const BwdItem item = sm.item; /* read again rather than kept in registers */
        release(&sm.kv_empty);

        /* The parts of a group add to dkv one after the other, counted in warps. */
        int32_t *turn = p.dkv_turns + item.tile * p.K + item.kv_head;
        if (item.part > 0) {
            if (lane == 0)
                while (turn_read(turn) < WARPS * item.part) {
                }
            __syncwarp();
        }
        const bool add = p.accumulate_dkv || item.part > 0;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int key = tile_key + 8 * r;
            if (key >= item.rows) continue;
            float *to = p.dkv + ((int64_t)(item.row0 + key) * 2 * p.K + item.kv_head) * D + 2 * t;
            store_row<D>(to, dk, r, add);
            store_row<D>(to + p.K * D, dv, r, add);
        }
        if (p.parts > 1) {
            __syncwarp();
            if (lane == 0) {
                __threadfence();
                if (atomicAdd(turn, 1) == WARPS * p.parts - 1)
                    *turn = 0; /* as the next call needs it */
            }
        }
        if (item.source >= 0 && item.source < p.sources.n) {
            __syncwarp();
            if (lane == 0) {
                __threadfence();
                int32_t *done = &p.source_warps[item.source];
                if (atomicAdd(done, 1) == p.source_goal[item.source] - 1) {
                    *done = 0;
                    announce_departure(&p.sources.departed[item.source]);
                }
            }
        }
    }
    /* Only once this warpgroup's last dq is drained: drain() must see every phase of dq_full. */
    mbar_wait(&sm.dq_empty[wg], (steps & 1) ^ 1);
    release(&sm.dq_full[wg]);
}

template <int D>
__global__ void __launch_bounds__(THREADS, 1)
    bwd_kernel(const __grid_constant__ CUtensorMap map_q,
               const __grid_constant__ CUtensorMap map_do, const __grid_constant__ KeyMaps keys,
               const __grid_constant__ CUtensorMap map_dq, const BwdParams p) {
    extern __shared__ uint8_t raw[];
    BwdShared<D> &sm = shared_as<BwdShared<D>>(raw);
    const int wg = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&map_q);
        prefetch_map(&map_do);
        prefetch_keys(keys);
        prefetch_map(&map_dq);
        mbar_init(&sm.kv_full, 1);
        mbar_init(&sm.kv_empty, WARPS);
        for (int i = 0; i < STAGES; i++) {
            mbar_init(&sm.step_full[i], 1);
            mbar_init(&sm.full[i], 2); /* q and dO; lse and delta */
            mbar_init(&sm.empty[i], WARPS);
        }
        for (int i = 0; i < 2; i++) {
            mbar_init(&sm.dq_full[i], 4);
            mbar_init(&sm.dq_empty[i], 1);
        }
        mbar_init_fence();
    }
    __syncthreads();
    if (wg == 0) {
        registers_shrink<24>();
        if (threadIdx.x == 0)
            plan<D>(sm, keys, p);
        else if (warp == 3)
            load<D>(sm, &map_q, &map_do, p);
        else if (warp > 0 && threadIdx.x % 32 == 0)
            drain<D>(sm, &map_dq, p, warp - 1);
    } else {
        registers_grow<240>();
        consume<D>(sm, p, wg - 1);
    }
}

template <int D>
void launch(const BwdParams &p, float *dq, const void *d_o, const void *q, const void *kv,
            const AttnWork *work, cudaStream_t stream) {
    constexpr int bytes = shared_bytes<BwdShared<D>>();
    static_assert(bytes <= 227 * 1024);
    cudaFuncSetAttribute(bwd_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    CUtensorMap map_q = tile_map(q, p.Sq, p.H, D, Bwd<D>::ROWS);
    CUtensorMap map_do = tile_map(d_o, p.Sq, p.H, D, Bwd<D>::ROWS);
    KeyMaps keys = key_maps(kv, work, KEYS);
    CUtensorMap map_dq = encode_map(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, dq, 32, p.Sq, p.H * D / 32,
                                    (int64_t)p.H * D * 4, 128, 64, 2, CU_TENSOR_MAP_SWIZZLE_128B);
    bwd_kernel<D><<<(unsigned)i64_min(p.order.n_items, work->sm_count), THREADS, bytes, stream>>>(
        map_q, map_do, keys, map_dq, p);
}

/* Into how many items a KV head's group is split: what ends first by this estimate, in steps. An SM
 * has at least the mean and at least the longest item to walk, and the parts of a group wait for
 * one another at their end (about 3 steps an item for each part of each part's chain, so that the
 * best of the header's numbers of parts wins). */
int parts_of(const AttnList &list, int K, int group, int sm_count) {
    int best = 1;
    double least = INFINITY, mean = (double)list.n_steps * K * group / sm_count;
    for (int parts = 1; parts <= group; parts++) {
        if (group % parts) continue;
        double items = (double)list.n_tiles * K * parts / sm_count;
        double cost =
            fmax((double)list.longest * group / parts, mean) + 3.0 * parts * (parts - 1) * items;
        if (cost < least) {
            least = cost;
            best = parts;
        }
    }
    return best;
}

} /* namespace */

void attn_sm90_grids(int D, int wide, AttnGrid *by_q, AttnGrid *by_k) {
    *by_q = attn_sm90_fwd_grid(D, wide);
    *by_k = AttnGrid{KEYS, D == 64 ? Bwd<64>::ROWS : Bwd<128>::ROWS};
}

void attn_sm90_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                   const float *lse, const float *delta, const AttnWork *work, bool accumulate_dq,
                   bool accumulate_dkv, bool deterministic, cudaStream_t stream) {
    AttnShape s = work->shape;
    AttnList list = work->by_k;
    if (!accumulate_dq) cudaMemsetAsync(dq, 0, (size_t)(s.Sq * s.H * s.D) * 4, stream);
    if (accumulate_dkv) list.n_tiles = list.n_busy; /* keys that nothing sees stay as they are */
    if (list.n_tiles == 0) return;
    if (deterministic)
        cudaMemsetAsync(work->dq_turns, 0, (size_t)attn_dq_turns_bytes(work), stream);
    int parts = parts_of(list, s.K, s.H / s.K, work->sm_count);
    /* q, dO and dq of the heads that are walked at the same time are to stay in L2. With phases
     * CTAs are not in step (they begin one when they are done with another), and walk all heads of
     * a group. Where all of it is small, a call had better end with the short items of all heads.
     */
    bool phases = work->sources.n > 0;
    int64_t head = i64_max(s.Sq * s.D * 8, 1), group = head * (s.H / s.K);
    int64_t side_by_side = phases ? (48ll << 20) / group : (64ll << 20) / head;
    int64_t in_the_end = phases && s.H * head <= 100ll << 20 ? INT32_MAX : side_by_side;
    BwdParams p = {};
    p.dkv = dkv;
    p.lse = lse;
    p.delta = delta;
    p.list = list;
    p.order = item_order(list, s.K * parts, side_by_side, in_the_end);
    p.counters = work->counters + 2;
    p.dkv_turns = work->dkv_turns;
    p.dq_turns = deterministic ? work->dq_turns : NULL;
    p.Sq = (int)s.Sq;
    p.H = s.H;
    p.K = s.K;
    p.n_slots = work->n_slots;
    p.parts = parts;
    p.scale = s.scale;
    p.accumulate_dkv = accumulate_dkv;
    p.sources = work->sources;
    p.source_warps = work->source_warps;
    for (int i = 0; i < work->sources.n; i++)
        p.source_goal[i] = WARPS * work->source_tiles[i] * s.K * parts;
    if (s.D == 64)
        launch<64>(p, dq, d_o, q, kv, work, stream);
    else
        launch<128>(p, dq, d_o, q, kv, work, stream);
}
