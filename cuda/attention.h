/* attention.h: what the attention kernels share: the work of a call on the device, and the waits
 * and signals of remote KV. How bands become tiles: src/attn/tiles.h. */
#ifndef CRIA_CUDA_ATTENTION_H
#define CRIA_CUDA_ATTENTION_H

#include "device.h"

enum { ATTN_WARPS = 12 /* of a forward tile, at most */ };

typedef struct {
    const AttnTile *tiles; /* device memory, as in AttnTiles */
    const AttnRun *runs;
    int32_t n_tiles,
        n_busy;      /* all tiles; those with steps, which come first if there is no remote KV */
    int32_t longest; /* steps of a tile */
    int32_t group_end[ATTN_SCHEDULE_GROUPS]; /* tiles of this group and those before */
    int64_t n_steps;                         /* of all tiles */
} AttnList;

struct AttnWork {
    AttnShape shape;
    bool sm90;              /* or the portable kernels */
    bool split_kv;          /* some of them are split */
    int sm_count, l2_bytes; /* of the device */
    AttnList by_q, by_k;
    int32_t n_dq_blocks;
    /* Device memory. The kernels reset these to zero before they exit: {next item, CTAs done} of
     * the forward, then of the backward; semaphores [tile][KV head] that count the warps that have
     * written a tile's dkv, when a head group is split. */
    int32_t *counters, *dkv_order;
    int32_t *dq_order; /* semaphores [head][dq block][2]: steps added; zeroed before each use */
    RemoteKv remote;   /* n = 0: all keys are local */
    int32_t range_tiles[ATTN_REMOTE_RANGES]; /* tiles of by_k in each range */
    /* Device memory, reset to zero likewise: warps that have written dkv, by range; splits done, by
     * [split tile][head][warp of ATTN_WARPS]. */
    int32_t *range_warps_done;
    uint32_t *split_done;
    void *memory;
    cudaStream_t stream; /* memory belongs to its order */
};

/* How many keys lie in the kv of a call, and the first that lies in remote.kv. */
static inline int32_t attn_local_keys(const AttnWork *work) {
    return work->remote.n ? work->remote.rows[0].begin - ATTN_PAD_ROWS : (int32_t)work->shape.Sk;
}
static inline int32_t attn_first_remote(const AttnWork *work) {
    return work->remote.n ? work->remote.rows[0].begin : INT32_MAX;
}

static inline int64_t attn_dq_order_bytes(const AttnWork *work) {
    return (int64_t)work->n_dq_blocks * work->shape.H * 2 * (int64_t)sizeof(int32_t);
}

/* Tile sizes of the two implementations; by_q and by_k. */
void attn_sm90_grids(int D, AttnGrid *by_q, AttnGrid *by_k);
void attn_portable_grids(AttnGrid *by_q, AttnGrid *by_k);

void attn_sm90_fwd(const AttnFwd *a, cudaStream_t stream);
void attn_sm90_bwd(const AttnBwd *a, bool deterministic, cudaStream_t stream);
void attn_portable_fwd(const AttnFwd *a, cudaStream_t stream);
void attn_portable_bwd(const AttnBwd *a, cudaStream_t stream);

extern "C" {
/* As cuda_attn_work_create, for tests: what it chooses; the portable kernels whatever the device.
 */
typedef enum { ATTN_BEST, ATTN_PORTABLE } AttnKernels;
Status cuda_attn_work_create_as(AttnKernels kernels, AttnWork **work, const Band *bands,
                                int64_t n_bands, AttnShape shape, const RemoteKv *remote,
                                Stream *stream);
}

#ifdef __CUDACC__
/* Waits until a remote range may be read. Copy engines wrote it and TMA may read it, hence the
 * acquire at system scope and the fence between proxies. */
static __device__ __forceinline__ void wait_kv_ready(const uint32_t *flag) {
    uint32_t ready;
    do {
        asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(ready) : "l"(flag) : "memory");
    } while (ready == 0);
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

/* The same for all ranges that begin at or before `column`; *ready of them were waited for before.
 */
static __device__ __forceinline__ void wait_remote_kv(const RemoteKv &remote, int column,
                                                      int *ready) {
    for (; *ready < remote.n && column >= remote.rows[*ready].begin; ++*ready)
        wait_kv_ready(&remote.kv_ready[*ready]);
}

/* Called after this thread, and those that it waited for, wrote the last dKV of a range. */
static __device__ __forceinline__ void signal_dkv_done(uint32_t *flag) {
    asm volatile("fence.acq_rel.sys;" ::: "memory");
    asm volatile("red.release.sys.global.add.u32 [%0], 1;" ::"l"(flag) : "memory");
}

/* The columns [*begin, *end) that `row` sees in a band, relative to column c0; empty when the row
 * is outside. All limits fit 32 bits because |lo|, |hi| <= 2^30. */
static __device__ __forceinline__ void band_limits(const Band &band, int row, int c0, int *begin,
                                                   int *end) {
    int a = max(band.k_begin, row + band.lo) - c0;
    int b = min(band.k_end, row + band.hi + 1) - c0;
    bool inside = row >= band.q_begin && row < band.q_end;
    *begin = a;
    *end = inside ? max(a, b) : a;
}
#endif

#endif
