/* attention_sm90_fwd.cu: o = softmax(scale q k^T) v over a band list, on Hopper.
 *
 * Online softmax over tiles of keys (Milakov and Gimelshein, 2018; Dao et al., FlashAttention,
 * 2022); warp specialisation and the overlap of softmax with matrix products as in FlashAttention-3
 * (Shah et al., 2024). 4 D flops per allowed (row, key) pair and head.
 *
 * One persistent CTA per SM. Warpgroup 0 is the producer: one lane takes (tile, head) items from a
 * counter, longest first, and loads Q, then K and V of every step of every run of the tile; beside
 * each K it leaves a Step record. Consumers see one stream of steps, whatever the bands were and
 * wherever items end: the first product of an item runs beside the last of the one before. Each
 * other warpgroup owns 64 rows: S = Q K^T and O in accumulators, P in registers. Under the softmax
 * of S(j) runs P(j-1) V, and the products of the other warpgroups: there are two at D = 128, whose
 * registers have no room for more, and three at D = 64.
 *
 * Most steps compute no maximum. With any m, p = exp2(c s - m) gives the same o = sum p v / sum p
 * and lse; m only keeps p in the range of fp32, and bf16 has the same. So a step wholly inside a
 * band uses the m of the step before. If a thread's p sum to more than LIMIT (one may be infinite),
 * the maximum is stale: the warp recomputes its scores, from Q and K that are still in shared
 * memory, and updates the maximum first. Steps with a mask, and steps where a row has no key yet,
 * always do so. At the lower end nothing is lost: m was a score of the row, or its lse, so its sum
 * is at least 1, and p below 2^-126 are negligible beside it. The vote on this is also what makes
 * the overlap real: ptxas waits for wgmma at the head of the basic block that asks for it, and
 * without a branch behind the exponentials that is before them.
 *
 * Split-KV: with remote KV, a CTA that takes unsplit tiles soon waits in each of them, although
 * local keys of other tiles are left. So a tile may be split: one CTA walks its local keys and
 * leaves o, in fp32, and lse; another CTA continues when the remote keys are ready
 * (src/attn/tiles.c). This hides transfers without a second launch, and splits only as much as the
 * transfers are long. SPLIT_KV is a template flag: the branch alone costs up to 2 % when nothing is
 * split.
 *
 * Measured on an H200, us a call in the state "step" of bench/timing.h, causal 8k, 32/8 heads,
 * D = 64: 590; with two warpgroups and S(j+1) under the softmax of S(j), 685; three so with 80 keys
 * a step, 643; 112 keys a step, 612; turns of the warpgroups by a named barrier, 594; two
 * warpgroups with 192 keys, 677. A quarter of the exponentials by a polynomial: 8 % slower. D =
 * 128, 24/8 heads: 678; turns, 695; 144 keys a step, 718; 112 keys, 707. */
#include "attention_sm90_fwd.cuh"
#include "tuning.h"

namespace {

template <int D> struct Fwd;
template <> struct Fwd<128> {
    static constexpr int WGS = 2, STEP = 128, STAGES = 2, ITEMS = 2, CONSUMER_REGS = 232,
                         PRODUCER_REGS = 40;
};
template <> struct Fwd<64> {
    static constexpr int WGS = 3, STEP = 128, STAGES = 4, ITEMS = 2, CONSUMER_REGS = 160,
                         PRODUCER_REGS = 32;
};

/* Stage n of the ring: K of step n and V of step n - 1, which are multiplied at the same time. */
template <int D> struct FwdShared {
    using C = Fwd<D>;
    static constexpr int ROWS = 64 * C::WGS;
    __nv_bfloat16 q[C::ITEMS][ROWS * D]; /* then the staging of O */
    __nv_bfloat16 k[C::STAGES][C::STEP * D], v[C::STAGES][C::STEP * D];
    Step step[C::STAGES];
    Item item[C::ITEMS];
    uint64_t q_full[C::ITEMS], q_empty[C::ITEMS], full[C::STAGES], empty[C::STAGES];
};

template <int D, bool SPLIT_KV>
__device__ void produce(FwdShared<D> &sm, const CUtensorMap *map_q, const KeyMaps &keys,
                        const FwdParams &p) {
    using C = Fwd<D>;
    constexpr int ST = C::STAGES, BYTES = C::STEP * D * 2;
    uint32_t items = 0, n = 0; /* produced so far */
    int ready = 0;             /* remote ranges */
    struct {
        int c0, panel;
    } due = {0, -1}; /* the V of the last step; panel < 0: none */
    auto stage = [&](int c0, int k_panel, int v_panel, bool masked, const Band &band) {
        const int i = ring_index<ST>(n);
        mbar_wait(&sm.empty[i], ring_parity<ST>(n) ^ 1);
        Step &step = sm.step[i];
        step.c0 = c0;
        step.masked = masked;
        if (masked) step.band = band;
        mbar_arrive_expect(&sm.full[i], ((k_panel >= 0) + (due.panel >= 0)) * BYTES);
        if (k_panel >= 0) load_keys(sm.k[i], keys, c0, k_panel, &sm.full[i]);
        if (due.panel >= 0) load_keys(sm.v[i], keys, due.c0, due.panel, &sm.full[i]);
        due = {c0, v_panel};
        n++;
    };
    int index;
    while ((index = atomicAdd(&p.counters[0], 1)) < p.order.n_items) {
        HeadItem hi = item_decode(index, p.order);
        const AttnTile *tile = &p.list.tiles[hi.tile];
        const int row0 = tile->row0, n_steps = tile->n_steps;
        const int k_panel = hi.head / (p.H / p.K) * (D / 64), v_panel = k_panel + p.K * (D / 64);
        const int qi = ring_index<C::ITEMS>(items);
        mbar_wait(&sm.q_empty[qi], ring_parity<C::ITEMS>(items++) ^ 1);
        sm.item[qi] = Item{row0,
                           tile->rows,
                           hi.head,
                           max(n_steps, 1),
                           tile->kv_split,
                           tile->kv_splits,
                           &p.split_done[(tile->split_tile * p.H + hi.head) * ATTN_WARPS]};
        mbar_arrive_expect(&sm.q_full[qi], 64 * C::WGS * D * 2);
        tma_load(sm.q[qi], map_q, 0, row0, hi.head * (D / 64), &sm.q_full[qi]);
        /* rows that see nothing: one step of zeros from before the first key, all masked */
        if (n_steps == 0) stage(-C::STEP, k_panel, v_panel, true, Band{});
        for (int r = tile->run_begin; r < tile->run_end; r++) {
            const AttnRun *run = &p.list.runs[r];
            int c0 = run->first;
            wait_remote_kv(p.remote, c0, &ready);
            for (int j = 0; j < run->n_steps; j++, c0 += C::STEP)
                stage(c0, k_panel, v_panel, j < run->full_begin || j >= run->full_end, run->band);
        }
    }
    const int qi = ring_index<C::ITEMS>(items);
    mbar_wait(&sm.q_empty[qi], ring_parity<C::ITEMS>(items) ^ 1);
    sm.item[qi].n_steps = -1;
    mbar_arrive(&sm.q_full[qi]);
    if (items > 0) stage(0, -1, -1, false, Band{});
    counters_reset(p.counters);
}

/* S = Q K^T: q of 64 rows in a tile of ROWS, k of STEP keys. */
template <int D, int ROWS, int STEP>
__device__ __forceinline__ void issue_scores(float (&s)[STEP / 2], uint64_t q, uint64_t k) {
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        wgmma_ss<0, 0>(s, q + (i / 4) * ROWS * 8 + i % 4 * 2, k + (i / 4) * STEP * 8 + i % 4 * 2,
                       i > 0);
    wgmma_commit();
}

/* O += P V, v of STEP keys. */
template <int D, int STEP>
__device__ __forceinline__ void issue_accumulate(float (&o)[D / 2],
                                                 const uint32_t (&pb)[STEP / 16][4], uint64_t v) {
    wgmma_pin(o);
    wgmma_fence();
#pragma unroll
    for (int b = 0; b < STEP / 16; b++) wgmma_rs<1>(o, pb[b], v + 128 * b, 1);
    wgmma_commit();
}

template <int D, bool SPLIT_KV>
__device__ void consume(FwdShared<D> &sm, const FwdParams &p, int wg) {
    using C = Fwd<D>;
    constexpr int ST = C::STAGES, IT = C::ITEMS, STEP = C::STEP, BLOCKS = STEP / 16;
    constexpr int ROWS = 64 * C::WGS;
    constexpr uint32_t TILE = STEP * D * 2 / 16; /* of K or V, in units of descriptors */
    const int warp_row = wg * 64 + __shfl_sync(0xffffffff, threadIdx.x / 32 % 4, 0) * 16;
    const uint64_t q_desc = desc_tile(smem_addr(sm.q[0]) + wg * 64 * 128);
    const uint64_t k_desc = desc_tile(smem_addr(sm.k[0]));
    const uint64_t v_desc = desc_tile(smem_addr(sm.v[0]), STEP);
    float o[D / 2], s[STEP / 2], m[2], l[2], factor[2];
    uint32_t pb[BLOCKS][4] = {};

    auto wait_stage = [&](uint32_t n) {
        mbar_wait(&sm.full[ring_index<ST>(n)], ring_parity<ST>(n));
    };
    /* the number of steps of item n, -1 at the end */
    auto wait_item = [&](uint32_t n) -> int {
        mbar_wait(&sm.q_full[ring_index<IT>(n)], ring_parity<IT>(n));
        return __shfl_sync(0xffffffff, sm.item[ring_index<IT>(n)].n_steps, 0);
    };
    auto score = [&](uint32_t item, uint32_t n) {
        issue_scores<D, ROWS, STEP>(s,
                                    desc_plus(q_desc, ring_index<IT>(item) * (ROWS * D * 2 / 16)),
                                    desc_plus(k_desc, ring_index<ST>(n) * TILE));
    };
    auto accumulate = [&](uint32_t n) {
        issue_accumulate<D, STEP>(o, pb, desc_plus(v_desc, ring_index<ST>(n) * TILE));
    };
    auto finish = [&](uint32_t n) {
        uint8_t *stage = (uint8_t *)sm.q[ring_index<IT>(n)] + warp_row * 128;
        store_rows<D, ROWS, SPLIT_KV>(o, m, l, sm.item[ring_index<IT>(n)], p, warp_row, stage);
        warp_arrive(&sm.q_empty[ring_index<IT>(n)]);
    };

#pragma unroll
    for (int i = 0; i < D / 2; i++) o[i] = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) l[r] = m[r] = 0;
    uint32_t item = 0, j = 0; /* of the softmax */
    int left = wait_item(0);  /* steps of the item whose S is due */
    if (left < 0) return;
    bool first = true, rows_have_max = false;

    /* A step: the softmax of S(j) over P(j-1) V. The first step of all multiplies P = 0. */
    do {
        const bool last = left == 1; /* of its item */
        const int q = ring_index<IT>(item), stage = ring_index<ST>(j);
        wait_stage(j);
        score(item, j);
        accumulate(j);
        wgmma_wait<1>();
        wgmma_pin(s);
        if (first) {
            wgmma_wait<0>();
            wgmma_pin(s);
            wgmma_pin(o);
            if (item > 0) finish(item - 1);
            load_rows<D, SPLIT_KV>(o, m, l, sm.item[q], p, warp_row);
            rows_have_max = false;
        }
        bool max_grew = softmax<D, ROWS>(s, m, l, factor, &rows_have_max, sm.step[stage],
                                         sm.item[q].row0, warp_row, p.c, sm.q[q], sm.k[stage]);
        wgmma_wait<0>();
        wgmma_pin(s);
        wgmma_pin(o);
        warp_arrive(&sm.empty[stage]);
        if (max_grew) rescale(o, factor);
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) pack_block(pb[b], s, b);
        if (last) left = wait_item(item + 1) + 1;
        left--;
        first = last;
        item += last;
        j++;
    } while (left >= 0);
    wait_stage(j);
    accumulate(j);
    wgmma_wait<0>();
    wgmma_pin(o);
    finish(item - 1);
}

template <int D, bool SPLIT_KV>
__global__ void __launch_bounds__((Fwd<D>::WGS + 1) * 128, 1)
    fwd_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ KeyMaps keys,
               const FwdParams p) {
    using C = Fwd<D>;
    /* The SM has 64 Ki registers, dealt in multiples of 8 a thread; a warpgroup that asks for more
     * than is left waits forever. */
    static_assert(C::PRODUCER_REGS + C::WGS * C::CONSUMER_REGS <=
                  (C::WGS + 1) * (512 / (C::WGS + 1) / 8 * 8));
    extern __shared__ uint8_t raw[];
    FwdShared<D> &sm = shared_as<FwdShared<D>>(raw);
    const int wg = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&map_q);
        prefetch_keys(keys);
        for (int i = 0; i < C::ITEMS; i++) {
            mbar_init(&sm.q_full[i], 1);
            mbar_init(&sm.q_empty[i], 4 * C::WGS); /* each consumer warp for itself */
        }
        for (int i = 0; i < C::STAGES; i++) {
            mbar_init(&sm.full[i], 1);
            mbar_init(&sm.empty[i], 4 * C::WGS);
        }
        mbar_init_fence();
    }
    __syncthreads();
    if (wg == 0) {
        registers_shrink<C::PRODUCER_REGS>();
        if (threadIdx.x == 0) produce<D, SPLIT_KV>(sm, &map_q, keys, p);
    } else {
        registers_grow<C::CONSUMER_REGS>();
        consume<D, SPLIT_KV>(sm, p, wg - 1);
    }
}

template <int D, bool SPLIT_KV>
void launch_as(const FwdParams &p, const void *q, const void *kv, const AttnWork *work,
               cudaStream_t stream) {
    using C = Fwd<D>;
    constexpr int bytes = shared_bytes<FwdShared<D>>();
    static_assert(bytes <= 227 * 1024 && 4 * C::WGS <= ATTN_WARPS);
    const auto kernel = fwd_kernel<D, SPLIT_KV>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    CUtensorMap map_q = tile_map(q, p.Sq, p.H, D, 64 * C::WGS);
    KeyMaps keys = key_maps(work->shape.Sk ? kv : q, work, C::STEP);
    kernel<<<(unsigned)i64_min(p.order.n_items, work->sm_count), (C::WGS + 1) * 128, bytes,
             stream>>>(map_q, keys, p);
}

template <int D>
void launch(const FwdParams &p, const void *q, const void *kv, const AttnWork *work,
            cudaStream_t stream) {
    (work->split_kv ? launch_as<D, true> : launch_as<D, false>)(p, q, kv, work, stream);
}

} /* namespace */

AttnGrid attn_sm90_fwd_grid(int D) {
    return D == 128 ? AttnGrid{FwdShared<128>::ROWS, Fwd<128>::STEP}
                    : AttnGrid{FwdShared<64>::ROWS, Fwd<64>::STEP};
}

void attn_sm90_fwd(const AttnFwd *a, cudaStream_t stream) {
    const AttnWork *work = a->work;
    AttnShape s = work->shape;
    AttnList list = work->by_q;
    /* rows that no band touches keep their values */
    if (a->resume && !a->o) list.n_tiles = list.n_busy;
    if (list.n_tiles == 0) return;
    /* the keys and values that CTAs walk at the same time should stay in L2 */
    int64_t groups = l2_share(FWD_L2_MIB, work->l2_bytes) / i64_max(s.Sk * s.D * 4, 1);
    int64_t heads_in_flight = i64_max(groups, 1) * (s.H / s.K);
    FwdParams p = {};
    p.o = (__nv_bfloat16 *)a->o;
    p.o_acc = work->remote.n == 0 || work->split_kv ? a->o_acc : NULL;
    p.lse = a->lse;
    p.list = list;
    p.order = item_order(list, s.H, heads_in_flight, heads_in_flight);
    p.counters = work->counters;
    p.Sq = (int)s.Sq;
    p.H = s.H;
    p.K = s.K;
    p.c = s.scale * LOG2E;
    p.resume = a->resume;
    p.remote = work->remote;
    p.split_done = work->split_done;
    (s.D == 128 ? launch<128> : launch<64>)(p, a->q, a->kv, work, stream);
}
