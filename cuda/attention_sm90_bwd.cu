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
 * of dq in the order that its semaphore prescribes (attention.h). The first warpgroup serves them
 * (attention_sm90_bwd.cuh).
 *
 * While the tensor cores compute S, dP and dq they saturate shared memory, and whatever else goes
 * there, or waits for the queue that leads there, takes hundreds of cycles. Hence:
 *   The whole dq of a step is computed by one warpgroup, the two in turns. Its operands are read
 *     once, not half of them twice, and the warpgroups fall out of step, so that one's arithmetic
 *     runs beside the other's products.
 *   lse and delta are added by the tensor cores and not read by each thread: S and dP begin as
 *     [1 1 1 0 ..] times a matrix whose columns are lse and delta as three bf16 each. P gets the
 *     factor scale, which dv loses at the end.
 *   A lane's number, base addresses and whether a step is masked are read ahead of their use.
 *   dS has the rows of each eight in the order in which staging dq has no bank conflicts.
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
 * waits for before it touches the same words (q_full, q_empty, kv_full, kv_empty); racecheck does
 * not follow that.
 *
 * Measured on one H200, causal 8k, TFLOP/s between a model's products, back to back, and of one
 * launch: D = 64: 534, 568, 650; D = 128, 24/8: 566, 585, 695. The deterministic order of dq costs
 * 16 and 25 %. Without adding dq D = 64 gains 2 %, 24/8 at D = 128 nothing, 64/8 7 %: L2 does not
 * bound it. Slower: S of the next step issued ahead, exponentials beside dP's products, the tensor
 * cores or the arithmetic in turns. TFLOP/s at causal 2k by splits of a head group, of an earlier
 * form: D = 64: 1: 237, 2: 338, 4: 160; D = 128, 24/8: 1: 278, 3: 206. All figures: tests/results.
 */
#include "attention_sm90_bwd.cuh"

#include <stddef.h>

#include "tuning.h"

namespace {

/* ---- a step, of one consumer warpgroup ---------------------------------------------------------
 * Everything is transposed: S^T, P^T, dP^T and dS^T are [64 keys, ROWS query rows], a warp has 16
 * keys. g = lane / 4, t = lane % 4. */

/* The A operand of a product that adds columns `first` to `first` + 2 of B to every row. */
__device__ __forceinline__ void ones(uint32_t (&a)[4], int first, int lane) {
    const int column = lane % 4 * 2 - first;
    a[0] = a[1] = column == 0 ? 0x3f803f80 : column == 2 ? 0x00003f80 : 0;
    a[2] = a[3] = 0;
}

/* x = offsets + keys rows^T: S^T from K and Q, dP^T from V and dO. `one` picks the offsets. */
template <int D>
__device__ __forceinline__ void issue_scores(float (&x)[Bwd<D>::ROWS / 2], const uint32_t (&one)[4],
                                             uint64_t offsets, uint64_t keys, uint64_t rows) {
    wgmma_fence();
    wgmma_rs<0>(x, one, offsets, 0);
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        wgmma_ss<0, 0>(x, keys + i / 4 * KEYS * 8 + i % 4 * 2,
                       rows + i / 4 * Bwd<D>::ROWS * 8 + i % 4 * 2, 1);
    wgmma_commit();
}

/* dp becomes dS^T = scale P^T (dP^T - delta) from s = scale P^T. Both go into A operands, dS also
 * to shared memory: ds is the address of this lane's row of a transposed 8x8 block. */
template <int R>
__device__ __forceinline__ void score_gradients(uint32_t (&pb)[R / 8][4], uint32_t (&sb)[R / 8][4],
                                                const float (&s)[R], float (&dp)[R], uint32_t ds) {
#pragma unroll
    for (int b = 0; b < R / 8; b++) {
#pragma unroll
        for (int i = 8 * b; i < 8 * b + 8; i++) dp[i] *= s[i];
        pack_block(pb[b], s, b);
        pack_block(sb[b], dp, b);
        stmatrix_trans(ds + b * 2048, sb[b]);
    }
}

/* d[64 keys, D] += a rows: dv from P^T and dO, dk from dS^T and Q. */
template <int D>
__device__ __forceinline__ void
issue_accumulate(float (&d)[D / 2], const uint32_t (&a)[Bwd<D>::ROWS / 16][4], uint64_t rows) {
#pragma unroll
    for (int b = 0; b < Bwd<D>::ROWS / 16; b++) wgmma_rs<1>(d, a[b], rows + 128 * b, 1);
    wgmma_commit();
}

/* dq[ROWS, D] = dS K, in two halves if ROWS = 128. */
template <int D>
__device__ __forceinline__ void issue_dq(float (&dq)[64], uint64_t ds, uint64_t keys) {
    constexpr int ROWS = Bwd<D>::ROWS;
    wgmma_fence();
    if (ROWS == 64) {
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
            wgmma_ss<0, 1>(dq, ds + i / 4 * ROWS * 8 + i % 4 * 2, keys + 128 * i, i > 0);
    } else {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++)
                wgmma_ss<0, 1>(*(float(*)[32])(dq + 32 * half),
                               ds + half * 512 + i / 4 * ROWS * 8 + i % 4 * 2, keys + 128 * i,
                               i > 0);
    }
    wgmma_commit();
}

/* Where a row of the transposed blocks of dS goes: rows 0 2 4 6 1 3 5 7 of each eight are rows 0 to
 * 7 of dS in shared memory, so that lanes 0 to 15, and 16 to 31, stage dq in all banks. The offset
 * of this lane's row, without buffer, panel and block. */
__device__ __forceinline__ uint32_t ds_offset(int warp, int lane) {
    const int row = lane / 16 * 8 + lane % 2 * 4 + lane % 8 / 2, chunk = 2 * warp + lane / 8 % 2;
    return row * 128 + ((chunk ^ (row & 7)) << 4);
}

/* Stages half of dq in shared memory, 128-byte swizzled, for the copy engine. */
__device__ __forceinline__ void stage_dq(uint8_t *stage, const float *dq, int warp, int lane) {
    const int row_of_8 = lane / 4 % 4 * 2 + lane / 16, t = lane % 4; /* see ds_offset() */
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = warp * 16 + row_of_8 + 8 * r, chunk = i % 4 * 2 + t / 2;
            int to = i / 4 * 8192 + row * 128 + ((chunk ^ row_of_8) << 4) + t % 2 * 8;
            *(float2 *)(stage + to) = make_float2(dq[4 * i + 2 * r], dq[4 * i + 2 * r + 1]);
        }
}

/* ---- an item's dk and dv --------------------------------------------------------------------- */

/* Adds 1 to *count; true for the last of n warps, which finds it back at 0. */
__device__ __forceinline__ bool last_warp(int32_t *count, int n) {
    __threadfence();
    if (atomicAdd(count, 1) != n - 1) return false;
    *count = 0;
    return true;
}

/* Stores this warp's 16 keys. The splits of a head group add to dkv in order; the semaphore counts
 * their warps. */
template <int D>
__device__ __forceinline__ void store_dkv(const float (&dk)[D / 2], const float (&dv)[D / 2],
                                          const BwdItem &item, const BwdParams &p, int tile_key) {
    const int lane = threadIdx.x % 32;
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
        float *to =
            p.dkv + ((int64_t)(item.row0 + key) * 2 * p.K + item.kv_head) * D + 2 * (lane % 4);
        store_row<D>(to, dk, r, D, add);
        store_row<D>(to + p.K * D, dv, r, D, add);
    }
    if (p.head_splits > 1) {
        __syncwarp();
        if (lane == 0) last_warp(semaphore, WARPS * p.head_splits);
    }
    if (item.range >= 0 && item.range < p.remote.n) {
        __syncwarp();
        if (lane == 0 && last_warp(&p.range_warps_done[item.range], p.range_warps[item.range]))
            signal_dkv_done(&p.remote.dkv_done[item.range]);
    }
}

template <int D> __device__ void consume(BwdShared<D> &sm, const BwdParams &p, int wg) {
    using Shared = BwdShared<D>;
    constexpr int ROWS = Bwd<D>::ROWS, BLOCKS = ROWS / 16;
    constexpr uint32_t TILE = ROWS * D * 2 / 16, DS = ROWS * KEYS * 2 / 16; /* of descriptors */
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32 % 4, 0);
    const float c = p.scale * LOG2E, per_scale = 1 / p.scale;
    const int kept_lane = lane_id();
    /* shuffled, so that it stays in a register */
    const uint32_t base = __shfl_sync(0xffffffff, smem_addr(&sm), 0);
    auto tile = [&](size_t offset, int panel_rows = 0) {
        return desc_tile(base + (uint32_t)offset, panel_rows);
    };
    const uint64_t k_desc = tile(offsetof(Shared, k) + wg * 64 * 128);
    const uint64_t v_desc = tile(offsetof(Shared, v) + wg * 64 * 128);
    const uint64_t kt_desc = tile(offsetof(Shared, k), KEYS);
    const uint64_t q_first = tile(offsetof(Shared, q), ROWS);
    const uint64_t do_first = tile(offsetof(Shared, d_o), ROWS);
    const uint64_t ds_first = tile(offsetof(Shared, ds));
    const uint64_t offsets_first = desc_rows(base + (uint32_t)offsetof(Shared, offsets), ROWS);
    uint32_t s_ones[4], dp_ones[4];
    ones(s_ones, 0, kept_lane);
    ones(dp_ones, 4, kept_lane);
    uint32_t steps = 0; /* since the CTA started */
    QRing ring;
    float dk[D / 2], dv[D / 2];
    int masked = 0;
    uint32_t pb[BLOCKS][4], sb[BLOCKS][4];
    /* Waits for Q of step n and reads whether it is masked. */
    auto await_step = [&](uint32_t n) {
        mbar_wait(&sm.q_full[ring.at], ring.parity);
        masked = load_now(&sm.step[ring_index<RECORDS>(n)].step.masked);
    };

    for (uint32_t items = 0;; items++) {
        mbar_wait(&sm.kv_full, items & 1);
        const int n = __shfl_sync(0xffffffff, sm.item.n_steps, 0);
        if (n < 0) break;
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
        if (n > 0) await_step(steps);

#pragma unroll 1
        for (int j = 0; j < n; j++, steps++) {
            const int at = ring_index<DO_STAGES>(steps), q_at = ring.at;
            const uint64_t q_desc = desc_plus(q_first, q_at * TILE);
            const uint64_t do_desc = desc_plus(do_first, at * TILE);
            const uint64_t offsets = desc_plus(offsets_first, q_at * 2 * ROWS);
            float s[ROWS / 2], dp[ROWS / 2];
            issue_scores<D>(s, s_ones, offsets, k_desc, q_desc);
            mbar_wait(&sm.do_full[at], ring_parity<DO_STAGES>(steps));
            issue_scores<D>(dp, dp_ones, offsets, v_desc, do_desc);
            wgmma_wait<1>();
            wgmma_pin(s);
            if (masked)
                mask_scores(s, sm.step[ring_index<RECORDS>(steps)].step,
                            sm.item.row0 + wg * 64 + warp * 16);
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++) s[i] = exp2_fast(s[i] * c);
            wgmma_wait<0>();
            wgmma_pin(dp);
            /* D = 128 reads it again: that takes until this warp's products have left the queue,
             * and holding the arithmetic back until then gains 5 %. */
            const int lane = D == 128 ? lane_id() : kept_lane;
            score_gradients(pb, sb, s, dp,
                            base + (uint32_t)offsetof(Shared, ds) + (steps & 1) * (DS * 16) +
                                wg * ROWS * 128 + ds_offset(warp, lane));
            wgmma_pin(dv);
            wgmma_pin(dk);
            wgmma_fence();
            issue_accumulate<D>(dv, pb, do_desc);
            issue_accumulate<D>(dk, sb, q_desc);
            fence_async_proxy();
            const int dq_wg = steps & 1; /* computes dq once all of dS is in shared memory */
            if (dq_wg == wg)
                named_barrier(1 + dq_wg, 32 * WARPS);
            else
                named_barrier_arrive(1 + dq_wg, 32 * WARPS);
            wgmma_wait<1>();
            wgmma_pin(dv);
            warp_arrive(&sm.do_empty[at], kept_lane);
            wgmma_wait<0>();
            wgmma_pin(dk);
            warp_arrive(&sm.q_empty[q_at], kept_lane);
            ring.next();
            if (dq_wg != wg) {
                if (j + 1 < n) await_step(steps + 1);
                continue;
            }

            float dq[64];
            issue_dq<D>(dq, desc_plus(ds_first, dq_wg * DS), kt_desc);
            if (j + 1 < n) await_step(steps + 1);
            mbar_wait(&sm.dq_empty[0], (steps & 1) ^ 1);
            mbar_wait(&sm.dq_empty[1], (steps & 1) ^ 1);
            wgmma_wait<0>();
            wgmma_pin(dq);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                stage_dq((uint8_t *)sm.dq[half], dq + 32 * half, warp, lane);
                warp_arrive(&sm.dq_full[half], kept_lane);
            }
        }
#pragma unroll
        for (int i = 0; i < D / 2; i++) dv[i] *= per_scale;
        const BwdItem item = sm.item; /* read again, to save registers */
        warp_arrive(&sm.kv_empty, kept_lane);
        store_dkv<D>(dk, dv, item, p, wg * 64 + warp * 16 + lane_id() / 4);
    }
    /* Only after the last dq was added: add_dq() must see every phase of dq_full. */
    mbar_wait(&sm.dq_empty[wg], (steps & 1) ^ 1);
    warp_arrive(&sm.dq_full[wg]);
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
        for (int i = 0; i < RECORDS; i++) mbar_init(&sm.step_full[i], 1);
        for (int i = 0; i < Q_STAGES; i++) {
            mbar_init(&sm.q_full[i], 2); /* q; lse and delta */
            mbar_init(&sm.q_empty[i], WARPS);
        }
        for (int i = 0; i < DO_STAGES; i++) {
            mbar_init(&sm.do_full[i], 1);
            mbar_init(&sm.do_empty[i], WARPS);
        }
        for (int i = 0; i < 2; i++) {
            mbar_init(&sm.dq_full[i], 4);
            mbar_init(&sm.dq_empty[i], 1);
        }
        mbar_init_fence();
    }
    for (int i = threadIdx.x; i < Q_STAGES * Bwd<D>::ROWS; i += THREADS)
        sm.offsets[i / Bwd<D>::ROWS][1][i % Bwd<D>::ROWS] = make_uint4(0, 0, 0, 0);
    fence_async_proxy();
    __syncthreads();
    if (wg == 0) {
        registers_shrink<40>();
        if (threadIdx.x == 0)
            produce<D>(sm, keys, p);
        else if (warp == 3)
            load_steps<D>(sm, &map_q, &map_do, p);
        else if (warp > 0 && threadIdx.x % 32 == 0)
            add_dq<D>(sm, &map_dq, p, warp - 1);
    } else {
        registers_grow<232>();
        consume<D>(sm, p, wg - 1);
    }
}

template <int D> void launch(const BwdParams &p, const AttnBwd *a, cudaStream_t stream) {
    constexpr int bytes = shared_bytes<BwdShared<D>>();
    static_assert(bytes <= 227 * 1024);
    cudaFuncSetAttribute(bwd_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    CUtensorMap map_q = tile_map(a->q, p.Sq, p.H, D, Bwd<D>::ROWS);
    CUtensorMap map_do = tile_map(a->d_o, p.Sq, p.H, D, Bwd<D>::ROWS);
    KeyMaps keys = key_maps(a->kv, a->work, KEYS);
    CUtensorMap map_dq =
        encode_map(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, a->dq, 32, p.Sq, p.H * D / 32, 64, 2);
    bwd_kernel<D>
        <<<(unsigned)i64_min(p.order.n_items, a->work->sm_count), THREADS, bytes, stream>>>(
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

void attn_sm90_grids(int D, AttnGrid *by_q, AttnGrid *by_k) {
    *by_q = attn_sm90_fwd_grid(D);
    *by_k = AttnGrid{KEYS, D == 64 ? Bwd<64>::ROWS : Bwd<128>::ROWS};
}

void attn_sm90_bwd(const AttnBwd *a, bool deterministic, cudaStream_t stream) {
    const AttnWork *work = a->work;
    AttnShape s = work->shape;
    AttnList list = work->by_k;
    if (!a->accumulate_dq) cudaMemsetAsync(a->dq, 0, (size_t)(s.Sq * s.H * s.D) * 4, stream);
    /* keys that no row sees keep their values */
    if (a->accumulate_dkv) list.n_tiles = list.n_busy;
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
    p.dkv = a->dkv;
    p.lse = a->lse;
    p.delta = a->delta;
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
    p.accumulate_dkv = a->accumulate_dkv;
    p.remote = work->remote;
    p.range_warps_done = work->range_warps_done;
    for (int i = 0; i < work->remote.n; i++)
        p.range_warps[i] = WARPS * work->range_tiles[i] * s.K * head_splits;
    if (s.D == 64)
        launch<64>(p, a, stream);
    else
        launch<128>(p, a, stream);
}
