/* balance.h: chunks to groups (ranks or nodes) of equal count: least load first, least rows to move
 * second. Deterministic: the same input gives the same assignment on every rank. */
#ifndef CRIA_ATTN_BALANCE_H
#define CRIA_ATTN_BALANCE_H

#include "attn/range.h"

/* Chunks 0..n-1 of equal size. Chunk i costs load[i] pairs and reads the keys of the normal list
 * keys[first_key[i] .. first_key[i + 1]). */
typedef struct {
    int64_t n;
    int32_t chunk; /* tokens of a chunk: chunk i is [i * chunk, (i + 1) * chunk) */
    const int64_t *load;
    const Range *keys;
    const int64_t *first_key; /* [n + 1] */
} BalanceInput;

/* `ids` names the n_ids chunks to share out among G groups, ascending; n_ids % G == 0.
 * group[k] is set to the group of chunk ids[k]. */

/* Longest processing time first with equal counts (MagiAttention's MinHeap dispatch): chunks by
 * falling load, later chunk first among equals, each to the least loaded group with room. */
void balance_min_heap(const BalanceInput *in, const int32_t *ids, int64_t n_ids, int G,
                      int32_t *group);

/* Starts from the assignment in group[] and tries swaps of two chunks. A swap is kept when it
 * lowers the overload (what groups carry above (1 + slack) * mean), or keeps it and lowers max +
 * mean of the rows that groups read outside their own chunks. At most `trials` swaps are tried. */
void balance_local_search(const BalanceInput *in, const int32_t *ids, int64_t n_ids, int G,
                          double slack, int64_t trials, int32_t *group);

#endif
