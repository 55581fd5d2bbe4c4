#include "attn/band.h"

#include "base/base.h"

const char *const slice_type_names[SLICE_TYPES] = {"FULL", "CAUSAL", "INV_CAUSAL", "BI_CAUSAL"};

static int32_t min32(int32_t a, int32_t b) {
    return a < b ? a : b;
}
static int32_t max32(int32_t a, int32_t b) {
    return a > b ? a : b;
}

Band band_from_slice(Range q, Range k, SliceType type) {
    bool right = type == SLICE_CAUSAL || type == SLICE_BI_CAUSAL;
    bool left = type == SLICE_INV_CAUSAL || type == SLICE_BI_CAUSAL;
    return band_shrink((Band){q.begin, q.end, k.begin, k.end, left ? k.begin - q.begin : BAND_NO_LO,
                              right ? k.end - q.end : BAND_NO_HI});
}

/* One pass in this order is a fix point: tightening lo and hi first makes the row bounds exact, and
 * neither later assignment can undo an earlier one while lo <= hi. */
Band band_shrink(Band b) {
    const Band empty = {0};
    if (b.q_begin >= b.q_end || b.k_begin >= b.k_end) return empty;
    b.lo = max32(b.lo, b.k_begin - (b.q_end - 1));
    b.hi = min32(b.hi, b.k_end - 1 - b.q_begin);
    if (b.lo > b.hi) return empty;
    b.q_begin = max32(b.q_begin, b.k_begin - b.hi);
    b.q_end = min32(b.q_end, b.k_end - b.lo);
    b.k_begin = max32(b.k_begin, b.q_begin + b.lo);
    b.k_end = min32(b.k_end, b.q_end + b.hi);
    return b.q_begin < b.q_end && b.k_begin < b.k_end ? b : empty;
}

Band band_intersect(Band a, Band b) {
    return band_shrink((Band){max32(a.q_begin, b.q_begin), min32(a.q_end, b.q_end),
                              max32(a.k_begin, b.k_begin), min32(a.k_end, b.k_end),
                              max32(a.lo, b.lo), min32(a.hi, b.hi)});
}

Band band_cut_q(Band b, Range rows) {
    b.q_begin = max32(b.q_begin, rows.begin);
    b.q_end = min32(b.q_end, rows.end);
    return band_shrink(b);
}

Band band_cut_k(Band b, Range keys) {
    b.k_begin = max32(b.k_begin, keys.begin);
    b.k_end = min32(b.k_end, keys.end);
    return band_shrink(b);
}

Band band_shift(Band b, int32_t dq, int32_t dk) {
    return (Band){b.q_begin + dq, b.q_end + dq,   b.k_begin + dk,
                  b.k_end + dk,   b.lo + dk - dq, b.hi + dk - dq};
}

Range band_row(Band b, int32_t q) {
    if (q < b.q_begin || q >= b.q_end) return (Range){0, 0};
    return (Range){max32(b.k_begin, q + b.lo), min32(b.k_end, q + b.hi + 1)};
}

/* Sum over q in [begin, end) of min(q + slope_at_zero, limit). */
static int64_t sum_min(int64_t begin, int64_t end, int64_t offset, int64_t limit) {
    int64_t turn = i64_max(begin, i64_min(end, limit - offset)); /* below: q + offset is smaller */
    int64_t rising = turn - begin;
    return rising * (begin + turn - 1 + 2 * offset) / 2 + (end - turn) * limit;
}

int64_t band_area(Band b) {
    if (band_is_empty(b)) return 0;
    /* max(x, y) = -min(-x, -y); q runs downwards in the second sum */
    int64_t ends = sum_min(b.q_begin, b.q_end, (int64_t)b.hi + 1, b.k_end);
    int64_t begins =
        -sum_min(1 - (int64_t)b.q_end, 1 - (int64_t)b.q_begin, -(int64_t)b.lo, -(int64_t)b.k_begin);
    return ends - begins;
}

int64_t band_tile_area(Band b, int32_t tile) {
    int64_t tiles = 0;
    for (int32_t q = b.q_begin / tile * tile; q < b.q_end; q += tile) {
        int32_t first = max32(q, b.q_begin), last = min32(q + tile, b.q_end) - 1;
        int32_t begin = band_row(b, first).begin, end = band_row(b, last).end;
        tiles += ceil_div(end, tile) - begin / tile;
    }
    return tiles * tile * tile;
}

/* Shrunk bounds are tight, so the hull of two bands is the only band that their union can be, and
 * it is that union iff no pair is added. */
bool band_merge(Band a, Band b, Band *out) {
    bool touch = a.q_end == b.q_begin || b.q_end == a.q_begin || a.k_end == b.k_begin ||
                 b.k_end == a.k_begin || a.hi == b.lo - 1 || b.hi == a.lo - 1;
    if (!touch) return false;
    Band hull = band_shrink((Band){min32(a.q_begin, b.q_begin), max32(a.q_end, b.q_end),
                                   min32(a.k_begin, b.k_begin), max32(a.k_end, b.k_end),
                                   min32(a.lo, b.lo), max32(a.hi, b.hi)});
    if (band_area(hull) != band_area(a) + band_area(b)) return false;
    *out = hull;
    return true;
}

int64_t band_merge_list(Band *bands, int64_t n) {
    int64_t top = 0; /* bands[0, top) is a stack; a merge may let the two below merge as well */
    for (int64_t i = 0; i < n; i++) {
        if (band_is_empty(bands[i])) continue;
        bands[top++] = bands[i];
        while (top >= 2 && band_merge(bands[top - 2], bands[top - 1], &bands[top - 2])) top--;
    }
    return top;
}
