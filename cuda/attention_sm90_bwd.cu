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
 * and added to global memory by the copy engine: in any order, or, when deterministic, each block
 * of dq in the order that its semaphore prescribes (attention.h). Of the first warpgroup, warp 0
 * takes items and describes their steps, warp 3 loads what a step needs, with lse and delta
 * prepared for the exponent (rows outside the band get lse = +inf, so P = 0 without a mask), and
 * warps 1 and 2 add dq to global memory.
 *
 * The producer waits for a remote range (RemoteKv) where it loads its keys; the last warp to write
 * a range's dkv signals that it is done.
 *
 * No deadlock, however few CTAs run at a time: whatever else an item waits for (its order at a
 * block of dq, or the split before it at dkv) belongs to an earlier step of the same item or to an
 * item with a lower number. Items are taken in the order of their numbers, by CTAs that are running
 * and that work on them in that order, so the unfinished item of the lowest number waits for
 * nothing.
 *
 * compute-sanitizer's racecheck reports false hazards between produce() or load_steps() and
 * consume(). One lane arrives for its warp after __syncwarp(), at mbarriers that the other side
 * waits for before it touches the same words (full, empty, kv_full, kv_empty); racecheck does not
 * follow that.
 *
 * What bounds it (ncu, one launch, causal 8k, one H200; D = 64 / 128): shared memory 77 / 81 %
 * busy, tensor cores 56 / 66 %, L2 49 / 58 %. One launch reaches 606 TFLOP/s at D = 128; back to
 * back the power limit lowers the clock. Two other structures gained -3 to 4 %: dv issued before dP
 * is waited for, so that both run under arithmetic, and with that a third warpgroup for dq. The
 * deterministic order of dq costs 13 to 27 %. TFLOP/s at causal 2k by splits of a head group: D =
 * 64: 1: 237, 2: 338, 4: 160; D = 128, 24/8: 1: 278, 3: 206. Figures of all sizes: tests/results.
 */
#include "attention.h"
#include "attention_sm90.cuh"
#include "tuning.h"

namespace {

constexpr int KEYS = 128, STAGES = 2;
/* Consumer warps, 16 keys each. Counts of finished warps are compared with this. */
constexpr int WARPS = KEYS / 16, THREADS = 128 + 32 * WARPS;

template <int D> struct Bwd {
    static constexpr int ROWS = D == 64 ? 128 : 64; /* query rows of a step */
};

struct BwdParams {
    float *dkv;
    const float *lse, *delta;
    AttnList list;
    ItemOrder order;
    int32_t *counters, *dkv_order, *dq_order; /* dq_order: NULL for any order */
    int Sq, H, K, n_dq_blocks;
    int head_splits; /* the query heads of a KV head are split among this many items */
    float scale;
    bool accumulate_dkv;
    RemoteKv remote;
    int32_t *range_warps_done, range_warps[ATTN_REMOTE_RANGES]; /* warps that write a range's dkv */
};

struct BwdItem {
    int row0, rows, kv_head, head_split, tile, n_steps; /* n_steps < 0: no more items */
    int range;                                          /* < 0 or remote.n: local keys */
};

struct BwdStep {
    Step step;
    int head; /* < 0: no more steps */
    int row_end, dq_block, dq_order;
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

/* One lane: takes items, loads K and V of each and describes its steps. */
template <int D>
__device__ void produce(BwdShared<D> &sm, const KeyMaps &keys, const BwdParams &p) {
    const int heads = p.H / p.K / p.head_splits; /* of an item */
    uint32_t items = 0, steps = 0;
    int item, ready = 0; /* remote ranges */
#pragma unroll 1
    for (; (item = atomicAdd(&p.counters[0], 1)) < p.order.n_items; items++) {
        const HeadItem at = item_decode(item, p.order);
        const AttnTile *tile = &p.list.tiles[at.tile];
        const int row0 = tile->row0, n_steps = tile->n_steps, kv_head = at.head / p.head_splits;
        mbar_wait(&sm.kv_empty, (items & 1) ^ 1);
        sm.item = BwdItem{row0,
                          tile->rows,
                          kv_head,
                          at.head - kv_head * p.head_splits,
                          at.tile,
                          n_steps * heads,
                          tile->schedule_group - 1};
        if (tile->schedule_group > 0) wait_remote_kv(p.remote, row0, &ready);
        /* ranges that no tile reads are done at the start of the call */
        for (int i = 0; item == 0 && i < p.remote.n; i++)
            if (p.range_warps[i] == 0) signal_dkv_done(&p.remote.dkv_done[i]);
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
                    step.dq_block = run->dq_block + j;
                    step.dq_order = run->dq_order;
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
    mbar_arrive(&sm.step_full[ring_index<STAGES>(steps)]); /* for load_steps() */
    mbar_arrive(&sm.kv_full); /* for the consumers, which pass it on to add_dq() */
    counters_reset(p.counters);
}

/* One warp: loads q, dO, lse and delta of each step. */
template <int D>
__device__ void load_steps(BwdShared<D> &sm, const CUtensorMap *map_q, const CUtensorMap *map_do,
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
            sm.lse[i][e] = lse == -INFINITY ? INFINITY : lse * LOG2E;
            sm.delta[i][e] = inside ? p.delta[from + e] * p.scale : 0;
        }
        __syncwarp();
        if (lane == 0) mbar_arrive(&sm.full[i]);
    }
}

/* One lane: adds each staged dq of consumer warpgroup wg to global memory. */
template <int D>
__device__ void add_dq(BwdShared<D> &sm, const CUtensorMap *map_dq, const BwdParams &p, int wg) {
    for (uint32_t n = 0;; n++) {
        mbar_wait(&sm.dq_full[wg], n & 1);
        const BwdStep &step = sm.step[ring_index<2 * STAGES>(n)];
        if (step.head < 0) break;
        const int row = step.step.c0 + (D == 64 ? 64 * wg : 0);
        const int column = step.head * D + (D == 128 ? 64 * wg : 0);
        int32_t *semaphore = NULL;
        const int order = step.dq_order;
        if (p.dq_order) {
            semaphore = p.dq_order + ((int64_t)step.head * p.n_dq_blocks + step.dq_block) * 2 + wg;
            while (semaphore_read(semaphore) != order) {
            }
            fence_async_global();
        }
        tma_reduce_add(map_dq, 0, row, column / 32, sm.dq[wg]);
        bulk_commit();
        bulk_wait_read();
        mbar_arrive(&sm.dq_empty[wg]);
        if (semaphore) {
            bulk_wait();
            fence_async_global();
            semaphore_write(semaphore, order + 1);
        }
    }
    bulk_wait();
}

template <int D> __device__ void consume(BwdShared<D> &sm, const BwdParams &p, int wg) {
    constexpr int ROWS = Bwd<D>::ROWS, BLOCKS = ROWS / 16;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
    const int tile_key = wg * 64 + warp * 16 + g; /* and tile_key + 8 */
    const float c = p.scale * LOG2E;
    auto release = [&](uint64_t *bar) {
        __syncwarp();
        if (lane == 0) mbar_arrive(bar);
    };
    /* address of this lane's row of a transposed 8x8 block of dS, without buffer and block */
    const int ds_row = lane / 16 * 8 + lane % 8, ds_chunk = 2 * warp + lane / 8 % 2;
    const uint32_t ds_at =
        smem_addr(sm.ds[0]) + wg * ROWS * 128 + ds_row * 128 + ((ds_chunk ^ (ds_row & 7)) << 4);
    const uint64_t k_desc = desc_tile(smem_addr(sm.k) + wg * 64 * 128);
    const uint64_t v_desc = desc_tile(smem_addr(sm.v) + wg * 64 * 128);
    const uint64_t kt_desc = desc_tile(smem_addr(sm.k) + (D == 128 ? wg * KEYS * 128 : 0), KEYS);
    uint32_t steps = 0; /* since the CTA started */
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

            named_barrier(1, 32 * WARPS); /* all of dS is in shared memory */
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
            wgmma_wait<0>(); /* for dk, which ran while dq was staged; waiting in the next step is
                                slower */
            wgmma_pin(dk);
            release(&sm.empty[at]);
        }
        const BwdItem item = sm.item; /* read again, to save registers */
        release(&sm.kv_empty);

        /* The splits of a head group add to dkv in order; the semaphore counts their warps. */
        int32_t *semaphore = p.dkv_order + item.tile * p.K + item.kv_head;
        if (item.head_split > 0) {
            if (lane == 0)
                while (semaphore_read(semaphore) < WARPS * item.head_split) {
                }
            __syncwarp();
        }
        const bool add = p.accumulate_dkv || item.head_split > 0;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int key = tile_key + 8 * r;
            if (key >= item.rows) continue;
            float *to = p.dkv + ((int64_t)(item.row0 + key) * 2 * p.K + item.kv_head) * D + 2 * t;
            store_row<D>(to, dk, r, D, add);
            store_row<D>(to + p.K * D, dv, r, D, add);
        }
        if (p.head_splits > 1) {
            __syncwarp();
            if (lane == 0) {
                __threadfence();
                if (atomicAdd(semaphore, 1) == WARPS * p.head_splits - 1)
                    *semaphore = 0; /* for the next call */
            }
        }
        if (item.range >= 0 && item.range < p.remote.n) {
            __syncwarp();
            if (lane == 0) {
                __threadfence();
                int32_t *done = &p.range_warps_done[item.range];
                if (atomicAdd(done, 1) == p.range_warps[item.range] - 1) {
                    *done = 0;
                    signal_dkv_done(&p.remote.dkv_done[item.range]);
                }
            }
        }
    }
    /* Only after this warpgroup's last dq was added: add_dq() must see every phase of dq_full. */
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
            produce<D>(sm, keys, p);
        else if (warp == 3)
            load_steps<D>(sm, &map_q, &map_do, p);
        else if (warp > 0 && threadIdx.x % 32 == 0)
            add_dq<D>(sm, &map_dq, p, warp - 1);
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

/* Chooses among how many items the query heads of a KV head are split: the choice that ends first
 * by this estimate, in steps. An SM has at least the mean and at least the longest item to walk,
 * and the splits of a group wait for one another at their end (BWD_SPLIT_WAIT_STEPS an item for
 * each link of each split's chain, so that the best of the header's numbers of splits wins). */
int choose_head_splits(const AttnList &list, int K, int group, int sm_count) {
    int best = 1;
    double least = INFINITY, mean = (double)list.n_steps * K * group / sm_count;
    for (int splits = 1; splits <= group; splits++) {
        if (group % splits) continue;
        double items = (double)list.n_tiles * K * splits / sm_count;
        double cost = fmax((double)list.longest * group / splits, mean) +
                      BWD_SPLIT_WAIT_STEPS * splits * (splits - 1) * items;
        if (cost < least) {
            least = cost;
            best = splits;
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
    if (accumulate_dkv) list.n_tiles = list.n_busy; /* keys that no row sees keep their values */
    if (list.n_tiles == 0) return;
    if (deterministic)
        cudaMemsetAsync(work->dq_order, 0, (size_t)attn_dq_order_bytes(work), stream);
    int head_splits = choose_head_splits(list, s.K, s.H / s.K, work->sm_count);
    /* q, dO and dq of the heads that CTAs walk at the same time should stay in L2. With schedule
     * groups CTAs are not in step (each starts a group when it finishes another), and walk all
     * heads of a head group. If all heads fit into L2 together, the call ends with the short items
     * of all.
     */
    bool has_groups = work->remote.n > 0;
    int64_t head = i64_max(s.Sq * s.D * 8, 1), head_group = head * (s.H / s.K);
    int64_t heads_in_flight = has_groups ? l2_share(BWD_REMOTE_L2_MIB, work->l2_bytes) / head_group
                                         : l2_share(BWD_L2_MIB, work->l2_bytes) / head;
    bool all_fit = s.H * head <= l2_share(BWD_ALL_L2_MIB, work->l2_bytes);
    int64_t heads_in_last_group = has_groups && all_fit ? INT32_MAX : heads_in_flight;
    BwdParams p = {};
    p.dkv = dkv;
    p.lse = lse;
    p.delta = delta;
    p.list = list;
    p.order = item_order(list, s.K * head_splits, heads_in_flight, heads_in_last_group);
    p.counters = work->counters + 2;
    p.dkv_order = work->dkv_order;
    p.dq_order = deterministic ? work->dq_order : NULL;
    p.Sq = (int)s.Sq;
    p.H = s.H;
    p.K = s.K;
    p.n_dq_blocks = work->n_dq_blocks;
    p.head_splits = head_splits;
    p.scale = s.scale;
    p.accumulate_dkv = accumulate_dkv;
    p.remote = work->remote;
    p.range_warps_done = work->range_warps_done;
    for (int i = 0; i < work->remote.n; i++)
        p.range_warps[i] = WARPS * work->range_tiles[i] * s.K * head_splits;
    if (s.D == 64)
        launch<64>(p, dq, d_o, q, kv, work, stream);
    else
        launch<128>(p, dq, d_o, q, kv, work, stream);
}
