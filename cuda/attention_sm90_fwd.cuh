/* attention_sm90_fwd.cuh: what a warp of the Hopper forward does with its 16 rows: the online
 * softmax, and rows from and to global memory. Thread (g = lane / 4, t = lane % 4) holds parts of
 * rows g and g + 8 in the layout of wgmma_ss; [2] arrays are per row. */
#ifndef CRIA_CUDA_ATTENTION_SM90_FWD_CUH
#define CRIA_CUDA_ATTENTION_SM90_FWD_CUH

#include "attention_sm90.cuh"

struct FwdParams {
    __nv_bfloat16 *o;
    float *o_acc, *lse;
    AttnList list;
    ItemOrder order;
    int32_t *counters;
    int Sq, H, K;
    float c; /* exp(scale x) = exp2(c x) */
    bool resume;
    RemoteKv remote;
    uint32_t *split_done; /* AttnWork's */
};

struct Item {
    int row0, rows, head, n_steps; /* n_steps < 0: no more items */
    /* where tiles may be split, see AttnTile: */
    int kv_split, kv_splits;
    uint32_t *splits_done; /* [warp] */
};

/* ---- split-KV -------------------------------------------------------------------------------- */

/* A warp passes its rows to the same warp of another CTA: split n of a tile waits until n splits
 * are done. No deadlock: the split it waits for was taken earlier and waits for fewer. */
static __device__ __forceinline__ void wait_split(const uint32_t *done, int n) {
    uint32_t seen;
    do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(done) : "memory");
    } while (seen != (uint32_t)n);
}

/* After the warp's last write: n splits are done. After the last split: back to zero. */
static __device__ __forceinline__ void signal_split_done(uint32_t *done, int n, int splits) {
    __syncwarp();
    if (lane_id() == 0)
        asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(done), "r"(n < splits ? n : 0)
                     : "memory");
}

/* ---- softmax --------------------------------------------------------------------------------- */

template <int R> __device__ __forceinline__ void rescale(float (&o)[R], const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < R; i++) o[i] *= factor[i / 2 % 2];
}

/* m is c times the maximum of a row; LOWEST until the row has seen a key. */
constexpr float LOWEST = -3e38f;

/* Raises m to the maximum of c s where that is more than 8 above it. Scales l to the new m; O is
 * to be multiplied by factor. Returns whether any row of the warp has factor != 1. */
template <int R>
__device__ __forceinline__ bool update_max(const float (&s)[R], float (&m)[2], float (&l)[2],
                                           float (&factor)[2], float c) {
    float top[4] = {s[0], s[2], s[1], s[3]}; /* two chains a row */
#pragma unroll
    for (int i = 4; i < R; i++)
        top[i / 2 % 2 + i % 2 * 2] = fmaxf(top[i / 2 % 2 + i % 2 * 2], s[i]);
    bool grow = false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float x = fmaxf(top[r], top[r + 2]);
        x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
        x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2)) * c;
        bool grows = x - m[r] > 8.0f; /* false where x = -inf: nothing allowed */
        float next = grows ? x : m[r];
        factor[r] = grows ? exp2_fast(m[r] - next) : 1.0f;
        m[r] = next;
        l[r] *= factor[r];
        grow |= grows;
    }
    return __any_sync(0xffffffff, grow);
}

/* s = exp2(c s - m); sum gets this thread's share of the row sums. */
template <int R>
__device__ __forceinline__ void exponentials(float (&s)[R], float (&sum)[2], const float (&m)[2],
                                             float c) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < R; i++) {
        s[i] = exp2_fast(fmaf(s[i], c, -m[i / 2 % 2]));
        sum[i / 2 % 2] += s[i];
    }
}

/* Computes the raw scores of a warp's rows again, with mma.sync, because wgmma takes four warps. q:
 * its 16 rows, in a tile of ROWS; k: a tile of R / 2 keys, shared memory. */
template <int D, int ROWS, int R>
__device__ __forceinline__ void recompute_scores(float (&s)[R], uint32_t q, uint32_t k) {
    const int lane = lane_id();
    const uint32_t q_row = q + lane % 16 * 128, k_row = k + (lane / 16 * 8 + lane % 8) * 128;
#pragma unroll
    for (int i = 0; i < R; i++) s[i] = 0;
#pragma unroll 1
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4], b[4], panel = d / 4, chunk = d % 4 * 2;
        ldmatrix(a, q_row + panel * ROWS * 128 + (((chunk + lane / 16) ^ (lane & 7)) << 4));
        const uint32_t at = k_row + panel * R * 256 + (((chunk + lane / 8 % 2) ^ (lane & 7)) << 4);
#pragma unroll
        for (int i = 0; i < R / 8; i++) {
            ldmatrix(b, at + i * 16 * 128);
            mma_bf16(&s[8 * i], a, b[0], b[1]);
            mma_bf16(&s[8 * i + 4], a, b[2], b[3]);
        }
    }
}

/* The most that a thread's p of one row and step may sum to. 2^31 keys of it, times values up to
 * 2^56, stay finite; a step with the maximum stays below 2^14. */
constexpr float LIMIT = 0x1p40f;

/* Turns the scores of a step into P and adds its sums to l. Updates the maximum where a mask or a
 * row without a key asks for it, and where it proves stale (see attention_sm90_fwd.cu). Returns
 * whether O is to be multiplied by factor. q: the item's tile of ROWS rows, whose first is row0 and
 * of which this warp has 16 from warp_row on; k: the step's keys; both in shared memory. */
template <int D, int ROWS, int R>
__device__ __forceinline__ bool
softmax(float (&s)[R], float (&m)[2], float (&l)[2], float (&factor)[2], bool *rows_have_max,
        const Step &step, const int &row0, int warp_row, float c, const void *q, const void *k) {
    bool with_max = step.masked || !*rows_have_max, max_grew = false;
    float sum[2];
#pragma unroll 1
    for (;;) {
        if (with_max) {
            if (step.masked) mask_scores(s, step, row0 + warp_row);
            max_grew = update_max(s, m, l, factor, c);
            *rows_have_max = __all_sync(0xffffffff, m[0] > LOWEST && m[1] > LOWEST);
        }
        exponentials(s, sum, m, c);
        bool max_is_stale = !with_max && (sum[0] > LIMIT || sum[1] > LIMIT);
        if (!__any_sync(0xffffffff, max_is_stale)) break;
        recompute_scores<D, ROWS>(s, smem_addr(q) + warp_row * 128, smem_addr(k));
        with_max = true;
    }
    l[0] += sum[0];
    l[1] += sum[1];
    return max_grew;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Loads o, m and l of the item's rows [warp_row, warp_row + 16) as an earlier call or split left
 * them; otherwise starts them with no key seen. */
template <int D, bool SPLIT_KV>
__device__ __forceinline__ void load_rows(float (&o)[D / 2], float (&m)[2], float (&l)[2],
                                          const Item &item, const FwdParams &p, int warp_row) {
    const int lane = lane_id(), t = lane % 4;
    const bool resume = SPLIT_KV ? item.kv_split > 0 : p.resume;
    if (SPLIT_KV && resume) wait_split(&item.splits_done[warp_row / 16], item.kv_split);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = warp_row + lane / 4 + 8 * r;
        bool old = resume && row < item.rows;
        float lse = old ? p.lse[(int64_t)item.head * p.Sq + item.row0 + row] : -INFINITY;
        m[r] = fmaxf(lse * LOG2E, LOWEST);
        l[r] = lse > -INFINITY && t == 0 ? 1.0f : 0.0f;
        const float *from = p.o_acc + ((int64_t)(item.row0 + row) * p.H + item.head) * D + 2 * t;
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            float2 x = old ? *(const float2 *)(from + 8 * i) : make_float2(0, 0);
            o[4 * i + 2 * r] = x.x;
            o[4 * i + 2 * r + 1] = x.y;
        }
    }
}

/* Divides o by the sums and stores o and lse. bf16 rows are transposed in `stage`, where the warp's
 * 16 rows of Q lay in panels of ROWS rows, once the warpgroup has finished reading them. */
template <int D, int ROWS, bool SPLIT_KV>
__device__ __forceinline__ void store_rows(float (&o)[D / 2], const float (&m)[2], float (&l)[2],
                                           const Item &item, const FwdParams &p, int warp_row,
                                           uint8_t *stage) {
    const int lane = lane_id(), t = lane % 4, tile_row = warp_row + lane / 4;
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(0xffffffff, l[r], 1);
        l[r] += __shfl_xor_sync(0xffffffff, l[r], 2);
        factor[r] = l[r] > 0 ? 1 / l[r] : 0;
        int row = tile_row + 8 * r;
        if (t == 0 && row < item.rows)
            p.lse[(int64_t)item.head * p.Sq + item.row0 + row] =
                l[r] > 0 ? m[r] * LN2 + logf(l[r]) : -INFINITY;
    }
    rescale(o, factor);
    const bool more_splits = SPLIT_KV && item.kv_split + 1 < item.kv_splits;
    if (SPLIT_KV ? more_splits : p.o_acc != NULL) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = tile_row + 8 * r;
            float *to = p.o_acc + ((int64_t)(item.row0 + row) * p.H + item.head) * D + 2 * t;
            if (row < item.rows)
#pragma unroll
                for (int i = 0; i < D / 8; i++)
                    *(float2 *)(to + 8 * i) = make_float2(o[4 * i + 2 * r], o[4 * i + 2 * r + 1]);
        }
    }
    if (p.o && !more_splits) {
        named_barrier(1 + warp_row / 64, 128);
#pragma unroll
        for (int b = 0; b < D / 16; b++) {
            uint32_t block[4];
            pack_block(block, o, b);
            int row = lane % 16, chunk = b % 4 * 2 + lane / 16;
            stmatrix(smem_addr(stage + b / 4 * ROWS * 128 + row * 128 + ((chunk ^ (row & 7)) << 4)),
                     block);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            int row = lane / 8 + i % 4 * 4, chunk = lane % 8, tile = warp_row + row;
            uint4 x = *(const uint4 *)(stage + i / 4 * ROWS * 128 + row * 128 +
                                       ((chunk ^ (row & 7)) << 4));
            if (tile < item.rows)
                *(uint4 *)(p.o + ((int64_t)(item.row0 + tile) * p.H + item.head) * D + i / 4 * 64 +
                           chunk * 8) = x;
        }
        fence_async_proxy();
    }
    if (SPLIT_KV && item.kv_splits > 1)
        signal_split_done(&item.splits_done[warp_row / 16], item.kv_split + 1, item.kv_splits);
}

#endif
