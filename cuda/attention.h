/* attention.h: what the attention kernels share. A call's bands are turned once, on the host, into
 * two work lists: by_q (tiles of query rows that walk keys: forward, and dQ of the portable
 * backward) and by_k (tiles of keys that walk query rows: backward). Both are the same structure,
 * because a transposed band is again a band; "row" below is the tile's axis, "column" the axis it
 * walks.
 *
 * The steps of by_k lie on one grid, the slots: the query rows cut as tiles are, so that a slot of
 * dq is what two key tiles add to or neither does. The steps that add to one slot are counted, in
 * the order in which tiles are taken and walked (a tile meets a slot once per band); that each adds
 * only when its `turn` has come makes dq the same bits every time. Tiles walk their slots from the
 * last to the first: those taken first, the longest, of a causal mask reach furthest back, so all
 * start at the same slot and nobody waits for long. */
#ifndef CRIA_CUDA_ATTENTION_H
#define CRIA_CUDA_ATTENTION_H

#include "device.h"

/* One band's share of one tile: columns first, first + step, ... in n_steps steps. Steps in
 * [full_begin, full_end) lie wholly inside the band; the others need its mask. */
typedef struct {
    int32_t first, n_steps, full_begin, full_end;
    Band band; /* clipped to the tile's rows; transposed in by_k, and clipped to the run's slots */
    int32_t slot; /* by_k: of the first step */
    int32_t turn; /* by_k: how many steps add to each of these slots of dq before this run's */
} AttnRun;

typedef struct {
    int32_t row0, rows; /* the rows that this tile writes; no two tiles share one */
    int32_t run_begin, run_end;
    int32_t n_steps; /* of all its runs */
    int32_t phase;   /* tiles are taken phase by phase; see build_list() */
    /* by_q: tiles of the same rows, each with some of their keys, hand o and lse on from one to the
     * next; 0 of 1: one tile has them all. */
    int32_t part, parts;
    int32_t handover; /* which of AttnWork's, if there are parts */
} AttnTile;

enum { ATTN_PHASES = ATTN_SOURCES + 2, ATTN_WARPS = 12 /* of a forward tile, at most */ };

typedef struct {
    const AttnTile *tiles; /* device memory: in each phase the longest first, parts in order */
    const AttnRun *runs;
    int32_t n_tiles, n_busy; /* all tiles; those with steps, which come first without sources */
    int32_t longest;         /* steps of a tile */
    int32_t phase_end[ATTN_PHASES]; /* tiles of this phase and those before */
    int64_t n_steps;         /* of all tiles */
} AttnList;

typedef struct {
    int rows, step; /* of a tile, of a step */
} AttnGrid;

struct AttnWork {
    AttnShape shape;
    bool sm90; /* or the portable kernels */
    bool wide; /* tiles of the forward */
    bool parts; /* some of them are in parts */
    int sm_count;
    AttnList by_q, by_k;
    int32_t n_slots;
    /* Device memory, zero at rest: {next item, CTAs done} of forward, then of backward; warps that
     * have written their share of a tile's dkv, [tile][KV head]. */
    int32_t *counters, *dkv_turns;
    int32_t *dq_turns; /* [head][slot][2]: steps that have added; zeroed before each use */
    AttnSources sources; /* n = 0: none */
    int32_t source_tiles[ATTN_SOURCES]; /* of by_k */
    int32_t *source_warps; /* device memory, zero at rest: [source], that have written their dkv */
    uint32_t *handovers;   /* likewise: [tile in parts][head][ATTN_WARPS], that are done */
    void *memory;
    cudaStream_t stream; /* memory belongs to its order */
};

/* How many keys lie in the kv of a call, and the first that lies in that of the sources. */
static inline int32_t attn_own_keys(const AttnWork *work) {
    return work->sources.n ? work->sources.rows[0].begin - ATTN_GAP : (int32_t)work->shape.Sk;
}
static inline int32_t attn_first_source(const AttnWork *work) {
    return work->sources.n ? work->sources.rows[0].begin : INT32_MAX;
}

static inline int64_t attn_dq_turns_bytes(const AttnWork *work) {
    return (int64_t)work->n_slots * work->shape.H * 2 * (int64_t)sizeof(int32_t);
}

/* Tile sizes of the two implementations; by_q and by_k. */
void attn_sm90_grids(int D, int wide, AttnGrid *by_q, AttnGrid *by_k);
void attn_portable_grids(AttnGrid *by_q, AttnGrid *by_k);
/* Whether rows that see so many keys on average may be worth the forward's wide tiles. */
bool attn_sm90_wide(int D, double keys_per_row);
/* What a step of the forward takes on an H100. */
double attn_sm90_fwd_step_us(int D, int wide);

void attn_sm90_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                   const AttnWork *work, bool resume, cudaStream_t stream);
void attn_sm90_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                   const float *lse, const float *delta, const AttnWork *work, bool accumulate_dq,
                   bool accumulate_dkv, bool deterministic, cudaStream_t stream);
void attn_portable_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                       const AttnWork *work, bool resume, cudaStream_t stream);
void attn_portable_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                       const float *lse, const float *delta, const AttnWork *work,
                       bool accumulate_dq, bool accumulate_dkv, cudaStream_t stream);

extern "C" {
/* The attention rows of the Ops table (contracts in ops.h). */
Status cuda_attn_work_create(AttnWork **work, const Band *bands, int64_t n_bands, AttnShape shape,
                             const AttnSources *sources, Stream *stream);
void cuda_attn_work_free(AttnWork *work);
void cuda_attention_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                        const AttnWork *work, bool resume, Stream *stream);
void cuda_attention_delta(float *delta, const void *d_o, const void *o, int64_t S, int H, int D,
                          Stream *stream);
void cuda_attention_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                        const float *lse, const float *delta, const AttnWork *work,
                        bool accumulate_dq, bool accumulate_dkv, Stream *stream);

/* Whether dq is the same bits every time, or is added up in whatever order is fastest (the
 * default). Everything else is the same bits in either case. */
void cuda_attention_deterministic(bool on);

/* As cuda_attn_work_create, for tests: what it chooses; the portable kernels whatever the device; on
 * Hopper with D = 64 wide tiles whatever the bands. */
typedef enum { ATTN_BEST, ATTN_PORTABLE, ATTN_WIDE } AttnKernels;
Status cuda_attn_work_create_as(AttnKernels kernels, AttnWork **work, const Band *bands,
                                int64_t n_bands, AttnShape shape, const AttnSources *sources,
                                Stream *stream);
}

#ifdef __CUDACC__
/* Before keys of a source are read. They were written by copy engines and may be read by TMA:
 * acquired from the whole system, for every proxy. */
static __device__ __forceinline__ void wait_for_arrival(const uint32_t *flag) {
    uint32_t there;
    do {
        asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(there) : "l"(flag) : "memory");
    } while (there == 0);
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

/* The same for the sources whose keys begin at or before `column`; *arrived of them are there. */
static __device__ __forceinline__ void wait_for_sources(const AttnSources &sources, int column,
                                                        int *arrived) {
    for (; *arrived < sources.n && column >= sources.rows[*arrived].begin; ++*arrived)
        wait_for_arrival(&sources.arrived[*arrived]);
}

/* After this thread, and those that it waited for, wrote the last gradients of a source. */
static __device__ __forceinline__ void announce_departure(uint32_t *flag) {
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
