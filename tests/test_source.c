#include "data/source.h"

#include <sys/resource.h>

#include "data/dataset.h"
#include "token_files.h"

enum { T = 8 };

static SourceOptions options(const char *path) {
    return (SourceOptions){.path = path, .split = "", .eod = -1, .seq_len = T};
}

static void a_pattern_is_all_its_files_in_order_and_one_shuffle(void **state) {
    (void)state;
    /* 3, 0, 5 and 2 samples; what lies beside token files does not count */
    static const int samples[] = {3, 0, 5, 2};
    for (int f = 0; f < 4; f++) {
        char name[32];
        snprintf(name, sizeof name, "shard_%d.bin", f);
        write_counting(name, f * 1000, samples[f] * T + 1);
    }
    write_bytes("shard_9.bin.tmp", "x", 1);
    write_bytes("shard_9.bin.gz.index", "x", 1);
    char *pattern = mem_printf("%s/shard_[0-9]*", folder);
    Source s;
    SourceOptions o = options(pattern);
    assert_status_ok(source_open(&s, &o));
    assert_int_equal(s.n_files, 4);
    assert_int_equal(s.samples, 10);
    for (int64_t k = 0; k < 10; k++) {
        int64_t in_file = k;
        const SourceFile *f = source_find(&s, &in_file);
        int file = (int)(f - s.files);
        assert_int_equal(file, k < 3 ? 0 : k < 8 ? 2 : 3);
        assert_int_equal(in_file, k < 3 ? k : k < 8 ? k - 3 : k - 8);
    }
    source_close(&s);
    DataSource one = {.path = pattern};
    Dataset *d;
    assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = &one,
                                                        .n_sources = 1,
                                                        .seq_len = T,
                                                        .vocab = 65536,
                                                        .seed = 3,
                                                        .shuffle = true}));
    int n_sources;
    const Source *sources = dataset_sources(d, &n_sources);
    assert_int_equal(n_sources, 1);
    assert_int_equal(sources[0].n_files, 4);
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[4000] = {0};
        for (int n = 0; n < 10; n++) {
            int32_t ids[T + 1];
            assert_status_ok(dataset_sample(d, epoch * 10 + n, ids));
            assert_false(seen[ids[0]]);
            seen[ids[0]] = true;
        }
    }
    dataset_close(d);
    o.path = in_folder("none_*.bin");
    assert_status_fails(source_open(&s, &o), ERR_USER, "no token file matches the pattern");
    source_close(&s);
    o.path = in_folder("shard_1*");
    assert_status_fails(source_open(&s, &o), ERR_USER, "has 1 tokens, but one sample");
    source_close(&s);
    free(pattern);
}

static void a_thousand_shards_open_under_the_usual_limit(void **state) {
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct rlimit low = {64, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int f = 0; f < 100; f++) {
        char name[32];
        snprintf(name, sizeof name, "many_%03d", f);
        write_counting(name, f, T + 1);
    }
    Source s;
    SourceOptions o = options(in_folder("many_*"));
    assert_status_ok(source_open(&s, &o));
    assert_int_equal(s.samples, 100);
    source_close(&s);
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void shares_are_cut_like_megatrons(void **state) {
    (void)state;
    static const struct {
        const char *split;
        int64_t n, borders[4];
    } cases[] = {
        {"94,5,1", 100, {0, 94, 99, 100}},  {"949,50,1", 8013769, {0, 7605067, 8005755, 8013769}},
        {"8,1,1", 10, {0, 8, 9, 10}},       {"1,1,0", 5, {0, 2, 5, 5}}, /* 2.5 is rounded to even */
        {"1,1,0", 7, {0, 4, 7, 7}},                                     /* and so is 3.5 */
        {"0.5,0.25,0.25", 2, {0, 1, 2, 2}}, {"1,0,0", 3, {0, 3, 3, 3}},
        {"94,5", 99, {0, 94, 99, 99}},      {"1", 7, {0, 7, 7, 7}},
        {"3, 1", 8, {0, 6, 8, 8}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int part = 0; part < 3; part++) {
            int64_t begin, end;
            split_range(cases[c].split, part, cases[c].n, &begin, &end);
            assert_int_equal(begin, cases[c].borders[part]);
            assert_int_equal(end, cases[c].borders[part + 1]);
        }
}

static void files_without_an_index_are_split_between_documents(void **state) {
    (void)state;
    enum { N = 1000, EOD = 7 };
    uint16_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = (uint16_t)(i % 37 == 36 ? EOD : 100 + i);
    const char *path = write_ids("cut.bin", ids, N);
    int64_t at = 0;
    for (int part = 0; part < 3; part++) {
        SourceOptions o = options(path);
        Source s;
        o.split = "50,30,20";
        o.part = part;
        o.eod = EOD;
        assert_status_ok(source_open(&s, &o));
        const SourceFile *f = &s.files[0];
        assert_int_equal(f->begin, at); /* nothing is lost, nothing twice */
        assert_true(f->begin == 0 || ids[f->begin - 1] == EOD);
        at = f->end;
        source_close(&s);
    }
    assert_int_equal(at, N);
    SourceOptions o = options(path);
    Source s;
    o.split = "50,30,20";
    assert_status_fails(source_open(&s, &o), ERR_USER, "set data.eod");
    source_close(&s);
    o.eod = EOD;
    o.part = SPLIT_TEST;
    o.split = "50,49.9,0.1";
    assert_status_fails(source_open(&s, &o), ERR_USER, "the test part (data.split 50,49.9,0.1) of");
    source_close(&s);
}

/* With what an earlier run had. */
static Status compare(const Dataset *d, const char *was) {
    StrBuf now = {0};
    dataset_describe(d, &now);
    Status st = dataset_compare(strbuf_text(&now), was);
    strbuf_free(&now);
    return st;
}

static void a_changed_file_is_named(void **state) {
    (void)state;
    DataSource s[] = {{.path = (char *)write_counting("a.bin", 0, 100)},
                      {.path = (char *)write_counting("b.bin", 0, 200)}};
    DatasetOptions o = {.sources = s, .n_sources = 2, .seq_len = T, .vocab = 65536};
    Dataset *d;
    StrBuf was = {0};
    assert_status_ok(dataset_open(&d, &o));
    dataset_describe(d, &was);
    assert_status_ok(compare(d, was.text));
    dataset_close(d);
    o.n_sources = 1;
    assert_status_ok(dataset_open(&d, &o));
    assert_status_fails(compare(d, was.text), ERR_USER, "found nothing where it had \"b.bin 400 ");
    assert_status_fails(compare(d, ""), ERR_USER, "found \"a.bin 200 ");
    assert_status_fails(compare(d, "a42f074d"), ERR_USER, "where it had \"a42f074d\"");
    dataset_close(d);
    o.n_sources = 2;
    assert_status_ok(dataset_open(&d, &o));
    assert_int_equal(dataset_warn_of_changes(d), 0);
    usleep(20000); /* more than a tick of file times */
    write_counting("b.bin", 1, 200);
    assert_int_equal(dataset_warn_of_changes(d), 1);
    assert_int_equal(dataset_warn_of_changes(d), 0);
    dataset_close(d);
    assert_status_ok(dataset_open(&d, &o));
    assert_status_fails(compare(d, was.text), ERR_USER, "b.bin 400 ");
    dataset_close(d);
    strbuf_free(&was);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pattern_is_all_its_files_in_order_and_one_shuffle),
        cmocka_unit_test(a_thousand_shards_open_under_the_usual_limit),
        cmocka_unit_test(shares_are_cut_like_megatrons),
        cmocka_unit_test(files_without_an_index_are_split_between_documents),
        cmocka_unit_test(a_changed_file_is_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
