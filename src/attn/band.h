/* band.h: the internal representation of an attention mask: a rectangle of (query row, key) pairs
 * with a diagonal band. Row q sees keys max(k_begin, q + lo) <= k <= min(k_end - 1, q + hi). Every
 * cut of a band by rows or by keys is again one band. Ranges are half open. */
#ifndef CRIA_ATTN_BAND_H
#define CRIA_ATTN_BAND_H

#include <stdbool.h>
#include <stdint.h>

/* "no edge here": far outside any real offset, yet safe to add to a token index */
#define BAND_NO_LO      (-(1 << 30))
#define BAND_NO_HI      (1 << 30)
#define BAND_MAX_TOKENS (1 << 29) /* longest stream whose offsets stay clear of both */
/* Side of the square tiles that attention kernels work in: plans and costs count these, and cut
 * stages and ranges at multiples of it. */
#define ATTN_TILE 128

typedef struct {
    int32_t q_begin, q_end, k_begin, k_end;
    int32_t lo, hi; /* bounds on k - q, inclusive */
} Band;

/* The outward types of MagiAttention's AttnSlice. For an m x n slice, local row i and key j:
 * CAUSAL is aligned to the bottom right corner (j <= i + n - m), INV_CAUSAL to the top left one
 * (j >= i), BI_CAUSAL is both. */
typedef enum { SLICE_FULL, SLICE_CAUSAL, SLICE_INV_CAUSAL, SLICE_BI_CAUSAL, SLICE_TYPES } SliceType;
extern const char *const slice_type_names[SLICE_TYPES]; /* "FULL", "CAUSAL", ... */

/* Keys of one row, or rows of one key: half open, begin >= end when empty. */
typedef struct {
    int32_t begin, end;
} Range;

/* The band of a slice, shrunk; empty where the type allows no pair. */
Band band_from_slice(Range q, Range k, SliceType type);

static inline bool band_is_empty(Band b) {
    return b.q_begin >= b.q_end;
}
static inline bool band_equal(Band a, Band b) {
    return a.q_begin == b.q_begin && a.q_end == b.q_end && a.k_begin == b.k_begin &&
           a.k_end == b.k_end && a.lo == b.lo && a.hi == b.hi;
}

/* The same pairs in the smallest form: every row of [q_begin, q_end) sees a key, every key of
 * [k_begin, k_end) is seen, and lo and hi are the least and the greatest k - q that occur. Two
 * bands hold the same pairs iff their shrunk forms are equal; a band without pairs becomes all
 * zero. The cuts below return shrunk bands; area, tiles and merge take shrunk bands. */
Band band_shrink(Band b);
Band band_cut_q(Band b, Range rows);
Band band_cut_k(Band b, Range keys);
Band band_intersect(Band a, Band b);

/* To other coordinates: row q becomes q + dq, key k becomes k + dk. */
Band band_shift(Band b, int32_t dq, int32_t dk);

/* Keys that row q sees. */
Range band_row(Band b, int32_t q);

/* Number of pairs, O(1). */
int64_t band_area(Band b);

/* Pairs that a kernel computes when it works in whole tile x tile squares on the grid of multiples
 * of `tile` (the area rounded up to tiles), O(rows / tile). */
int64_t band_tile_area(Band b, int32_t tile);

/* If two disjoint bands together are exactly one band: true, and that band in *out. */
bool band_merge(Band a, Band b, Band *out);

/* Merges neighbours of a list of disjoint bands in place (best when sorted by rows, then keys);
 * returns the new length. */
int64_t band_merge_list(Band *bands, int64_t n);

#endif
