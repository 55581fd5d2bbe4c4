/* attention_sm90.cuh: what the Hopper forward and backward share: step records, masks, the order of
 * (tile, head) items, and tensor maps. */
#ifndef CRIA_CUDA_ATTENTION_SM90_CUH
#define CRIA_CUDA_ATTENTION_SM90_CUH

#include <cudaTypedefs.h>
#include <string.h>

#include "attention.h"
#include "sm90.cuh"

AttnGrid attn_sm90_fwd_grid(int D);

/* What consumers need to know about one step, besides its operands. */
struct Step {
    int c0, masked;
    Band band;
};

/* Of the columns 8 i + {0, 1}, in bits 2 i + {0, 1}: those below `limit`. */
static __device__ __forceinline__ uint32_t columns_below(int limit) {
    int n = max(limit / 8 * 2 + min(limit % 8, 2), 0); /* negative limits round to 0 */
    return __funnelshift_rc(0xffffffff, 0, 32 - min(n, 32));
}

/* Sets the scores outside the band to -inf. s[16, N <= 128] of a warp as wgmma_ss leaves it, rows
 * from `row` and columns from step.c0 on. (Bits turn into predicates seven at a time; comparing
 * each column takes three instructions.) */
template <int R>
__device__ __forceinline__ void mask_scores(float (&s)[R], const Step &step, int row) {
    static_assert(R <= 64);
    const int lane = lane_id();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int begin, end;
        band_limits(step.band, row + lane / 4 + 8 * r, step.c0 + lane % 4 * 2, &begin, &end);
        uint32_t in = columns_below(end) & ~columns_below(begin);
#pragma unroll
        for (int i = 0; i < R / 4; i++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (!(in >> (2 * i + e) & 1)) s[4 * i + 2 * r + e] = -INFINITY;
    }
}

/* n / d for n < 2^31 with a multiplication (Granlund and Montgomery, 1994). */
struct Divisor {
    uint32_t d, multiplier, shift;
};
static inline Divisor divisor(uint32_t d) {
    uint32_t shift = 0;
    while ((1ull << shift) < d) shift++;
    return Divisor{d, (uint32_t)((((1ull << shift) - d) << 32) / d + 1), shift};
}
static __device__ __forceinline__ uint32_t divide(uint32_t n, Divisor by) {
    return (__umulhi(n, by.multiplier) + n) >> by.shift;
}

/* The order of (tile, head) items: schedule group after schedule group, in each section of heads
 * after section, in each tile after tile, longest first, with the section's heads innermost.
 * Sections keep what concurrent CTAs read inside L2, and the CTAs of one head in step. "Head" may
 * also stand for a group of query heads, or for a fraction of one. */
struct ItemOrder {
    int n_items, n_groups;
    struct {
        int first_item, first_tile;
        Divisor section, per_section; /* heads of a section, items of it */
    } groups[ATTN_SCHEDULE_GROUPS];
};
struct HeadItem {
    int tile, head;
};
static __device__ __forceinline__ HeadItem item_decode(int item, const ItemOrder &order) {
    int group = 0;
    while (group + 1 < order.n_groups && item >= order.groups[group + 1].first_item) group++;
    const auto &of = order.groups[group];
    uint32_t within = (uint32_t)(item - of.first_item);
    uint32_t section = divide(within, of.per_section);
    uint32_t rest = within - section * of.per_section.d;
    uint32_t tile = divide(rest, of.section);
    uint32_t head = section * of.section.d + rest - tile * of.section.d;
    return HeadItem{of.first_tile + (int)tile, (int)head};
}
/* Sections of at most `heads_in_flight` heads; of `heads_in_last_group` in the last group. */
static inline ItemOrder item_order(const AttnList &list, int heads, int64_t heads_in_flight,
                                   int64_t heads_in_last_group) {
    ItemOrder order = {};
    int first = 0;
    order.n_items = list.n_tiles * heads;
    for (int group = 0; group < ATTN_SCHEDULE_GROUPS; group++) {
        int end = (int)i64_min(list.group_end[group], list.n_tiles);
        if (end == first) continue;
        int64_t most = end == list.n_tiles ? heads_in_last_group : heads_in_flight;
        int section = heads;
        while (section > 1 && (heads % section || section > most)) section--;
        order.groups[order.n_groups++] = {first * heads, first, divisor((uint32_t)section),
                                          divisor((uint32_t)((end - first) * section))};
        first = end;
    }
    return order;
}

/* The last CTA to finish resets the counters to zero for the next launch. */
static __device__ __forceinline__ void counters_reset(int32_t *counters) {
    __threadfence();
    if (atomicAdd(&counters[1], 1) == (int)gridDim.x - 1) {
        counters[0] = 0;
        counters[1] = 0;
    }
}

static inline CUtensorMap encode_map(CUtensorMapDataType type, const void *base, int64_t inner,
                                     int64_t rows, int64_t panels, int box_rows, int box_panels) {
    static const auto encode =
        (PFN_cuTensorMapEncodeTiled_v12000)cuda_driver_entry("cuTensorMapEncodeTiled", 12000);
    CUtensorMap map;
    cuuint64_t dims[3] = {(cuuint64_t)inner, (cuuint64_t)i64_max(rows, 1), (cuuint64_t)panels};
    cuuint64_t strides[2] = {(cuuint64_t)panels * 128, 128};
    cuuint32_t box[3] = {(cuuint32_t)inner, (cuuint32_t)box_rows, (cuuint32_t)box_panels};
    cuuint32_t unit[3] = {1, 1, 1};
    CUresult result = encode(&map, type, 3, (void *)base, dims, strides, box, unit,
                             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    REQUIRE(result == CUDA_SUCCESS);
    return map;
}

/* bf16 x[rows, heads, D] in boxes of box_rows rows of one head; coordinates (0, row, head * D /
 * 64). */
static inline CUtensorMap tile_map(const void *x, int64_t rows, int heads, int D, int box_rows) {
    return encode_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, x, 64, rows, heads * D / 64, box_rows,
                      D / 64);
}

/* The tensor maps of local and of remote keys. */
struct KeyMaps {
    CUtensorMap local, remote;
    int first_remote; /* row where remote keys begin */
};

static inline KeyMaps key_maps(const void *kv, const AttnWork *work, int box_rows) {
    AttnShape s = work->shape;
    KeyMaps maps;
    maps.first_remote = attn_first_remote(work);
    maps.local = tile_map(kv, attn_local_keys(work), 2 * s.K, s.D, box_rows);
    maps.remote = maps.local;
    if (work->remote.n)
        maps.remote = tile_map(work->remote.kv, s.Sk - maps.first_remote, 2 * s.K, s.D, box_rows);
    return maps;
}

static __device__ __forceinline__ void prefetch_keys(const KeyMaps &maps) {
    prefetch_map(&maps.local);
    prefetch_map(&maps.remote);
}

static __device__ __forceinline__ void load_keys(void *dst, const KeyMaps &maps, int row, int panel,
                                                 uint64_t *bar) {
    if (row < maps.first_remote)
        tma_load(dst, &maps.local, 0, row, panel, bar);
    else
        tma_load(dst, &maps.remote, 0, row - maps.first_remote, panel, bar);
}

#endif
