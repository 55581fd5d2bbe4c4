/* attention_sm90_bwd.cuh: the first warpgroup of the Hopper backward, which serves the consumers of
 * attention_sm90_bwd.cu. Warp 0 takes items and describes their steps. Warp 3 loads what a step
 * needs, with lse and delta as the consumers' products take them. Warps 1 and 2 add dq to global
 * memory. */
#ifndef CRIA_CUDA_ATTENTION_SM90_BWD_CUH
#define CRIA_CUDA_ATTENTION_SM90_BWD_CUH

#include "attention_sm90.cuh"

constexpr int KEYS = 128;
/* Q is needed longest: until dk, and the two consumer warpgroups are up to a step apart. */
constexpr int Q_STAGES = 3, DO_STAGES = 2;
/* A step's record is read until its dq has been added. */
constexpr int RECORDS = 8;
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
    __nv_bfloat16 q[Q_STAGES][ROWS * D], d_o[DO_STAGES][ROWS * D];
    __nv_bfloat16 ds[2][ROWS * KEYS]; /* of even and of odd steps */
    float dq[2][64 * 64]; /* halves of a step's dq: of its columns if D = 128, or rows */
    /* What is added to S and dP of each row of Q, in eight bf16 (see load_steps()); then zeros. */
    uint4 offsets[Q_STAGES][2][ROWS];
    BwdStep step[RECORDS];
    BwdItem item;
    uint64_t kv_full, kv_empty, step_full[RECORDS];
    uint64_t q_full[Q_STAGES], q_empty[Q_STAGES], do_full[DO_STAGES], do_empty[DO_STAGES];
    uint64_t dq_full[2], dq_empty[2];
};

/* Which buffer of Q a step has, and the parity of its round. */
struct QRing {
    int at = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++at == Q_STAGES) {
            at = 0;
            parity ^= 1;
        }
    }
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
                    const uint32_t round = steps / Q_STAGES;
                    mbar_wait(&sm.q_empty[steps - round * Q_STAGES], (round & 1) ^ 1);
                    BwdStep &step = sm.step[ring_index<RECORDS>(steps)];
                    step.head = head;
                    step.row_end = run->band.k_end;
                    step.dq_block = run->dq_block + j;
                    step.dq_order = run->dq_order;
                    step.step.c0 = run->first + j * Bwd<D>::ROWS;
                    step.step.masked = j < run->full_begin || j >= run->full_end;
                    if (step.step.masked) step.step.band = run->band;
                    mbar_arrive(&sm.step_full[ring_index<RECORDS>(steps)]);
                }
            }
        }
    }
    mbar_wait(&sm.kv_empty, (items & 1) ^ 1);
    sm.step[ring_index<RECORDS>(steps)].head = -1;
    sm.item.n_steps = -1;
    mbar_arrive(&sm.step_full[ring_index<RECORDS>(steps)]); /* for load_steps() */
    mbar_arrive(&sm.kv_full); /* for the consumers, which pass it on to add_dq() */
    counters_reset(p.counters);
}

/* x as the sum of three bf16, exact to 24 bits, and a zero. */
static __device__ __forceinline__ uint2 split_bf16(float x) {
    float hi = __bfloat162float(__float2bfloat16(x));
    float mid = __bfloat162float(__float2bfloat16(x - hi));
    return make_uint2(pack_bf16(hi, mid), pack_bf16(x - hi - mid, 0));
}

/* One warp: loads q, dO, lse and delta of each step. What is added to S is (ln scale - lse) /
 * scale, so that scale times the sum is the exponent of scale P; what is added to dP is -delta.
 * Rows outside the band, and rows that see nothing, get an exponent for which P = 0. */
template <int D>
__device__ void load_steps(BwdShared<D> &sm, const CUtensorMap *map_q, const CUtensorMap *map_do,
                           const BwdParams &p) {
    constexpr int ROWS = Bwd<D>::ROWS;
    const int lane = threadIdx.x % 32;
    const float per_scale = 1 / p.scale, log_scale = logf(p.scale);
    QRing ring;
    for (uint32_t n = 0;; n++, ring.next()) {
        const int record = ring_index<RECORDS>(n), at = ring_index<DO_STAGES>(n);
        mbar_wait(&sm.step_full[record], ring_parity<RECORDS>(n));
        const BwdStep &step = sm.step[record];
        const int head = step.head, row0 = step.step.c0, end = step.row_end;
        if (head < 0) break;
        if (lane == 0) {
            mbar_arrive_expect(&sm.q_full[ring.at], ROWS * D * 2);
            tma_load(sm.q[ring.at], map_q, 0, row0, head * (D / 64), &sm.q_full[ring.at]);
        }
        const int64_t from = (int64_t)head * p.Sq + row0;
#pragma unroll
        for (int row = lane; row < ROWS; row += 32) {
            bool inside = row0 + row < end;
            float lse = inside ? p.lse[from + row] : -INFINITY;
            float delta = inside ? p.delta[from + row] : 0;
            uint2 s = split_bf16(lse == -INFINITY ? -1e30f : (log_scale - lse) * per_scale);
            uint2 dp = split_bf16(-delta);
            sm.offsets[ring.at][0][row] = make_uint4(s.x, s.y, dp.x, dp.y);
        }
        fence_async_proxy();
        __syncwarp();
        if (lane == 0) {
            mbar_arrive(&sm.q_full[ring.at]);
            mbar_wait(&sm.do_empty[at], ring_parity<DO_STAGES>(n) ^ 1);
            mbar_arrive_expect(&sm.do_full[at], ROWS * D * 2);
            tma_load(sm.d_o[at], map_do, 0, row0, head * (D / 64), &sm.do_full[at]);
        }
        __syncwarp();
    }
}

/* One lane: adds one half of each staged dq to global memory. The proxies' fence is here, once, and
 * not with the threads that staged it, whose time it would take. */
template <int D>
__device__ void add_dq(BwdShared<D> &sm, const CUtensorMap *map_dq, const BwdParams &p, int half) {
    for (uint32_t n = 0;; n++) {
        mbar_wait(&sm.dq_full[half], n & 1);
        fence_async_proxy();
        const BwdStep &step = sm.step[ring_index<RECORDS>(n)];
        if (step.head < 0) break;
        const int row = step.step.c0 + (D == 64 ? 64 * half : 0);
        const int column = step.head * D + (D == 128 ? 64 * half : 0);
        int32_t *semaphore = NULL;
        const int order = step.dq_order;
        if (p.dq_order) {
            semaphore =
                p.dq_order + ((int64_t)step.head * p.n_dq_blocks + step.dq_block) * 2 + half;
            while (semaphore_read(semaphore) != order) {
            }
            fence_async_global();
        }
        tma_reduce_add(map_dq, 0, row, column / 32, sm.dq[half]);
        bulk_commit();
        bulk_wait_read();
        mbar_arrive(&sm.dq_empty[half]);
        if (semaphore) {
            bulk_wait();
            fence_async_global();
            semaphore_write(semaphore, order + 1);
        }
    }
    bulk_wait();
}

#endif
