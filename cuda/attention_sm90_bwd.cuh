/* attention_sm90_bwd.cuh: the first warpgroup of the Hopper backward, which serves the consumers of
 * attention_sm90_bwd.cu. Warp 0 takes items and describes their steps. Warp 3 loads what a step
 * needs, with lse and delta prepared for the exponent: rows outside the band get lse = +inf, so P =
 * 0 without a mask. Warps 1 and 2 add dq to global memory. */
#ifndef CRIA_CUDA_ATTENTION_SM90_BWD_CUH
#define CRIA_CUDA_ATTENTION_SM90_BWD_CUH

#include "attention_sm90.cuh"

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

#endif
