/* attention_list.h: bands to work lists, on the host. Tiles are cut where bands begin and end, so that
 * packed documents do not share tiles: a tile of two documents would walk the keys of both. */
#ifndef CRIA_CUDA_ATTENTION_LIST_H
#define CRIA_CUDA_ATTENTION_LIST_H

#include "attention.h"

typedef struct {
    AttnTile *tiles;
    AttnRun *runs;
    int64_t n_tiles, n_runs, n_busy, runs_room;
} HostList;

typedef struct { /* where rows are cut into pieces: piece i is [at[i], at[i + 1]) */
    int32_t *at;
    int64_t n;
} Cuts;

/* The slots of dq: rows of q as the steps of by_k, `step` rows, walk them. */
Cuts attn_slots(const Band *bands, int64_t n_bands, int32_t Sq, int step);

/* Tiles of rows of q that walk keys, from where each band begins. */
HostList attn_list_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                        const AttnSources *sources);
/* Tiles of keys that walk slots. */
HostList attn_list_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                        const Cuts *slots, const AttnSources *sources);
/* After how many steps the last of `ctas` is done when each (tile, head) item goes to the one that is
 * free first; an item costs half a step of its own. Of many items the mean is as good. */
double attn_list_span(const HostList *list, int heads, int ctas);
void attn_list_free(HostList *list);

#endif
