/* attention_list.h: bands to work lists, on the host. Tiles are cut where bands begin and end, so
 * that packed documents do not share tiles: a tile of two documents would walk the keys of both. */
#ifndef CRIA_CUDA_ATTENTION_LIST_H
#define CRIA_CUDA_ATTENTION_LIST_H

#include "attention.h"

typedef struct {
    AttnTile *tiles;
    AttnRun *runs;
    int64_t n_tiles, n_runs, n_busy, runs_capacity, n_split_tiles;
} AttnTileList;

typedef struct { /* block i is rows [at[i], at[i + 1]) */
    int32_t *at;
    int64_t n;
} AttnBlocks;

/* The blocks of dq: query rows as the steps of by_k, `step` rows each, walk them. */
AttnBlocks attn_dq_blocks(const Band *bands, int64_t n_bands, int32_t Sq, int step);

/* Tiles of query rows that walk keys, from where each band begins. steps_before[i]: how many steps
 * the GPU can do, for each head, before remote range i is ready; tiles are split where fewer steps
 * than that could run without it. NULL: no tile is split. */
AttnTileList attn_tiles_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                             const RemoteKv *remote, const double *steps_before);
/* Tiles of keys that walk dq blocks. */
AttnTileList attn_tiles_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                             const AttnBlocks *dq_blocks, const RemoteKv *remote);
/* Estimates when the last of `ctas` CTAs is done, in us: each (tile, head) item goes to the CTA
 * that is free first, a step takes step_us, and remote keys arrive at est_ready_us (remote NULL: at
 * 0). With more than 32 items a CTA it returns the mean load instead, which is as good. */
double attn_tiles_span_us(const AttnTileList *list, int heads, int ctas, double step_us,
                          const RemoteKv *remote);
void attn_tiles_free(AttnTileList *list);

#endif
