/* fuzz_mask.c: any text either fails with a sentence or gives a mask of disjoint bands inside its
 * stream, whose rows see the keys that mask_keys() says. */
#include "attn/mask.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) return 0; /* a check of many slices is quadratic in the worst case */
    Mask m;
    int64_t first, second, T, area = 0;
    bool window;
    Band cut;
    if (mask_parse(&m, "input", (const char *)data, size, 0) != OK) {
        REQUIRE(status_message()[0] != '\0');
        status_clear();
        return 0;
    }
    REQUIRE(mask_check(m.bands, m.n, &first, &second));
    REQUIRE(mask_form(&m, &T, &window) == MASK_SLICES || m.S % T == 0);
    for (int64_t i = 0; i < m.n; i++) {
        Band b = m.bands[i];
        REQUIRE(band_equal(band_shrink(b), b) && !band_is_empty(b));
        REQUIRE(b.q_begin >= 0 && b.q_end <= m.S && b.k_begin >= 0 && b.k_end <= m.S);
        REQUIRE(m.reach[i] >= b.q_end);
        int32_t mid = b.q_begin + (b.q_end - b.q_begin) / 2;
        area += band_area(band_cut_q(b, (Range){b.q_begin, mid}));
        area += band_area(band_cut_q(b, (Range){mid, b.q_end}));
        bool found = false;
        for (MaskRows at = mask_rows(&m, (Range){b.q_begin, b.q_end}); mask_next(&at, &cut);)
            found = found || band_equal(cut, b);
        REQUIRE(found);
    }
    REQUIRE(area == mask_area(&m));
    mask_free(&m);
    return 0;
}
