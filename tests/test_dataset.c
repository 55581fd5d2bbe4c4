#include "data/dataset.h"

#include <math.h>

#include "token_files.h"

enum { T = 8 };

static Dataset *open_all(int n, const DataSource *sources, bool shuffle, uint64_t seed) {
    Dataset *d;
    assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = sources,
                                                        .n_sources = n,
                                                        .seq_len = T,
                                                        .vocab = 65536,
                                                        .seed = seed,
                                                        .shuffle = shuffle}));
    return d;
}

static void samples_tile_a_file_and_share_one_token(void **state) {
    (void)state;
    /* 4 samples need 33 tokens; 40 tokens do not hold a fifth */
    for (int tokens = 33; tokens <= 40; tokens++) {
        DataSource s = {.path = (char *)write_counting("tile.bin", 100, tokens)};
        Dataset *d = open_all(1, &s, false, 1);
        assert_int_equal(dataset_epoch_samples(d), 4);
        assert_int_equal(dataset_tokens(d), tokens);
        assert_int_equal(dataset_seq_len(d), T);
        for (int n = 0; n < 12; n++) { /* three epochs, in file order */
            int32_t ids[T + 1];
            assert_status_ok(dataset_sample(d, n, ids));
            for (int i = 0; i <= T; i++) assert_int_equal(ids[i], 100 + n % 4 * T + i);
        }
        dataset_close(d);
    }
}

static void bad_sources_are_refused_with_a_sentence(void **state) {
    (void)state;
    const char *good = write_counting("good.bin", 0, 100);
    const char *small = write_counting("short.bin", 0, T);
    struct {
        DataSource sources[2];
        int n;
        const char *text;
    } cases[] = {
        {{{0}}, 0, "no token files"},
        {{{.path = (char *)good}, {.path = (char *)in_folder("none.bin")}},
         2,
         "none.bin: No such file"},
        {{{.path = (char *)good}, {.path = (char *)small}},
         2,
         "has 8 tokens, but one sample of model.seq_len 8 needs 9"},
        {{{.path = (char *)good, .weight = 1}, {.path = (char *)good}},
         2,
         "1 of 2 data sources have a weight"},
        {{{.path = (char *)good, .weight = -1}}, 1, "the weight of"},
        {{{.path = (char *)good, .weight = NAN}}, 1, "the weight of"},
        {{{.path = (char *)good, .weight = INFINITY}}, 1, "the weight of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dataset *d;
        DatasetOptions o = {
            .sources = cases[i].sources, .n_sources = cases[i].n, .seq_len = T, .vocab = 65536};
        assert_status_fails(dataset_open(&d, &o), ERR_USER, cases[i].text);
        assert_null(d);
    }
}

/* Which sample of which file: file f counts up from f * 10000. */
static int64_t locate(Dataset *d, int64_t n, int *file) {
    int32_t ids[T + 1];
    assert_status_ok(dataset_sample(d, n, ids));
    for (int i = 1; i <= T; i++) assert_int_equal(ids[i], ids[0] + i);
    SamplePiece *piece;
    int32_t again[T + 1];
    assert_int_equal(dataset_sample_pieces(d, n, &piece), 1);
    assert_int_equal(piece->tokens, T + 1);
    assert_status_ok(tokens_read(piece->file, piece->begin, T + 1, 65536, again));
    assert_memory_equal(again, ids, sizeof ids);
    free(piece);
    *file = ids[0] / 10000;
    return ids[0] % 10000 / T;
}

static void every_epoch_is_every_sample_exactly_once_in_a_new_order(void **state) {
    (void)state;
    static const int samples[] = {100, 1, 37, 400, 5};
    DataSource sources[5] = {0};
    for (int f = 0; f < 5; f++) {
        char name[32];
        snprintf(name, sizeof name, "epoch%d.bin", f);
        sources[f].path = (char *)write_counting(name, f * 10000, samples[f] * T + 1);
    }
    Dataset *d = open_all(5, sources, true, 42), *again = open_all(5, sources, true, 42);
    Dataset *other = open_all(5, sources, true, 43);
    int64_t epoch = dataset_epoch_samples(d);
    assert_int_equal(epoch, 543);
    int moved = 0, in_order = 0, differs = 0;
    int64_t before[543];
    for (int e = 0; e < 3; e++) {
        bool seen[5][400] = {{0}};
        for (int64_t i = 0; i < epoch; i++) {
            int f, f2;
            int64_t k = locate(d, e * epoch + i, &f);
            assert_false(seen[f][k]);
            seen[f][k] = true;
            if (e > 0) moved += before[i] != k;
            in_order += i > 0 && before[i - 1] + 1 == k;
            before[i] = k;
            assert_int_equal(locate(again, e * epoch + i, &f2), k);
            differs += locate(other, e * epoch + i, &f2) != k;
            assert_int_equal(f2, f); /* the interleaving does not depend on the seed */
        }
    }
    assert_true(moved > 900); /* of 1086: another permutation each epoch */
    assert_true(in_order < 60);
    assert_true(differs > 1300); /* of 1629 */
    dataset_close(d);
    dataset_close(again);
    dataset_close(other);
}

static void blends_keep_their_shares_in_every_prefix(void **state) {
    (void)state;
    static const struct {
        int n, levels;
        double weights[7];
    } cases[] = {
        {2, 1, {3, 1}},
        {2, 1, {0.7, 0.3}},
        {2, 1, {1e-6, 1e9}},
        {3, 2, {0.5, 0.3, 0.2}},
        {5, 3, {0.1, 0.2, 0.3, 0.35, 0.05}},
        {7, 3, {13, 1, 1, 250, 7, 99, 629}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        DataSource sources[7];
        double sum = 0;
        for (int f = 0; f < cases[c].n; f++) {
            char name[32];
            snprintf(name, sizeof name, "blend%d.bin", f);
            sources[f] = (DataSource){
                .path = (char *)write_counting(name, f * 9000 + 128, 3 * T + 1 + f * 16),
                .weight = cases[c].weights[f]};
            sum += cases[c].weights[f];
        }
        Dataset *d = open_all(cases[c].n, sources, true, 5);
        int64_t count[7] = {0};
        double worst = 0;
        for (int64_t n = 0; n < 10000; n++) {
            int32_t ids[T + 1];
            assert_status_ok(dataset_sample(d, n, ids));
            count[ids[0] / 9000]++;
            for (int f = 0; f < cases[c].n; f++) {
                double ideal = (double)(n + 1) * cases[c].weights[f] / sum;
                worst = fmax(worst, fabs((double)count[f] - ideal));
            }
        }
        if (worst >= cases[c].levels) fail_msg("case %zu: a prefix is off by %g", c, worst);
        /* after a whole number of cycles the counts are exact */
        if (sum <= 1000)
            for (int f = 0; f < cases[c].n; f++)
                assert_int_equal(count[f], llround(10000 * cases[c].weights[f] / sum));
        dataset_close(d);
    }
}

static void each_source_is_walked_without_gaps_under_weights(void **state) {
    (void)state;
    /* 0.9 : 0.1, in file order: the k-th sample taken from a file is sample k mod its count */
    DataSource s[] = {{.path = (char *)write_counting("w0.bin", 0, 7 * T + 1), .weight = 0.9},
                      {.path = (char *)write_counting("w1.bin", 10000, 50 * T + 1), .weight = 0.1}};
    static const int samples[] = {7, 50};
    Dataset *d = open_all(2, s, false, 0);
    int64_t next[2] = {0, 0};
    for (int64_t n = 0; n < 1000; n++) {
        int f;
        int64_t k = locate(d, n, &f);
        assert_int_equal(k, next[f]++ % samples[f]);
    }
    dataset_close(d);
}

static void late_samples_are_as_exact_as_early_ones(void **state) {
    (void)state;
    DataSource s[] = {{.path = (char *)write_counting("l0.bin", 0, 7 * T + 1), .weight = 2},
                      {.path = (char *)write_counting("l1.bin", 10000, 5 * T + 1), .weight = 1}};
    Dataset *d = open_all(2, s, false, 0);
    const int64_t start = ((int64_t)1 << 50) / 105 * 105; /* whole cycles of 3 * 7 * 5 */
    for (int64_t n = 0; n < 105; n++) {
        int early, late;
        int64_t k = locate(d, n, &early);
        assert_int_equal(locate(d, start + n, &late), k);
        assert_int_equal(late, early);
    }
    dataset_close(d);
}

/* Another list of the sources, as a later stage has it: each goes on where it was. */
static void sources_go_on_where_an_earlier_order_ended(void **state) {
    (void)state;
    enum { FILES = 3, FIRST = 50, SAMPLES = 100 };
    static const double weights[] = {5, 2, 3};
    DataSource s[FILES], other[FILES];
    int64_t counts[FILES] = {0}, found[FILES] = {0};
    bool seen[FILES][SAMPLES] = {{false}};
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "on%d.bin", i);
        s[i] = (DataSource){.path = (char *)write_counting(name, i * 10000, SAMPLES * T + 1),
                            .weight = weights[i]};
    }
    Dataset *d = open_all(FILES, s, true, 7);
    for (int n = 0; n < FIRST; n++) {
        int file;
        int64_t k = locate(d, n, &file);
        assert_false(seen[file][k]);
        seen[file][k] = true;
        found[file]++;
    }
    dataset_count(d, FIRST, counts);
    assert_memory_equal(counts, found, sizeof counts);
    dataset_close(d);
    /* the same files in another order and other shares */
    SourceStart starts[FILES];
    for (int i = 0; i < FILES; i++) {
        int was = FILES - 1 - i;
        other[i] = (DataSource){.path = s[was].path, .weight = 1};
        starts[i] = (SourceStart){.samples = counts[was], .number = was};
    }
    assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = other,
                                                        .n_sources = FILES,
                                                        .starts = starts,
                                                        .seq_len = T,
                                                        .vocab = 65536,
                                                        .seed = 7,
                                                        .shuffle = true}));
    for (int n = 0; n < 3 * (SAMPLES - FIRST / 2); n++) { /* to the end of the first epoch */
        int file;
        int64_t k = locate(d, n, &file);
        assert_false(seen[file][k]);
        seen[file][k] = true;
    }
    dataset_close(d);
}

static void a_bad_id_is_found_through_the_dataset(void **state) {
    (void)state;
    DataSource s = {.path = (char *)write_counting("bad.bin", 0, 4 * T + 1)};
    DatasetOptions o = {.sources = &s, .n_sources = 1, .seq_len = T, .vocab = 30};
    Dataset *d;
    int32_t ids[T + 1];
    assert_status_ok(dataset_open(&d, &o));
    assert_status_ok(dataset_sample(d, 2, ids));
    assert_status_fails(dataset_sample(d, 3, ids), ERR_USER, "bad.bin has id 30 at byte 60");
    dataset_close(d);
}

static uint32_t fingerprint(int n, const DataSource *s) {
    Dataset *d = open_all(n, s, false, 0);
    uint32_t crc = dataset_fingerprint(d);
    dataset_close(d);
    return crc;
}

static void the_fingerprint_follows_files_and_their_order(void **state) {
    (void)state;
    DataSource ab[] = {{.path = (char *)write_counting("fa.bin", 0, 99)},
                       {.path = (char *)write_counting("fb.bin", 0, 99)}};
    DataSource ba[] = {ab[1], ab[0]};
    uint32_t base = fingerprint(2, ab);
    assert_int_equal(fingerprint(2, ab), base);
    assert_int_not_equal(fingerprint(2, ba), base);
    assert_int_not_equal(fingerprint(1, ab), base);
    write_counting("fb.bin", 1, 99);
    assert_int_not_equal(fingerprint(2, ab), base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_tile_a_file_and_share_one_token),
        cmocka_unit_test(bad_sources_are_refused_with_a_sentence),
        cmocka_unit_test(every_epoch_is_every_sample_exactly_once_in_a_new_order),
        cmocka_unit_test(blends_keep_their_shares_in_every_prefix),
        cmocka_unit_test(each_source_is_walked_without_gaps_under_weights),
        cmocka_unit_test(late_samples_are_as_exact_as_early_ones),
        cmocka_unit_test(sources_go_on_where_an_earlier_order_ended),
        cmocka_unit_test(a_bad_id_is_found_through_the_dataset),
        cmocka_unit_test(the_fingerprint_follows_files_and_their_order),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
