/* attention.h: what the attention kernels share. A call's bands are turned once, on the host, into two
 * work lists: by_q (tiles of query rows that walk keys: forward, and dQ of the portable backward) and
 * by_k (tiles of keys that walk query rows: backward). Both are the same structure, because a
 * transposed band is again a band; "row" below is the tile's axis, "column" the axis it walks. */
#ifndef CRIA_CUDA_ATTENTION_H
#define CRIA_CUDA_ATTENTION_H

#include "device.h"

/* One band's share of one tile: columns first, first + step, ... in n_steps steps. Steps in
 * [full_begin, full_end) lie wholly inside the band; the others need its mask. */
typedef struct {
    int32_t first, n_steps, full_begin, full_end;
    Band band; /* clipped to the tile's rows; transposed in by_k */
    int32_t pad[2];
} AttnRun;

typedef struct {
    int32_t row0, rows; /* the rows that this tile writes; no two tiles share one */
    int32_t run_begin, run_end;
    int32_t n_steps; /* of all its runs */
    int32_t pad[3];
} AttnTile;

typedef struct {
    const AttnTile *tiles; /* device memory, longest first */
    const AttnRun *runs;
    int32_t n_tiles, n_busy; /* all tiles; those with steps, which come first */
} AttnList;

typedef struct {
    int rows, step; /* of a tile, of a step */
} AttnGrid;

struct AttnWork {
    AttnShape shape;
    bool sm90;
    int sm_count;
    AttnList by_q, by_k;
    int32_t *counters; /* device: {next item, CTAs done} of forward, then of backward; zero at rest */
    void *memory;
    cudaStream_t stream; /* memory belongs to its order */
};

/* Tile sizes of the two implementations; by_q and by_k. */
void attn_sm90_grids(int D, AttnGrid *by_q, AttnGrid *by_k);
void attn_portable_grids(int D, AttnGrid *by_q, AttnGrid *by_k);

void attn_sm90_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                   const AttnWork *work, bool resume, cudaStream_t stream);
void attn_sm90_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                   const float *lse, const float *delta, const AttnWork *work, bool accumulate_dq,
                   bool accumulate_dkv, cudaStream_t stream);
void attn_portable_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                       const AttnWork *work, bool resume, cudaStream_t stream);
void attn_portable_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                       const float *lse, const float *delta, const AttnWork *work,
                       bool accumulate_dq, bool accumulate_dkv, cudaStream_t stream);

extern "C" {
/* The attention rows of the Ops table (contracts in ops.h). */
Status cuda_attn_work_create(AttnWork **work, const Band *bands, int64_t n_bands, AttnShape shape,
                             Stream *stream);
void cuda_attn_work_free(AttnWork *work);
void cuda_attention_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                        const AttnWork *work, bool resume, Stream *stream);
void cuda_attention_delta(float *delta, const void *d_o, const void *o, int64_t S, int H, int D,
                          Stream *stream);
void cuda_attention_bwd(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                        const float *lse, const float *delta, const AttnWork *work,
                        bool accumulate_dq, bool accumulate_dkv, Stream *stream);

/* As cuda_attn_work_create, with the portable kernels whatever the device: the oracle in tests. */
Status cuda_attn_work_create_portable(AttnWork **work, const Band *bands, int64_t n_bands,
                                      AttnShape shape, Stream *stream);
}

#ifdef __CUDACC__
/* The columns [*begin, *end) that `row` sees in a band, relative to column c0; empty when the row is
 * outside. All limits fit 32 bits because |lo|, |hi| <= 2^30. */
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
