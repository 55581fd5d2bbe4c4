#include "attn/mask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* ---- construction ------------------------------------------------------------------------ */

static int compare_bands(const void *x, const void *y) {
    const Band *a = x, *b = y;
    if (a->q_begin != b->q_begin) return a->q_begin < b->q_begin ? -1 : 1;
    if (a->k_begin != b->k_begin) return a->k_begin < b->k_begin ? -1 : 1;
    return (a->lo > b->lo) - (a->lo < b->lo); /* only to make the order total for odd input */
}

/* Takes over `bands` (disjoint): sorts, merges neighbours, indexes. */
static void finish(Mask *out, int64_t S, Band *bands, int64_t n) {
    bool sorted = true;
    for (int64_t i = 0; i < n; i++) {
        bands[i] = band_shrink(bands[i]);
        if (i > 0 && compare_bands(&bands[i - 1], &bands[i]) > 0) sorted = false;
    }
    if (!sorted) qsort(bands, (size_t)n, sizeof(Band), compare_bands);
    n = band_merge_list(bands, n);
    *out = (Mask){.S = S, .bands = bands, .n = n, .reach = NEW(int32_t, n)};
    for (int64_t i = 0, reach = 0; i < n; i++) {
        reach = i64_max(reach, bands[i].q_end);
        out->reach[i] = (int32_t)reach;
    }
}

static Status check_size(int64_t S) {
    if (S >= 1 && S <= BAND_MAX_TOKENS) return OK;
    return status_fail(ERR_USER, "mask: a stream of %" PRId64 " tokens; 1 to %d are possible", S,
                       BAND_MAX_TOKENS);
}

static Status check_sequences(int64_t S, int64_t T) {
    CHECK(check_size(S));
    if (T >= 1 && S % T == 0) return OK;
    return status_fail(
        ERR_USER, "mask: sequences of %" PRId64 " tokens do not divide a stream of %" PRId64, T, S);
}

Status mask_documents(Mask *out, int64_t S, const int32_t *doc_begin, int64_t n_docs,
                      int64_t window) {
    *out = (Mask){0};
    CHECK(check_size(S));
    if (n_docs < 1 || doc_begin[0] != 0)
        return status_fail(ERR_USER, "mask: the first document must begin at token 0");
    if (window < 0)
        return status_fail(ERR_USER, "mask: window %" PRId64 " is negative; 0 means no limit",
                           window);
    for (int64_t i = 0; i < n_docs; i++) {
        int64_t end = i + 1 < n_docs ? doc_begin[i + 1] : S;
        if (doc_begin[i] >= end)
            return status_fail(ERR_USER,
                               "mask: document %" PRId64 " begins at token %" PRId64
                               " but ends at %" PRId64 "; begins must ascend and lie below S",
                               i, (int64_t)doc_begin[i], end);
    }
    int32_t lo = window > 0 && window < S ? (int32_t)-window : BAND_NO_LO;
    Band *bands = NEW(Band, n_docs);
    for (int64_t i = 0; i < n_docs; i++) {
        int32_t begin = doc_begin[i], end = i + 1 < n_docs ? doc_begin[i + 1] : (int32_t)S;
        bands[i] = (Band){begin, end, begin, end, lo, 0};
    }
    finish(out, S, bands, n_docs);
    return OK;
}

/* S / T sequences with the same n bands in each, given in coordinates of the first. */
static Status mask_repeat(Mask *out, int64_t S, int64_t T, const Band *bands, int64_t n) {
    Band *all = NEW(Band, S / T * n);
    for (int64_t i = 0; i < S / T * n; i++)
        all[i] = band_shift(bands[i % n], (int32_t)(i / n * T), (int32_t)(i / n * T));
    finish(out, S, all, S / T * n);
    return OK;
}

Status mask_causal(Mask *out, int64_t S, int64_t T, int64_t window) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    if (window < 0)
        return status_fail(ERR_USER, "mask: window %" PRId64 " is negative; 0 means no limit",
                           window);
    int32_t lo = window > 0 && window < T ? (int32_t)-window : BAND_NO_LO;
    return mask_repeat(out, S, T, &(Band){0, (int32_t)T, 0, (int32_t)T, lo, 0}, 1);
}

Status mask_full(Mask *out, int64_t S, int64_t T) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    return mask_repeat(out, S, T, &(Band){0, (int32_t)T, 0, (int32_t)T, BAND_NO_LO, BAND_NO_HI}, 1);
}

Status mask_prefix_lm(Mask *out, int64_t S, int64_t T, int64_t prefix) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    if (prefix < 0 || prefix > T)
        return status_fail(ERR_USER,
                           "mask: a prefix of %" PRId64 " tokens; 0 to %" PRId64
                           " (the sequence) are possible",
                           prefix, T);
    int32_t p = (int32_t)prefix, t = (int32_t)T;
    const Band bands[] = {{0, p, 0, p, BAND_NO_LO, BAND_NO_HI}, {p, t, 0, t, BAND_NO_LO, 0}};
    return mask_repeat(out, S, T, bands, 2);
}

MaskSpec mask_spec(const Config *c, const Mask *slices) {
    return (MaskSpec){
        .kind = c->data.mask, .window = c->data.window, .prefix = c->data.prefix, .slices = slices};
}

Status mask_build(Mask *out, const MaskSpec *spec, int64_t S, int64_t T, const int32_t *doc_begin,
                  int64_t n_docs) {
    *out = (Mask){0};
    switch (spec->kind) {
    case MASK_CAUSAL:
        return mask_causal(out, S, T, spec->window);
    case MASK_DOCUMENT:
        return mask_documents(out, S, doc_begin, n_docs, spec->window);
    case MASK_FULL:
        return mask_full(out, S, T);
    case MASK_PREFIX_LM:
        return mask_prefix_lm(out, S, T, spec->prefix);
    case MASK_SLICES:
        CHECK(check_sequences(S, T));
        REQUIRE(spec->slices != NULL && spec->slices->S == T);
        return mask_repeat(out, S, T, spec->slices->bands, spec->slices->n);
    case MASK_KINDS:
        break;
    }
    base_bug(__FILE__, __LINE__, "a mask of MASK_LIST");
}

static void print_band(char *text, size_t size, Band b) {
    snprintf(text, size, "q [%d, %d) x k [%d, %d), k - q in [%d, %d]", b.q_begin, b.q_end,
             b.k_begin, b.k_end, b.lo, b.hi);
}

Status mask_bands(Mask *out, int64_t S, const Band *bands, int64_t n) {
    *out = (Mask){0};
    CHECK(check_size(S));
    Band *copy = NEW(Band, n);
    Status st = OK;
    int64_t first, second;
    char text[2][128];
    for (int64_t i = 0; i < n; i++) {
        Band b = copy[i] = band_shrink(bands[i]);
        if (b.q_begin >= 0 && b.q_end <= S && b.k_begin >= 0 && b.k_end <= S) continue;
        print_band(text[0], sizeof text[0], b);
        st = status_fail(ERR_USER, "mask: band %" PRId64 ", %s, leaves the %" PRId64 " tokens", i,
                         text[0], S);
        goto fail;
    }
    if (!mask_check(copy, n, &first, &second)) {
        print_band(text[0], sizeof text[0], copy[first]);
        print_band(text[1], sizeof text[1], copy[second]);
        st = status_fail(ERR_USER,
                         "mask: bands %" PRId64 " (%s) and %" PRId64 " (%s) cover a pair twice",
                         first, text[0], second, text[1]);
        goto fail;
    }
    finish(out, S, copy, n);
    return OK;
fail:
    free(copy);
    return st;
}

void mask_free(Mask *m) {
    free(m->bands);
    free(m->reach);
    *m = (Mask){0};
}

void mask_copy(Mask *out, const Mask *m) {
    *out = (Mask){.S = m->S, .n = m->n, .bands = NEW(Band, m->n), .reach = NEW(int32_t, m->n)};
    if (m->n == 0) return;
    memcpy(out->bands, m->bands, (size_t)m->n * sizeof(Band));
    memcpy(out->reach, m->reach, (size_t)m->n * sizeof(int32_t));
}

/* ---- queries ----------------------------------------------------------------------------- */

int64_t mask_area(const Mask *m) {
    int64_t area = 0;
    for (int64_t i = 0; i < m->n; i++) area += band_area(m->bands[i]);
    return area;
}

MaskRows mask_rows(const Mask *m, Range rows) {
    int64_t low = 0, high = m->n; /* the first band that reaches behind rows.begin */
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (m->reach[mid] <= rows.begin)
            low = mid + 1;
        else
            high = mid;
    }
    return (MaskRows){m, rows, low};
}

bool mask_next(MaskRows *at, Band *cut) {
    const Mask *m = at->mask;
    while (at->next < m->n && m->bands[at->next].q_begin < at->rows.end) {
        *cut = band_cut_q(m->bands[at->next++], at->rows);
        if (!band_is_empty(*cut)) return true;
    }
    return false;
}

void mask_keys(const Mask *m, Range rows, RangeList *out) {
    Band cut;
    for (MaskRows at = mask_rows(m, rows); mask_next(&at, &cut);)
        range_list_add(out, cut.k_begin, cut.k_end);
}

MaskKind mask_form(const Mask *m, int64_t *T, bool *window) {
    *T = m->S;
    *window = false;
    if (m->n == 0) return MASK_SLICES;
    Band b = m->bands[0];
    int64_t t = b.q_end;
    if (b.q_begin != 0 || b.k_begin != 0 || b.k_end != t || m->n * t != m->S) return MASK_SLICES;
    for (int64_t i = 1; i < m->n; i++)
        if (!band_equal(m->bands[i], band_shift(b, (int32_t)(i * t), (int32_t)(i * t))))
            return MASK_SLICES;
    bool no_lo = b.lo <= 1 - t, no_hi = b.hi >= t - 1;
    *window = !no_lo && !no_hi;
    bool causal = *window || (no_lo && b.hi == 0);
    if (!causal && !(no_lo && no_hi)) return MASK_SLICES;
    *T = t;
    return causal ? MASK_CAUSAL : MASK_FULL;
}

/* Multiply and fold per word, then mix64(). */
uint64_t hash_words(uint64_t hash, const int32_t *words, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)words[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return mix64(hash ^ (uint64_t)n);
}

uint64_t mask_hash(const Mask *m) {
    const int32_t size[] = {(int32_t)m->S, (int32_t)m->n};
    uint64_t hash = hash_words(0, size, 2);
    for (int64_t i = 0; i < m->n; i++) {
        Band b = m->bands[i];
        hash = hash_words(hash, (int32_t[]){b.q_begin, b.q_end, b.k_begin, b.k_end, b.lo, b.hi}, 6);
    }
    return hash;
}
