/* band.h: the one inward form of an attention mask: a rectangle of (query row, key) pairs with a
 * diagonal band. Row q sees keys max(k_begin, q + lo) <= k <= min(k_end - 1, q + hi).
 * Every cut of a band by rows or by keys is again one band. Ranges are half open. */
#ifndef CRIA_ATTN_BAND_H
#define CRIA_ATTN_BAND_H

#include <stdbool.h>
#include <stdint.h>

/* "no edge here": far outside any real offset, yet safe to add to a token index */
#define BAND_NO_LO (-(1 << 30))
#define BAND_NO_HI (1 << 30)

typedef struct {
    int32_t q_begin, q_end, k_begin, k_end;
    int32_t lo, hi; /* bounds on k - q, inclusive */
} Band;

#endif
