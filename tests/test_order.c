/* The order of Megatron-LM core_v0.11. The CRCs are of what its own code gives: GPTDataset and
 * BlendedMegatronDatasetBuilder of the package megatron-core 0.11.0, read sample by sample. */
#include "data/order.h"

#include <zlib.h>

#include "data/dataset.h"
#include "data/mt19937.h"
#include "token_files.h"

static uint32_t crc_of(const uint32_t *a, int64_t n) {
    return (uint32_t)crc32_z(0, (const Bytef *)a, (size_t)n * 4);
}

static void shuffles_are_numpys(void **state) {
    (void)state;
    static const uint32_t ten[] = {7, 2, 9, 1, 0, 8, 4, 5, 6, 3};
    static const uint32_t head[] = {496447, 773290, 115235, 660779, 817909, 87617, 739467, 783133};
    enum { LONG = 1000003 };
    uint32_t *a = NEW(uint32_t, LONG);
    Mt mt;
    mt_seed(&mt, 1234);
    for (uint32_t i = 0; i < 10; i++) a[i] = i;
    mt_shuffle(&mt, a, 10);
    assert_memory_equal(a, ten, sizeof ten);
    mt_seed(&mt, 1234);
    for (uint32_t i = 0; i < LONG; i++) a[i] = i;
    mt_shuffle(&mt, a, LONG);
    assert_memory_equal(a, head, sizeof head);
    assert_int_equal(crc_of(a, LONG), 0x671f1330);
    for (uint32_t i = 0; i < 1000; i++) a[i] = i;
    mt_shuffle(&mt, a, 1000); /* the generator goes on */
    assert_int_equal(crc_of(a, 1000), 0x718c3237);
    mt_shuffle(&mt, a, 0);
    mt_shuffle(&mt, a, 1);
    assert_int_equal(crc_of(a, 1000), 0x718c3237);
    free(a);
}

/* 10 documents of 5 + (7 i mod 11) tokens, token p of document i is 100 i + p. */
static const char *write_toy(void) {
    uint16_t ids[101];
    int32_t lengths[10];
    int n = 0;
    for (int i = 0; i < 10; i++) {
        lengths[i] = 5 + 7 * i % 11;
        for (int p = 0; p < lengths[i]; p++) ids[n++] = (uint16_t)(100 * i + p);
    }
    return write_megatron("toy", 10, lengths, 1, ids);
}

static void the_toy_has_megatrons_indices(void **state) {
    (void)state;
    static const struct {
        int samples, epochs, documents[16], shuffle[20], n;
        int sample[9];
    } cases[] = {
        {5,
         1,
         {2, 1, 6, 0, 4, 5, 3, 7},
         {8, 5, 6, 0, 4, 3, 2, 9, 7, 1},
         10,
         {307, 308, 309, 310, 311, 312, 313, 314, 700}},
        {12,
         2,
         {2, 1, 6, 0, 4, 5, 3, 7, 5, 0, 3, 4, 2, 6, 1, 7},
         {3, 9, 2, 1, 7, 5, 4, 0, 8, 6, 18, 11, 17, 16, 19, 15, 14, 13, 10, 12},
         20,
         {604, 605, 606, 607, 608, 609, 610, 611, 612}},
        {20,
         2,
         {5, 3, 0, 4, 6, 2, 2, 7, 1, 1, 0, 4, 5, 6, 3, 7},
         {7, 10, 4, 1, 12, 8, 3, 17, 14, 13, 18, 11, 0, 2, 6, 15, 9, 19, 5, 16},
         20,
         {204, 205, 206, 207, 200, 201, 202, 203, 204}},
    };
    /* (position, offset) of samples 0 .. 9 of the first case, in file order */
    static const int places[][2] = {{0, 0}, {1, 0}, {1, 8}, {2, 4}, {2, 12},
                                    {4, 1}, {4, 9}, {5, 6}, {6, 7}, {7, 0}};
    DataSource source = {.path = (char *)write_toy()};
    for (int c = 0; c < 3; c++) {
        TokenFile *f;
        Order *x;
        assert_status_ok(tokens_open(&f, source.path, FORMAT_AUTO));
        assert_status_ok(order_open(&x, &(OrderOptions){.index = tokens_index(f),
                                                        .name = "toy",
                                                        .first = 0,
                                                        .end = 8,
                                                        .seq_len = 8,
                                                        .samples = cases[c].samples,
                                                        .seed = 1234}));
        assert_int_equal(order_samples(x), cases[c].n);
        for (int p = 0; p < 8 * cases[c].epochs; p++)
            assert_int_equal(order_sequence(x, p), cases[c].documents[p]);
        int64_t last = 0; /* position in which a sample begins */
        for (int n = 0; n < cases[c].n; n++) {
            int64_t position, offset, tokens = 0;
            order_find(x, n, &position, &offset);
            last = i64_max(last, position);
            for (int p = 0; p < position; p++) tokens += 5 + 7 * cases[c].documents[p] % 11;
            assert_int_equal(tokens + offset, 8 * cases[c].shuffle[n]);
            if (c == 0) {
                assert_int_equal(position, places[cases[c].shuffle[n]][0]);
                assert_int_equal(offset, places[cases[c].shuffle[n]][1]);
            }
        }
        assert_int_equal(last / 8 + 1, cases[c].epochs);
        order_close(x);
        tokens_close(f);
        Dataset *d;
        int32_t ids[9];
        assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = &source,
                                                            .n_sources = 1,
                                                            .seq_len = 8,
                                                            .vocab = 1000,
                                                            .seed = 1234,
                                                            .split = "8,1,1",
                                                            .order = ORDER_MEGATRON,
                                                            .samples = cases[c].samples}));
        assert_status_ok(dataset_sample(d, 0, ids));
        for (int i = 0; i < 9; i++) assert_int_equal(ids[i], cases[c].sample[i]);
        dataset_close(d);
    }
}

/* File f: sequence i has (7919 i + 131 f) mod 97 tokens, token p is 31337 f + 977 i + 13 p mod
 * 50000. */
static char *write_file(int f, int n, int per_document) {
    int32_t *lengths = NEW(int32_t, n);
    uint16_t *ids = NEW(uint16_t, n * 97);
    int64_t tokens = 0;
    for (int i = 0; i < n; i++) {
        lengths[i] = (7919 * i + 131 * f) % 97; /* some are empty */
        for (int p = 0; p < lengths[i]; p++)
            ids[tokens++] = (uint16_t)((31337 * f + 977 * i + 13 * p) % 50000);
    }
    char name[32];
    snprintf(name, sizeof name, "m%d", f);
    char *path = mem_strdup(write_megatron(name, n, lengths, per_document, ids));
    free(lengths);
    free(ids);
    return path;
}

/* The pieces of a sample hold its ids. */
static void check_pieces(const Dataset *d, int64_t sample, const int32_t *ids, int64_t n) {
    SamplePiece *pieces;
    int64_t n_pieces = dataset_sample_pieces(d, sample, &pieces), at = 0;
    for (int64_t i = 0; i < n_pieces; i++) {
        int32_t found[64];
        assert_true(pieces[i].tokens > 0 && at + pieces[i].tokens <= n);
        assert_status_ok(
            tokens_read(pieces[i].file, pieces[i].begin, pieces[i].tokens, 65536, found));
        assert_memory_equal(found, ids + at, (size_t)pieces[i].tokens * sizeof *ids);
        at += pieces[i].tokens;
    }
    assert_int_equal(at, n);
    free(pieces);
}

static void whole_runs_are_megatrons_token_for_token(void **state) {
    (void)state;
    static const struct {
        int files, sequences, per_document;
        const char *split;
        double weights[11]; /* 0: none are given */
        int seq_len, asked;
        int64_t seed;
        int part, samples;
        uint32_t crc; /* of samples 0 .. samples - 1, int32 */
    } cases[] = {
        {1, 1000, 1, "", {0}, 16, 1, 1234, 0, 1, 0x656dca17},
        {1, 1000, 1, "", {0}, 16, 500, 1234, 0, 500, 0x087fe2ba},
        {1, 1000, 1, "", {0}, 16, 2950, 1234, 0, 2950, 0x2faab8d0},
        {1, 1000, 1, "", {0}, 16, 2993, 1234, 0, 2993, 0x82f59ee0},
        {1, 1000, 1, "", {0}, 16, 3000, 1234, 0, 3000, 0x88a8bbbe},
        {1, 1000, 1, "", {0}, 16, 5000, 1234, 0, 5000, 0xd63a72ad},
        {1, 1000, 1, "", {0}, 16, 5800, 1234, 0, 5800, 0xc40d525d},
        {1, 1000, 1, "", {0}, 16, 6500, 1234, 0, 6500, 0x1742bc53},
        {1, 1000, 1, "", {0}, 16, 9000, 1234, 0, 9000, 0xbd21704c},
        {1, 1000, 1, "94,5,1", {0}, 16, 5000, 1234, 0, 5000, 0x0903bc28},
        {1, 1000, 1, "94,5,1", {0}, 16, 176, 1234, 1, 176, 0x20d26b09},
        {1, 1000, 1, "94,5,1", {0}, 16, 16, 1234, 2, 16, 0x133285e3},
        {1, 1000, 1, "949,50,1", {0}, 16, 400, 42, 1, 400, 0xae19ddc7},
        {1, 1000, 1, "8,1,1", {1.0}, 16, 2390, 1234, 0, 2390, 0x45421455},
        {1, 1000, 1, "8,1,1", {0}, 16, 2390, 1234, 0, 2390, 0x8c9459f8},
        {1, 1000, 1, "", {1.0}, 16, 2990, 1234, 0, 2990, 0xc0c7ab91},
        {1, 1000, 3, "7,2,1", {0}, 33, 1000, 4294967295, 0, 1000, 0xb80fa4cf},
        {3, 300, 1, "", {0.5, 0.3, 0.2}, 16, 2500, 1234, 0, 2500, 0x45ba9cd8},
        {3, 300, 1, "9,1,0", {0.5, 0.3, 0.2}, 16, 2500, 1234, 0, 2500, 0x6fc2d8ff},
        {3, 300, 1, "9,1,0", {0.5, 0.3, 0.2}, 16, 100, 1234, 1, 100, 0x9f01b891},
        {3, 300, 1, "", {0}, 16, 2000, 1234, 0, 2000, 0xac02334a},
        {3, 300, 1, "9,1,0", {0}, 16, 2000, 7, 0, 2000, 0x60e3078f},
        {3, 300, 1, "9,1,0", {0}, 16, 2000, 7, 1, 276, 0xe9277cb4},
        {11,
         100,
         1,
         "",
         {0.1, 0.7, 3, 4, 5, 0.6, 7.7, 8, 9, 10, 1.1},
         16,
         3000,
         1234,
         0,
         3000,
         0x1d8ef882},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        DataSource sources[11];
        for (int f = 0; f < cases[c].files; f++)
            sources[f] =
                (DataSource){.path = write_file(f, cases[c].sequences, cases[c].per_document),
                             .weight = cases[c].weights[f]};
        DatasetOptions o = {.sources = sources,
                            .n_sources = cases[c].files,
                            .seq_len = cases[c].seq_len,
                            .vocab = 50000,
                            .seed = (uint64_t)cases[c].seed,
                            .split = cases[c].split,
                            .part = cases[c].part,
                            .order = ORDER_MEGATRON,
                            .samples = cases[c].asked};
        Dataset *d;
        assert_status_ok(dataset_open(&d, &o));
        uint32_t crc = 0;
        int32_t ids[64], begins[64], n_begins;
        for (int n = 0; n < cases[c].samples; n++) {
            assert_status_ok(dataset_sample_documents(d, n, -1, ids, begins, &n_begins));
            crc = (uint32_t)crc32_z(crc, (const Bytef *)ids, 4 * ((size_t)cases[c].seq_len + 1));
            assert_int_equal(begins[0], 0);
            check_pieces(d, n, ids, cases[c].seq_len + 1);
            /* a step within a sequence is 13, to another sequence it is not */
            for (int i = 1, b = 1; i < cases[c].seq_len; i++) {
                bool steps = (ids[i - 1] + 13) % 50000 == ids[i];
                bool begins_here = b < n_begins && begins[b] == i;
                if (steps == begins_here) fail_msg("case %zu, sample %d, token %d", c, n, i);
                b += begins_here;
            }
        }
        if (crc != cases[c].crc) fail_msg("case %zu: %08x, not %08x", c, crc, cases[c].crc);
        dataset_close(d);
        for (int f = 0; f < cases[c].files; f++) free(sources[f].path);
    }
}

static void what_megatron_refuses_is_refused_with_a_sentence(void **state) {
    (void)state;
    char *a = write_file(0, 100, 1), *b = write_file(1, 100, 1);
    DataSource two[] = {{.path = a}, {.path = b}};
    DatasetOptions o = {.sources = two,
                        .n_sources = 2,
                        .seq_len = 16,
                        .vocab = 50000,
                        .order = ORDER_MEGATRON,
                        .samples = 100000};
    Dataset *d;
    assert_status_fails(dataset_open(&d, &o), ERR_USER, "once");
    DataSource raw = {.path = (char *)write_counting("raw.bin", 0, 1000)};
    o.sources = &raw;
    o.n_sources = 1;
    assert_status_fails(dataset_open(&d, &o), ERR_USER, "needs the document index");
    DataSource all = {.path = (char *)in_folder("m?.bin"), .weight = 1};
    o.sources = &all;
    assert_status_fails(dataset_open(&d, &o), ERR_USER, "blends single files");
    two[0].weight = 1;
    o.sources = two;
    o.seq_len = 100000;
    assert_status_fails(dataset_open(&d, &o), ERR_USER, "one sample of model.seq_len 100000 needs");
    o.seq_len = 16;
    o.n_sources = 1;
    o.samples = (int64_t)1 << 59;
    assert_status_fails(dataset_open(&d, &o), ERR_USER, "lower run.steps");
    free(a);
    free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shuffles_are_numpys),
        cmocka_unit_test(the_toy_has_megatrons_indices),
        cmocka_unit_test(whole_runs_are_megatrons_token_for_token),
        cmocka_unit_test(what_megatron_refuses_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
