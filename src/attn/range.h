/* range.h: growable lists of half-open token ranges, the currency of "which keys does this rank
 * need". A list is normal when it is sorted, disjoint and without empty or touching ranges. */
#ifndef CRIA_ATTN_RANGE_H
#define CRIA_ATTN_RANGE_H

#include "attn/band.h"

typedef struct {
    Range *ranges; /* NULL until the first range is added; range_list_free releases it */
    int64_t n, cap;
} RangeList;

void range_list_add(RangeList *list, int32_t begin, int32_t end); /* empty ranges are dropped */
void range_list_free(RangeList *list);

/* Makes `n` ranges normal in place; returns the new count. O(n) when they come nearly sorted. */
int64_t range_normalize(Range *ranges, int64_t n);

/* Appends to *out what the normal list a has outside of the normal list b. */
void range_subtract(RangeList *out, const Range *a, int64_t n_a, const Range *b, int64_t n_b);

/* Tokens in a list of disjoint ranges. */
int64_t range_total(const Range *ranges, int64_t n);

/* Index of the first range of a normal list that ends behind `token`; n if none does. */
int64_t range_find(const Range *ranges, int64_t n, int32_t token);

#endif
