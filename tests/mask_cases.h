/* mask_cases.h: masks that several tests share: MagiAttention's published test masks with their
 * areas, random masks, and packs of documents as its benchmarks draw them. */
#ifndef CRIA_MASK_CASES_H
#define CRIA_MASK_CASES_H

#include <stdlib.h>

#include "attn/mask.h"
#include "base/rng.h"
#include "data/synthetic.h"

enum { CASE_SLICES_MAX = 128 };

typedef struct {
    const char *name;
    int64_t S, area;
    int n;
    struct {
        int32_t q_begin, q_end, k_begin, k_end;
        SliceType type;
    } slices[16];
} MaskCase;

/* clang-format off */
#define F  SLICE_FULL
#define C  SLICE_CAUSAL
#define IC SLICE_INV_CAUSAL
#define BC SLICE_BI_CAUSAL
static const MaskCase mask_cases[] = {
    {"T1 full", 14336, 205520896, 1, {{0, 14336, 0, 14336, F}}},
    {"T2 documents, full", 12288, 25165824, 6,
     {{0, 2048, 0, 2048, F}, {2048, 4096, 2048, 4096, F}, {4096, 6144, 4096, 6144, F},
      {6144, 8192, 6144, 8192, F}, {8192, 10240, 8192, 10240, F}, {10240, 12288, 10240, 12288, F}}},
    {"T3 documents, block causal", 15360, 63963136, 7,
     {{0, 2048, 0, 2048, F}, {2048, 4096, 0, 4096, F}, {4096, 6144, 0, 6144, F},
      {6144, 8192, 0, 8192, F}, {8192, 10240, 8192, 10240, F}, {10240, 12288, 8192, 12288, F},
      {12288, 15360, 12288, 15360, F}}},
    {"T4 overlapping rows", 12288, 54525952, 6,
     {{0, 8192, 0, 2048, F}, {2048, 8192, 2048, 4096, F}, {4096, 8192, 4096, 6144, F},
      {6144, 8192, 6144, 8192, F}, {8192, 12288, 8192, 10240, F},
      {10240, 12288, 10240, 12288, F}}},
    {"T5 bi-causal with overlaps", 12288, 38377416, 8,
     {{0, 2048, 0, 3072, BC}, {2048, 4096, 0, 4096, BC}, {4096, 6144, 0, 6144, BC},
      {6144, 8192, 6144, 12288, BC}, {8192, 10240, 8192, 12288, BC},
      {10240, 12288, 9216, 12288, BC}, {1000, 4000, 8000, 12000, BC},
      {10000, 12000, 0, 5000, BC}}},
    {"T6 all types on the same rows", 10240, 33566720, 12,
     {{0, 2048, 0, 2048, IC}, {0, 2048, 2048, 4096, F}, {0, 2048, 4096, 6144, C},
      {0, 2048, 6144, 10240, BC}, {2048, 4096, 0, 2048, IC}, {3072, 5120, 2048, 4096, C},
      {5120, 7168, 0, 2048, IC}, {6144, 8192, 2048, 4096, C}, {8192, 10240, 0, 2048, IC},
      {8192, 10240, 2048, 4096, F}, {8192, 10240, 4096, 6144, C},
      {8192, 10240, 6144, 10240, BC}}},
    {"T8 full, length no multiple of the chunk", 10000, 100000000, 1, {{0, 10000, 0, 10000, F}}},
    {"T9 uneven documents", 11021, 36568731, 6,
     {{0, 2000, 0, 2000, F}, {2000, 4000, 0, 4000, C}, {4000, 6000, 0, 6000, IC},
      {6000, 8000, 0, 8000, BC}, {8000, 9500, 8000, 9500, IC}, {9500, 11021, 8000, 11021, C}}},
    {"T10 small documents", 1050, 177828, 7,
     {{0, 128, 0, 128, F}, {128, 256, 128, 256, F}, {256, 384, 256, 384, F},
      {384, 512, 384, 512, F}, {512, 640, 512, 640, F}, {640, 768, 640, 768, F},
      {768, 1050, 768, 1050, F}}},
    {"T11 small documents, block causal", 960, 249856, 7,
     {{0, 128, 0, 128, F}, {128, 256, 0, 256, F}, {256, 384, 0, 384, F}, {384, 512, 0, 512, F},
      {512, 640, 512, 640, F}, {640, 768, 512, 768, F}, {768, 960, 768, 960, F}}},
    {"T12 shared question", 1024, 475136, 4,
     {{0, 1024, 0, 128, F}, {128, 256, 128, 256, F}, {256, 512, 256, 512, F},
      {512, 1024, 512, 1024, F}}},
    {"T13 small and uneven", 900, 225450, 6,
     {{0, 150, 0, 150, C}, {150, 300, 0, 300, F}, {300, 450, 0, 450, IC}, {450, 600, 0, 600, BC},
      {600, 750, 600, 750, IC}, {750, 900, 600, 900, C}}},
    {"T14 causal", 8192, 33558528, 1, {{0, 8192, 0, 8192, C}}},
    {"T15 causal window", 8192, 7872000, 2, {{0, 1024, 0, 1024, C}, {1024, 8192, 0, 8192, BC}}},
    {"T16 ragged causal documents", 1024, 148653, 10,
     {{0, 366, 0, 366, C}, {366, 391, 366, 391, C}, {391, 471, 391, 471, C},
      {471, 835, 471, 835, C}, {835, 984, 835, 984, C}, {984, 1005, 984, 1005, C},
      {1005, 1017, 1005, 1017, C}, {1017, 1020, 1017, 1020, C}, {1020, 1023, 1020, 1023, C},
      {1023, 1024, 1023, 1024, C}}},
    {"T17 prefix", 4096, 8890156, 2, {{0, 1000, 0, 1000, F}, {1000, 4096, 0, 4096, C}}},
    {"T18 rows without a key", 100, 820, 1, {{0, 100, 0, 40, C}}},
};
#undef F
#undef C
#undef IC
#undef BC
/* clang-format on */
enum { N_MASK_CASES = sizeof mask_cases / sizeof mask_cases[0] };

/* The slices of a case as bands, coordinates divided by `scale`; returns their number. */
static inline int64_t mask_case_bands(const MaskCase *c, int32_t scale, Band *bands) {
    for (int i = 0; i < c->n; i++)
        bands[i] = band_from_slice(
            (Range){c->slices[i].q_begin / scale, c->slices[i].q_end / scale},
            (Range){c->slices[i].k_begin / scale, c->slices[i].k_end / scale}, c->slices[i].type);
    return c->n;
}

/* T7: the full mask in 16 x 8 pieces, each block of S / 16 rows by S / 8 keys. */
static inline int64_t mask_case_pieces(int32_t S, Band *bands) {
    for (int32_t i = 0; i < 128; i++)
        bands[i] = band_from_slice((Range){i / 8 * (S / 16), (i / 8 + 1) * (S / 16)},
                                   (Range){i % 8 * (S / 8), (i % 8 + 1) * (S / 8)}, SLICE_FULL);
    return 128;
}

/* ---- random masks; `seed` names one of them ------------------------------------------------- */
typedef struct {
    uint64_t seed, index;
} Draw;

static inline int32_t draw_below(Draw *d, int64_t n) {
    return (int32_t)(rng_u64(d->seed, rng_stream(RNG_TEST, 7), d->index++) % (uint64_t)n);
}

static inline Range draw_range(Draw *d, int32_t S) {
    int32_t a = draw_below(d, S + 1), b = draw_below(d, S + 1);
    return a < b ? (Range){a, b} : (Range){b, a};
}

/* At most n disjoint slices of any type within S tokens. */
static inline int64_t draw_bands(Draw *d, int32_t S, int64_t n, Band *bands) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        Range q = draw_range(d, S), k = draw_range(d, S);
        Band b = band_from_slice(q, k, (SliceType)draw_below(d, SLICE_TYPES));
        bool fits = !band_is_empty(b);
        for (int64_t j = 0; j < kept && fits; j++)
            fits = band_is_empty(band_intersect(bands[j], b));
        if (fits) bands[kept++] = b;
    }
    return kept;
}

/* Document starts for S tokens with lengths 1..longest; returns their number (begin holds S). */
static inline int64_t draw_documents(Draw *d, int64_t S, int64_t longest, int32_t *begin) {
    int64_t n = 0;
    for (int64_t at = 0; at < S; at += 1 + draw_below(d, longest)) begin[n++] = (int32_t)at;
    return n;
}

/* Documents packed into S tokens, as synthetic_pack() draws them. */
static inline int64_t draw_pack(uint64_t seed, int64_t S, int32_t *begin) {
    return synthetic_pack(seed, rng_stream(RNG_TEST, (uint64_t)S), S, S, begin);
}

#endif
