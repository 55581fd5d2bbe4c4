#include "test.h"

#include <stdio.h>
#include <unistd.h>

#include "attn/mask.h"
#include "mask_cases.h"

static bool sees(const Mask *m, int32_t q, int32_t k) {
    int found = 0;
    for (int64_t i = 0; i < m->n; i++) {
        Range keys = band_row(m->bands[i], q);
        found += k >= keys.begin && k < keys.end;
    }
    assert_true(found <= 1);
    return found == 1;
}

static void constructors_allow_the_pairs_they_say(void **state) {
    (void)state;
    enum { S = 48, T = 16 };
    static const int32_t begin[] = {0, 5, 6, 20, 21, 22, 40};
    for (int window = 0; window <= 20; window += 4)
        for (int prefix = 0; prefix <= T; prefix += 4) {
            Mask documents, causal, full, lm;
            assert_status_ok(mask_documents(&documents, S, begin, 7, window));
            assert_status_ok(mask_causal(&causal, S, T, window));
            assert_status_ok(mask_full(&full, S, T));
            assert_status_ok(mask_prefix_lm(&lm, S, T, prefix));
            int doc_of[S];
            for (int t = 0, d = 0; t < S; t++) {
                if (d + 1 < 7 && begin[d + 1] == t) d++;
                doc_of[t] = d;
            }
            for (int q = 0; q < S; q++)
                for (int k = 0; k < S; k++) {
                    bool near = k <= q && (window == 0 || k >= q - window);
                    bool together = q / T == k / T;
                    assert_int_equal(sees(&documents, q, k), near && doc_of[q] == doc_of[k]);
                    assert_int_equal(sees(&causal, q, k), near && together);
                    assert_int_equal(sees(&full, q, k), together);
                    assert_int_equal(sees(&lm, q, k), together && (k <= q || k % T < prefix));
                }
            mask_free(&documents);
            mask_free(&causal);
            mask_free(&full);
            mask_free(&lm);
        }
}

static void published_masks_have_their_areas(void **state) {
    (void)state;
    Band bands[CASE_SLICES_MAX];
    Mask m;
    for (int i = 0; i < N_MASK_CASES; i++) {
        int64_t n = mask_case_bands(&mask_cases[i], 1, bands);
        assert_status_ok(mask_bands(&m, mask_cases[i].S, bands, n));
        if (mask_area(&m) != mask_cases[i].area)
            fail_msg("%s: area %lld", mask_cases[i].name, (long long)mask_area(&m));
        mask_free(&m);
    }
    assert_status_ok(mask_bands(&m, 8192, bands, mask_case_pieces(8192, bands)));
    assert_true(mask_area(&m) == 67108864);
    assert_int_equal(m.n, 1); /* T7: the pieces are the full mask */
    mask_free(&m);
}

static void keys_of_rows_are_those_their_pairs_touch(void **state) {
    (void)state;
    enum { S = 40 };
    Draw draw = {.seed = 11};
    for (int i = 0; i < 3000; i++) {
        Band bands[8];
        Mask m;
        assert_status_ok(mask_bands(&m, S, bands, draw_bands(&draw, S, 8, bands)));
        Range rows = draw_range(&draw, S);
        RangeList keys = {0};
        mask_keys(&m, rows, &keys);
        keys.n = range_normalize(keys.ranges, keys.n);
        for (int64_t j = 1; j < keys.n; j++)
            assert_true(keys.ranges[j].begin > keys.ranges[j - 1].end);
        for (int32_t k = 0; k < S; k++) {
            bool want = false;
            for (int32_t q = rows.begin; q < rows.end; q++) want = want || sees(&m, q, k);
            int64_t at = range_find(keys.ranges, keys.n, k);
            assert_int_equal(at < keys.n && keys.ranges[at].begin <= k, want);
        }
        range_list_free(&keys);
        mask_free(&m);
    }
}

static void ranges_subtract_as_sets(void **state) {
    (void)state;
    enum { S = 30 };
    Draw draw = {.seed = 12};
    for (int i = 0; i < 5000; i++) {
        RangeList a = {0}, b = {0}, out = {0};
        for (int j = draw_below(&draw, 6); j > 0; j--) {
            Range x = draw_range(&draw, S), y = draw_range(&draw, S);
            range_list_add(&a, x.begin, x.end);
            range_list_add(&b, y.begin, y.end);
        }
        bool in_a[S] = {0}, in_b[S] = {0}, got[S] = {0};
        for (int64_t j = 0; j < a.n; j++)
            for (int t = a.ranges[j].begin; t < a.ranges[j].end; t++) in_a[t] = true;
        for (int64_t j = 0; j < b.n; j++)
            for (int t = b.ranges[j].begin; t < b.ranges[j].end; t++) in_b[t] = true;
        a.n = range_normalize(a.ranges, a.n);
        b.n = range_normalize(b.ranges, b.n);
        range_subtract(&out, a.ranges, a.n, b.ranges, b.n);
        for (int64_t j = 0; j < out.n; j++)
            for (int t = out.ranges[j].begin; t < out.ranges[j].end; t++) {
                assert_false(got[t]);
                got[t] = true;
            }
        for (int t = 0; t < S; t++) assert_int_equal(got[t], in_a[t] && !in_b[t]);
        range_list_free(&a);
        range_list_free(&b);
        range_list_free(&out);
    }
}

static void the_first_pair_covered_twice_is_named(void **state) {
    (void)state;
    enum { S = 12 };
    Draw draw = {.seed = 13};
    int clean = 0;
    for (int i = 0; i < 4000; i++) {
        Band bands[5];
        int64_t first, second, want_first = 5, want_second = 5;
        for (int j = 0; j < 5; j++) /* small ones, so that some lists are disjoint */
            do {
                bands[j] = band_from_slice(draw_range(&draw, S), draw_range(&draw, S),
                                           (SliceType)draw_below(&draw, SLICE_TYPES));
            } while (band_area(bands[j]) > 12);
        for (int j = 4; j > 0; j--)
            for (int k = j - 1; k >= 0; k--)
                for (int32_t q = 0; q < S; q++) {
                    Range a = band_row(bands[j], q), b = band_row(bands[k], q);
                    if (a.begin >= a.end || b.begin >= b.end) continue;
                    if (a.begin >= b.end || b.begin >= a.end) continue;
                    want_second = j;
                    want_first = k;
                }
        bool ok = mask_check(bands, 5, &first, &second);
        assert_int_equal(ok, want_second == 5);
        clean += ok;
        if (ok) continue;
        assert_int_equal(second, want_second);
        assert_int_equal(first, want_first);
    }
    assert_true(clean > 100);
    Mask m;
    Band twice[] = {{0, 4, 0, 4, BAND_NO_LO, 0}, {3, 6, 3, 6, BAND_NO_LO, 0}};
    assert_status_fails(mask_bands(&m, 8, twice, 2), ERR_USER, "bands 0 (q [0, 4)");
    assert_status_fails(mask_bands(&m, 5, twice + 1, 1), ERR_USER, "leaves the 5 tokens");
}

static void slice_lists_are_read_and_mistakes_located(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "no slice found"},
        {"# nothing\n\n", "no slice found"},
        {"0 4 0 4 CAUSAL\n0 x 0 4 F", "list:2: q_end must be a whole number"},
        {"0 4 0", "list:1: k_end must be a whole number"},
        {"-1 4 0 4 F", "list:1: q_begin must be"},
        {"0 4 0 99999999999999999999 F", "list:1: k_end must be"},
        {"0 4 0 4", "list:1: the slice type must be"},
        {"0 4 0 4 CASUAL", "not 'CASUAL'"},
        {"\n\n0 4 0 4 F F", "list:3: 'F' follows a complete slice"},
        {"4 0 0 4 F", "list:1: a range ends before it begins"},
        {"0 4 0 70 F", "list:1: the slice ends at 70, beyond a sequence of 64"},
        {"4 8 0 8 C\n# a comment\n0 4 0 4 F\n3 5 3 5 F # twice",
         "list:4: this slice covers pairs that line 1"},
    };
    Mask m;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_status_fails(mask_parse(&m, "list", bad[i].text, strlen(bad[i].text), 64), ERR_USER,
                            bad[i].message);
    assert_status_fails(mask_parse(&m, "list", "0 4\0 0", 6, 64), ERR_USER, "zero byte");

    static const char good[] = "# two documents\r\n8 16 8 16 C\n0 8  0\t8 CAUSAL # first\n";
    assert_status_ok(mask_parse(&m, "list", good, sizeof good - 1, 0));
    assert_int_equal(m.S, 16);
    Mask same;
    assert_status_ok(mask_documents(&same, 16, (int32_t[]){0, 8}, 2, 0));
    assert_true(mask_hash(&m) == mask_hash(&same));
    mask_free(&m);

    char path[] = "/tmp/cria_mask_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, good, sizeof good - 1), sizeof good - 1);
    close(fd);
    assert_status_ok(mask_load(&m, path, 16));
    assert_true(mask_hash(&m) == mask_hash(&same));
    unlink(path);
    mask_free(&m);
    assert_status_fails(mask_load(&m, path, 16), ERR_USER, "cannot open the slice list");
    mask_free(&same);
}

static void bad_sizes_are_refused(void **state) {
    (void)state;
    Mask m;
    assert_status_fails(mask_causal(&m, 10, 4, 0), ERR_USER, "do not divide");
    assert_status_fails(mask_causal(&m, 0, 4, 0), ERR_USER, "a stream of 0 tokens");
    assert_status_fails(mask_full(&m, (int64_t)BAND_MAX_TOKENS + 1, 1), ERR_USER, "are possible");
    assert_status_fails(mask_causal(&m, 8, 4, -1), ERR_USER, "negative");
    assert_status_fails(mask_prefix_lm(&m, 8, 4, 5), ERR_USER, "prefix of 5");
    assert_status_fails(mask_documents(&m, 8, (int32_t[]){1}, 1, 0), ERR_USER, "first document");
    assert_status_fails(mask_documents(&m, 8, (int32_t[]){0, 4, 4}, 3, 0), ERR_USER, "document 1");
    assert_status_fails(mask_documents(&m, 8, (int32_t[]){0, 8}, 2, 0), ERR_USER, "document 1");
}

/* As the constructors, and slices in every sequence. */
static void a_spec_is_built_as_it_says(void **state) {
    (void)state;
    enum { S = 24, T = 12 };
    const int32_t begin[] = {0, 5, 12, 20};
    Mask slices, expected[MASK_KINDS], m;
    Band pieces[] = {{0, 4, 6, 12, BAND_NO_LO, BAND_NO_HI}, {4, 12, 0, 12, BAND_NO_LO, 0}}, all[4];
    for (int i = 0; i < 4; i++) all[i] = band_shift(pieces[i % 2], i / 2 * T, i / 2 * T);
    assert_status_ok(mask_bands(&slices, T, pieces, 2));
    MaskSpec spec = {.window = 3, .prefix = 7, .slices = &slices};
    assert_status_ok(mask_causal(&expected[MASK_CAUSAL], S, T, 3));
    assert_status_ok(mask_documents(&expected[MASK_DOCUMENT], S, begin, 4, 3));
    assert_status_ok(mask_full(&expected[MASK_FULL], S, T));
    assert_status_ok(mask_prefix_lm(&expected[MASK_PREFIX_LM], S, T, 7));
    assert_status_ok(mask_bands(&expected[MASK_SLICES], S, all, 4));
    for (spec.kind = 0; spec.kind < MASK_KINDS; spec.kind++) {
        assert_status_ok(mask_build(&m, &spec, S, T, begin, 4));
        assert_int_equal(mask_hash(&m), mask_hash(&expected[spec.kind]));
        mask_free(&m);
        mask_free(&expected[spec.kind]);
    }
    mask_free(&slices);
}

static void forms_are_recognised(void **state) {
    (void)state;
    Mask m;
    int64_t T;
    bool window;
    static const int32_t even[] = {0, 8, 16, 24}, odd[] = {0, 8, 16, 23};
    assert_status_ok(mask_causal(&m, 32, 8, 0));
    assert_int_equal(mask_form(&m, &T, &window), MASK_CAUSAL);
    assert_false(window);
    assert_int_equal(T, 8);
    mask_free(&m);
    assert_status_ok(mask_documents(&m, 32, even, 4, 0));
    assert_int_equal(mask_form(&m, &T, &window), MASK_CAUSAL);
    assert_false(window);
    mask_free(&m);
    assert_status_ok(mask_documents(&m, 32, odd, 4, 0));
    assert_int_equal(mask_form(&m, &T, &window), MASK_SLICES);
    assert_int_equal(T, 32);
    mask_free(&m);
    assert_status_ok(mask_causal(&m, 32, 16, 5));
    assert_int_equal(mask_form(&m, &T, &window), MASK_CAUSAL);
    assert_true(window);
    mask_free(&m);
    assert_status_ok(mask_full(&m, 32, 32));
    assert_int_equal(mask_form(&m, &T, &window), MASK_FULL);
    mask_free(&m);
    assert_status_ok(mask_prefix_lm(&m, 32, 32, 4));
    assert_int_equal(mask_form(&m, &T, &window), MASK_SLICES);
    mask_free(&m);
    assert_status_ok(mask_bands(&m, 32, NULL, 0)); /* nobody sees anything */
    assert_int_equal(mask_form(&m, &T, &window), MASK_SLICES);
    mask_free(&m);
}

static void equal_masks_hash_alike_and_others_do_not(void **state) {
    (void)state;
    enum { N = 400 };
    uint64_t hashes[N];
    Draw draw = {.seed = 14};
    for (int i = 0; i < N; i++) {
        int32_t begin[200];
        Mask m, copy;
        int64_t n = draw_documents(&draw, 200, 20, begin);
        assert_status_ok(mask_documents(&m, 200, begin, n, 0));
        mask_copy(&copy, &m);
        hashes[i] = mask_hash(&m);
        assert_true(hashes[i] == mask_hash(&copy));
        for (int j = 0; j < i; j++) assert_true(hashes[i] != hashes[j]);
        mask_free(&m);
        mask_free(&copy);
    }
    Mask a, b;
    assert_status_ok(mask_causal(&a, 16, 16, 0));
    assert_status_ok(mask_bands(&b, 17, a.bands, a.n));
    assert_true(mask_hash(&a) != mask_hash(&b)); /* S counts as well */
    mask_free(&a);
    mask_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructors_allow_the_pairs_they_say),
        cmocka_unit_test(published_masks_have_their_areas),
        cmocka_unit_test(keys_of_rows_are_those_their_pairs_touch),
        cmocka_unit_test(ranges_subtract_as_sets),
        cmocka_unit_test(the_first_pair_covered_twice_is_named),
        cmocka_unit_test(slice_lists_are_read_and_mistakes_located),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(a_spec_is_built_as_it_says),
        cmocka_unit_test(forms_are_recognised),
        cmocka_unit_test(equal_masks_hash_alike_and_others_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
