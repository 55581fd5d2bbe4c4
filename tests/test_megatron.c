#include "data/megatron.h"

#include "data/dataset.h"
#include "token_files.h"

static void all_integer_codes_are_read(void **state) {
    (void)state;
    static const struct {
        int code, bytes;
        int64_t largest;
    } codes[] = {{1, 1, 255},        {2, 1, 127},        {3, 2, 32767},
                 {4, 4, 2147483646}, {5, 8, 2147483646}, {8, 2, 65535}};
    for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
        unsigned char data[64], index[34 + 12 * 2 + 8 * 3] = "MMIDIDX\0\0", *at = index + 9;
        int bytes = codes[c].bytes;
        put_le(&at, 1, 8);
        put_le(&at, (uint64_t)codes[c].code, 1);
        put_le(&at, 2, 8);
        put_le(&at, 3, 8);
        put_le(&at, 1, 4);
        put_le(&at, 2, 4);
        put_le(&at, 0, 8);
        put_le(&at, (uint64_t)bytes, 8);
        for (uint64_t d = 0; d < 3; d++) put_le(&at, d, 8);
        write_bytes("c.idx", index, sizeof index);
        at = data;
        put_le(&at, 5, bytes);
        put_le(&at, (uint64_t)codes[c].largest, bytes);
        put_le(&at, 7, bytes);
        TokenFile *f;
        int32_t ids[3];
        assert_status_ok(
            tokens_open(&f, write_bytes("c.bin", data, (size_t)(3 * bytes)), FORMAT_AUTO));
        assert_int_equal(tokens_format(f), FORMAT_MEGATRON);
        assert_int_equal(tokens_count(f), 3);
        assert_status_ok(tokens_read(f, 0, 3, INT32_MAX, ids));
        assert_int_equal(ids[1], codes[c].largest);
        assert_int_equal(ids[0] + ids[2], 12);
        assert_status_fails(tokens_read(f, 0, 3, codes[c].largest, ids), ERR_USER, "c.bin has id");
        tokens_close(f);
        if (codes[c].code == 1 || codes[c].code == 8) continue;
        at = data + bytes;
        put_le(&at, UINT64_MAX, bytes);
        assert_status_ok(
            tokens_open(&f, write_bytes("c.bin", data, (size_t)(3 * bytes)), FORMAT_AUTO));
        assert_status_fails(tokens_read(f, 0, 3, INT32_MAX, ids), ERR_USER, "has id -1 at byte");
        assert_status_fails(tokens_read(f, 0, 3, INT32_MAX, ids), ERR_USER,
                            "but ids are from 0 to 2147483646");
        tokens_close(f);
    }
}

static void a_pair_is_found_by_any_of_its_names(void **state) {
    (void)state;
    static const int32_t lengths[] = {3, 0, 2};
    static const uint16_t ids[] = {1, 2, 3, 4, 5};
    static const char *const names[] = {"pair.bin", "pair.idx", "pair"};
    write_megatron("pair", 3, lengths, 1, ids);
    for (int i = 0; i < 3; i++) {
        TokenFile *f;
        assert_status_ok(tokens_open(&f, in_folder(names[i]), FORMAT_AUTO));
        assert_int_equal(tokens_count(f), 5);
        assert_string_equal(tokens_path(f), in_folder("pair.bin"));
        tokens_close(f);
    }
}

static void documents_come_from_the_index(void **state) {
    (void)state;
    static const int32_t lengths[] = {3, 0, 2, 4, 1, 0};
    static const uint16_t ids[] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    for (int per = 1; per <= 2; per++) {
        TokenFile *f;
        int32_t read[10], begins[10];
        assert_status_ok(
            tokens_open(&f, write_megatron("docs", 6, lengths, per, ids), FORMAT_MEGATRON));
        assert_status_ok(tokens_read(f, 0, 10, 10, read));
        int64_t n = tokens_boundaries(f, 0, 10, 9, read, begins); /* the eod does not count */
        if (per == 1) { /* documents at 0, 3, 3, 5, 9 and 10: empty ones are no boundaries */
            assert_int_equal(n, 3);
            assert_int_equal(begins[0], 3);
            assert_int_equal(begins[1], 5);
            assert_int_equal(begins[2], 9);
        } else { /* at 0, 3 and 9 */
            assert_int_equal(n, 2);
            assert_int_equal(begins[0], 3);
            assert_int_equal(begins[1], 9);
        }
        assert_int_equal(tokens_boundaries(f, 4, 5, 9, read, begins), 3 - per);
        assert_int_equal(begins[2 - per], 5);
        assert_int_equal(megatron_document_from(tokens_index(f), 10), per == 1 ? 5 : 3);
        tokens_close(f);
    }
}

static void megatrons_split_cuts_the_documents_for_both_parts(void **state) {
    (void)state;
    enum { N = 20, T = 4 };
    int32_t lengths[N];
    uint16_t ids[N * 10];
    for (int i = 0; i < N; i++) lengths[i] = 10;
    for (int i = 0; i < N * 10; i++) ids[i] = (uint16_t)i;
    DataSource s = {.path = (char *)write_megatron("split", N, lengths, 1, ids)};
    static const int begin[] = {0, 140, 190}, end[] = {140, 190, 200};
    for (int part = 0; part < 3; part++) {
        Dataset *d;
        int32_t sample[T + 1];
        assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = &s,
                                                            .n_sources = 1,
                                                            .seq_len = T,
                                                            .vocab = 200,
                                                            .split = "70,25,5",
                                                            .part = part}));
        assert_int_equal(dataset_tokens(d), end[part] - begin[part]);
        assert_status_ok(dataset_sample(d, 0, sample));
        assert_int_equal(sample[0], begin[part]);
        assert_status_ok(dataset_sample(d, dataset_epoch_samples(d) - 1, sample));
        assert_true(sample[T] < end[part]);
        dataset_close(d);
    }
}

/* Changes bytes of a good index and says what the sentence must contain. */
static void every_wrong_number_is_named_with_its_place(void **state) {
    (void)state;
    static const int32_t lengths[] = {3, 2, 4};
    static const uint16_t ids[9] = {0};
    enum { SIZE = 34 + 36 + 32, LENGTHS = 34, POINTERS = 46, DOCUMENTS = 70 };
    static const struct {
        int at, bytes;
        int64_t value;
        const char *text;
    } cases[] = {
        {0, 1, 'X', "does not begin with Megatron's header"},
        {9, 8, 2, "is of version 2 at byte 9, expected 1"},
        {17, 1, 6, "says at byte 17 that it holds float64"},
        {17, 1, 9, "has type code 9 at byte 17"},
        {17, 1, 32, "has type code 32 at byte 17"},
        {17, 1, 4, "starts at byte 6 of"},
        {18, 8, 0, "has no documents"},
        {18, 8, 4, "has 102 bytes, but its header (bytes 18 to 33) speaks of 4 sequences and 4"},
        {18, 8, -1, "speaks of -1 sequences"},
        {18, 8, INT64_MAX, "it is cut short or damaged"},
        {26, 8, 5, "3 sequences and 5 document ends"},
        {26, 8, 0, "3 sequences and 0 document ends"},
        {LENGTHS + 4, 4, -7, "has length -7 for sequence 1 at byte 38"},
        {LENGTHS + 8, 4, 5, "has 18 bytes, but its index"},
        {POINTERS + 8, 8, 7, "says at byte 54 that sequence 1 starts at byte 7 of"},
        {POINTERS + 16, 8, 1 << 20, "says at byte 62 that sequence 2 starts at byte 1048576 of"},
        {POINTERS, 8, -2, "starts at byte -2 of"},
        {DOCUMENTS, 8, 1, "says at byte 70 that document 0 starts with sequence 1, expected 0"},
        {DOCUMENTS + 8, 8, 4, "says at byte 78 that document 1 starts with sequence 4"},
        {DOCUMENTS + 24, 8, 2, "that document 3 starts with sequence 2, expected 3"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *bin = write_megatron("bad", 3, lengths, 1, ids);
        FILE *f = fopen(in_folder("bad.idx"), "r+b");
        unsigned char bytes[8], *at = bytes;
        put_le(&at, (uint64_t)cases[c].value, cases[c].bytes);
        assert_int_equal(fseek(f, cases[c].at, SEEK_SET), 0);
        assert_int_equal(fwrite(bytes, 1, (size_t)cases[c].bytes, f), cases[c].bytes);
        fclose(f);
        TokenFile *file;
        assert_status_fails(tokens_open(&file, bin, FORMAT_AUTO), ERR_USER, cases[c].text);
        assert_null(file);
    }
    TokenFile *file;
    const char *bin;
    write_megatron("bad", 3, lengths, 1, ids);
    for (int cut = 0; cut < SIZE; cut++) { /* an index cut short anywhere */
        assert_int_equal(truncate(in_folder("bad.idx"), SIZE - 1 - cut), 0);
        assert_status_fails(tokens_open(&file, in_folder("bad.bin"), FORMAT_AUTO), ERR_USER,
                            "bad.idx");
    }
    bin = write_megatron("bad", 3, lengths, 1, ids);
    assert_int_equal(truncate(bin, 16), 0);
    assert_status_fails(tokens_open(&file, bin, FORMAT_AUTO), ERR_USER,
                        "bad.bin has 16 bytes, but its index");
    static const int32_t none[] = {0, 0};
    assert_status_fails(tokens_open(&file, write_megatron("zero", 2, none, 1, ids), FORMAT_AUTO),
                        ERR_USER, "zero.bin is empty");
    rename(in_folder("bad.idx"), in_folder("third"));
    rename(in_folder("bad.bin"), in_folder("bad.idx"));
    rename(in_folder("third"), in_folder("bad.bin"));
    assert_status_fails(tokens_open(&file, bin, FORMAT_AUTO), ERR_USER, "are the two swapped?");
    assert_status_fails(tokens_open(&file, write_counting("alone.bin", 0, 9), FORMAT_MEGATRON),
                        ERR_USER, "alone.idx: No such file");
    assert_status_fails(tokens_open(&file, write_counting("alone", 0, 9), FORMAT_MEGATRON),
                        ERR_USER, "is not named PREFIX.bin");
}

/* Read as documents, samples in Megatron's order, and through the order's tables. */
static void read_everything(Dataset *d, int32_t *out, int64_t samples, int64_t T) {
    for (int64_t n = 0; n < samples; n++) {
        int32_t begins[64], found;
        assert_status_ok(dataset_sample_documents(d, n, -1, out + n * (T + 2), begins, &found));
        out[n * (T + 2) + T + 1] = found;
    }
}

/* Preparing the data again under the same name, while a job runs on it. A program that has mapped
 * the index would die of SIGBUS, or go on with other documents. */
static void an_index_that_changes_while_it_is_used_does_no_harm(void **state) {
    (void)state;
    enum { N = 20000, T = 16, SAMPLES = 300 }; /* an index that is shared through a file */
    int32_t *lengths = NEW(int32_t, N), *before = NEW(int32_t, SAMPLES * (T + 2)),
            *after = NEW(int32_t, SAMPLES * (T + 2));
    int64_t tokens = 0;
    for (int i = 0; i < N; i++) tokens += lengths[i] = i % 9;
    uint16_t *ids = NEW(uint16_t, tokens);
    for (int64_t i = 0; i < tokens; i++) ids[i] = (uint16_t)(i % 50000);
    for (int order = ORDER_CRIA; order <= ORDER_MEGATRON; order++)
        for (int per_document = 1; per_document <= 2; per_document++)
            for (int how = 0; how < 2; how++) {
                const char *path = write_megatron("used", N, lengths, per_document, ids);
                DataSource source = {.path = (char *)path};
                Dataset *d;
                assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = &source,
                                                                    .n_sources = 1,
                                                                    .seq_len = T,
                                                                    .vocab = 65536,
                                                                    .seed = 1,
                                                                    .shuffle = true,
                                                                    .order = (DataOrder)order,
                                                                    .samples = SAMPLES}));
                read_everything(d, before, SAMPLES, T);
                assert_int_equal(dataset_warn_of_changes(d), 0);
                usleep(20000); /* more than a tick of file times */
                if (how == 0)
                    assert_int_equal(truncate(in_folder("used.idx"), 100), 0);
                else
                    assert_int_equal(run_in_folder("dd if=/dev/urandom of=used.idx bs=64k count=5 "
                                                   "conv=notrunc 2>/dev/null"),
                                     0);
                read_everything(d, after, SAMPLES, T);
                assert_memory_equal(before, after, SAMPLES * (T + 2) * sizeof *before);
                assert_int_equal(dataset_warn_of_changes(d), 1);
                assert_int_equal(dataset_warn_of_changes(d), 0); /* once */
                dataset_close(d);
            }
    free(ids);
    free(lengths);
    free(before);
    free(after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_integer_codes_are_read),
        cmocka_unit_test(a_pair_is_found_by_any_of_its_names),
        cmocka_unit_test(documents_come_from_the_index),
        cmocka_unit_test(megatrons_split_cuts_the_documents_for_both_parts),
        cmocka_unit_test(every_wrong_number_is_named_with_its_place),
        cmocka_unit_test(an_index_that_changes_while_it_is_used_does_no_harm),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
