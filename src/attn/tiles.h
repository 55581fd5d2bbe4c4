/* tiles.h: bands to the work lists that attention kernels walk, on the host, in plain C.
 *
 * A call's bands become two lists: by_q (tiles of query rows that walk keys: forward, and dQ of the
 * portable backward) and by_k (tiles of keys that walk query rows: backward). Both are the same
 * structure, because a transposed band is again a band; "row" below is the tile's axis, "column"
 * the axis it walks. Tiles are cut where bands begin and end, so that packed documents do not share
 * tiles: a tile of two documents would walk the keys of both.
 *
 * The steps of by_k lie on one grid of query rows, the dq blocks, so that two key tiles add either
 * to the same block of dq or to disjoint ones. The deterministic backward orders these additions:
 * a run's dq_order says how many steps add to each of its blocks before it, in the order in which
 * tiles are taken and walked (a tile meets a block once per band), and a kernel adds when the
 * block's semaphore shows that number. Tiles walk their blocks from the last to the first: the
 * tiles taken first, the longest, of a causal mask reach furthest back, so all start at the same
 * block and nobody waits for long. */
#ifndef CRIA_ATTN_TILES_H
#define CRIA_ATTN_TILES_H

#include "attn/band.h"

/* Remote KV that a fused attention call consumes as it arrives. Range i, rows[i] of the keys, may
 * be read once kv_ready[i] != 0; after its dKV is written, attention_bwd() adds 1 to dkv_done[i]
 * (both flags in device memory). Kernels wait for the ranges in this order. Keys before rows[0] are
 * local: they lie in the kv of the call and may be read at once. Row r of the remote part is row r
 * - rows[0].begin of this kv. Ranges are separated by ATTN_PAD_ROWS padding rows: they hold finite
 * numbers, the kernel never writes their gradients, and no band crosses them. est_ready_us[i]
 * estimates when range i arrives after the start of a call. It orders the work, so results depend
 * on it only in their rounding. */
enum { ATTN_PAD_ROWS = 256, ATTN_REMOTE_RANGES = 7 };
typedef struct {
    int n;
    Range rows[ATTN_REMOTE_RANGES]; /* ascending; may be empty */
    const void *kv;
    uint32_t *kv_ready, *dkv_done;
    float est_ready_us[ATTN_REMOTE_RANGES];
} RemoteKv;

/* The steps of a tile in one band: columns first, first + step, ... in n_steps steps. Steps in
 * [full_begin, full_end) lie wholly inside the band; the others need its mask. */
typedef struct {
    int32_t first, n_steps, full_begin, full_end;
    Band band; /* clipped to the tile's rows; transposed in by_k, and clipped to the run's blocks */
    int32_t dq_block; /* by_k: of the first step */
    int32_t dq_order; /* by_k: how many steps add to each of these blocks of dq before this run's */
} AttnRun;

enum { ATTN_SCHEDULE_GROUPS = ATTN_REMOTE_RANGES + 2 };

typedef struct {
    int32_t row0, rows; /* the rows that this tile writes; no two tiles share one */
    int32_t run_begin, run_end;
    int32_t n_steps; /* of all its runs */
    /* Tiles are taken group after group: half of the tiles that need local keys only; then, by_q,
     * those that need the first remote range but none after it, and so on, or, by_k, those of each
     * range; then the other half. */
    int32_t schedule_group;
    /* by_q, split-KV: several CTAs share a row tile and pass (o, lse) on in order; this entry is
     * number kv_split of kv_splits, each with some of the keys. 0 of 1: not split. */
    int32_t kv_split, kv_splits;
    int32_t split_tile; /* number of this row tile among those that are split */
} AttnTile;

typedef struct {
    int rows, step; /* of a tile, of a step */
} AttnGrid;

typedef struct {
    AttnTile *tiles; /* in each group the longest first, splits in order */
    AttnRun *runs;
    int64_t n_tiles, n_runs, runs_capacity;
    int64_t n_busy; /* tiles with steps, which come first if there is no remote KV */
    int64_t n_split_tiles;
} AttnTiles;

typedef struct { /* block i is rows [at[i], at[i + 1]) */
    int32_t *at;
    int64_t n;
} AttnBlocks;

/* What the tiler is told of the GPU and the kernels; cuda/tuning.h holds the measured values. */
typedef struct {
    int ctas;             /* that run at a time */
    double step_us;       /* what a step costs */
    double item_steps;    /* what a (tile, head) item costs beside its steps, in steps */
    double split_pass_us; /* what passing o and lse from one split to the next costs each of them */
    int min_split_steps;  /* a shorter split does not pay for passing o and lse on */
    double min_gain;      /* tiles are split only if that saves this fraction of the estimate... */
    double min_gain_us;   /* ...and this much */
} AttnTuning;

/* The blocks of dq: query rows as the steps of by_k, `step` rows each, walk them. */
AttnBlocks attn_dq_blocks(const Band *bands, int64_t n_bands, int32_t Sq, int step);

/* Tiles of query rows that walk keys, from where each band begins. steps_before[i]: how many steps
 * the GPU can do, for each head, before remote range i is ready; tiles are split where fewer steps
 * than that could run without it. NULL: no tile is split. remote->n may be 0. */
AttnTiles attn_tiles_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                          const RemoteKv *remote, const double *steps_before,
                          const AttnTuning *tuning);
/* The same for a forward of so many heads: tiles are split so that the GPU is busy until remote
 * keys are ready, or for a fraction of that time, where the estimate gains by it. *us: the
 * estimate.
 */
AttnTiles attn_tiles_fwd(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                         const RemoteKv *remote, int heads, const AttnTuning *tuning, double *us);
/* Tiles of keys that walk dq blocks. */
AttnTiles attn_tiles_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                          const AttnBlocks *dq_blocks, const RemoteKv *remote);

/* Estimates when the last CTA is done, in us: each (tile, head) item goes to the CTA that is free
 * first, and remote keys arrive at est_ready_us (remote NULL: at 0). With more than 32 items a CTA
 * it returns the mean load instead, which is as good. */
double attn_tiles_span_us(const AttnTiles *tiles, int heads, const RemoteKv *remote,
                          const AttnTuning *tuning);
/* 0 for a local key, 1 + i in remote range i. */
int attn_range_of_key(const RemoteKv *remote, int64_t key);
void attn_tiles_free(AttnTiles *tiles);

#endif
