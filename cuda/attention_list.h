/* attention_list.h: bands to work lists, on the host. Tiles are cut where bands begin and end, so that
 * packed documents do not share tiles: a tile of two documents would walk the keys of both. */
#ifndef CRIA_CUDA_ATTENTION_LIST_H
#define CRIA_CUDA_ATTENTION_LIST_H

#include "attention.h"

typedef struct {
    AttnTile *tiles;
    AttnRun *runs;
    int64_t n_tiles, n_runs, n_busy, runs_room, n_handovers;
} HostList;

typedef struct { /* where rows are cut into pieces: piece i is [at[i], at[i + 1]) */
    int32_t *at;
    int64_t n;
} Cuts;

/* The slots of dq: rows of q as the steps of by_k, `step` rows, walk them. */
Cuts attn_slots(const Band *bands, int64_t n_bands, int32_t Sq, int step);

/* Tiles of rows of q that walk keys, from where each band begins. early[i]: how many steps the GPU
 * can do, for each head, before source i is there; tiles are taken in parts where that many would
 * not be found else. NULL: in one always. */
HostList attn_list_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                        const AttnSources *sources, const double *early);
/* Tiles of keys that walk slots. */
HostList attn_list_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                        const Cuts *slots, const AttnSources *sources);
/* After how long the last of `ctas` is done when each (tile, head) item goes to the one that is free
 * first, a step takes step_us, and keys come as sources (NULL: at once) say. Of many items the mean is
 * as good. */
double attn_list_span_us(const HostList *list, int heads, int ctas, double step_us,
                         const AttnSources *sources);
void attn_list_free(HostList *list);

#endif
