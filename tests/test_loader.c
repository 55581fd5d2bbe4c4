#include "data/loader.h"

#include <time.h>

#include "base/rng.h"
#include "token_files.h"

enum { T = 16, EOD = 3, SAMPLES = 50 };

/* 50 samples of random ids below 40, about one in ten an eod; the sources are by weight. */
static Dataset *open_random(int64_t vocab) {
    uint16_t ids[SAMPLES * T + 1];
    DataSource s[2];
    for (int f = 0; f < 2; f++) {
        for (int i = 0; i < SAMPLES * T + 1; i++) {
            uint64_t r = rng_u64(7, rng_stream(RNG_TEST, (uint64_t)f), (uint64_t)i);
            ids[i] = (uint16_t)(r % 10 == 0 ? EOD : 4 + (r >> 32) % 36);
        }
        s[f] =
            (DataSource){.path = (char *)write_ids(f ? "r1.bin" : "r0.bin", ids, SAMPLES * T + 1),
                         .weight = f ? 0.25 : 0.75};
    }
    Dataset *d;
    assert_status_ok(dataset_open(&d, &(DatasetOptions){.sources = s,
                                                        .n_sources = 2,
                                                        .seq_len = T,
                                                        .vocab = vocab,
                                                        .seed = 11,
                                                        .shuffle = true}));
    return d;
}

static LoaderOptions options(int64_t global, int64_t micro, int dp_rank, int dp_size) {
    return (LoaderOptions){.global = global,
                           .micro = micro,
                           .dp_rank = dp_rank,
                           .dp_size = dp_size,
                           .seq_len = T,
                           .eod = EOD};
}

static void assert_same_batch(const MicroBatch *a, const MicroBatch *b) {
    size_t n = (size_t)(a->B * a->T);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->micro, b->micro);
    assert_int_equal(a->B, b->B);
    assert_int_equal(a->T, b->T);
    assert_int_equal(a->n_docs, b->n_docs);
    assert_memory_equal(a->tokens, b->tokens, n * sizeof *a->tokens);
    assert_memory_equal(a->labels, b->labels, n * sizeof *a->labels);
    assert_memory_equal(a->positions, b->positions, n * sizeof *a->positions);
    assert_memory_equal(a->weights, b->weights, n * sizeof *a->weights);
    assert_memory_equal(a->samples, b->samples, (size_t)a->B * sizeof *a->samples);
    assert_memory_equal(a->doc_begin, b->doc_begin, (size_t)a->n_docs * sizeof *a->doc_begin);
}

static void a_step_is_the_same_samples_for_any_ranks_and_micro_batch(void **state) {
    (void)state;
    enum { GLOBAL = 24 };
    Dataset *d = open_random(40);
    for (int64_t step = 0; step < 6; step++)
        for (int dp = 1; dp <= 4; dp *= 2)
            for (int64_t micro = 1; micro * dp <= GLOBAL; micro++) {
                if (GLOBAL % (micro * dp) != 0) continue;
                int seen[GLOBAL] = {0};
                for (int rank = 0; rank < dp; rank++)
                    for (int64_t j = 0; j < GLOBAL / (micro * dp); j++) {
                        LoaderOptions o = options(GLOBAL, micro, rank, dp);
                        MicroBatch mb;
                        assert_status_ok(loader_batch(&mb, d, &o, step, j));
                        for (int64_t b = 0; b < micro; b++) {
                            int32_t ids[T + 1];
                            int64_t k = mb.samples[b] - step * GLOBAL;
                            assert_int_equal(k, (j * dp + rank) * micro + b);
                            seen[k]++;
                            assert_status_ok(dataset_sample(d, mb.samples[b], ids));
                            assert_memory_equal(mb.tokens + b * T, ids, T * 4);
                            assert_memory_equal(mb.labels + b * T, ids + 1, T * 4);
                        }
                        loader_batch_free(&mb, &o);
                    }
                for (int k = 0; k < GLOBAL; k++) assert_int_equal(seen[k], 1);
            }
    dataset_close(d);
}

static void a_run_of_two_batch_sizes_takes_every_sample_once(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    int64_t next = 0;
    for (int64_t step = 0; step < 6; step++) {
        LoaderOptions o = options(step < 2 ? 8 : 4, 4, 0, 1);
        o.sample_shift = step < 2 ? 0 : 2 * 8 - 2 * 4;
        for (int64_t j = 0; j < o.global / o.micro; j++) {
            MicroBatch mb;
            assert_status_ok(loader_batch(&mb, d, &o, step, j));
            assert_int_equal(mb.step, step);
            for (int64_t b = 0; b < o.micro; b++) assert_int_equal(mb.samples[b], next++);
            loader_batch_free(&mb, &o);
        }
    }
    dataset_close(d);
}

/* Position by position, from the words of loader.h. */
static void assert_as_defined(const MicroBatch *mb, const LoaderOptions *o) {
    int32_t docs = 0;
    for (int64_t i = 0; i < mb->B * mb->T; i++) {
        int64_t s = i % mb->T, start = 0; /* of the document that s belongs to */
        for (int64_t j = 1; j <= s; j++)
            if (mb->tokens[i - s + j - 1] == EOD) start = j;
        assert_int_equal(mb->positions[i], o->reset_positions ? s - start : s);
        if (s == 0 || (o->documents && s == start)) {
            assert_true(docs < mb->n_docs);
            assert_int_equal(mb->doc_begin[docs++], i);
        }
        float weight = o->eod_mask_loss && mb->tokens[i] == EOD ? 0 : 1;
        assert_true(mb->weights[i] == weight);
        if (s > 0) assert_int_equal(mb->labels[i - 1], mb->tokens[i]);
    }
    assert_int_equal(docs, mb->n_docs);
}

static void documents_positions_and_weights_follow_their_definition(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    for (int flags = 0; flags < 8; flags++) {
        LoaderOptions o = options(10, 5, 0, 1);
        o.documents = flags & 1;
        o.reset_positions = flags & 2;
        o.eod_mask_loss = flags & 4;
        int32_t docs = 0;
        for (int64_t n = 0; n < 20; n++) {
            MicroBatch mb;
            assert_status_ok(loader_batch(&mb, d, &o, n / 2, n % 2));
            assert_as_defined(&mb, &o);
            docs += mb.n_docs;
            loader_batch_free(&mb, &o);
        }
        assert_true(o.documents ? docs > 200 : docs == 100);
    }
    LoaderOptions none = options(10, 5, 0, 1); /* eod -1: nothing is special */
    none.eod = -1;
    none.documents = none.reset_positions = none.eod_mask_loss = true;
    MicroBatch mb;
    assert_status_ok(loader_batch(&mb, d, &none, 0, 0));
    assert_int_equal(mb.n_docs, 5);
    for (int i = 0; i < 5 * T; i++) {
        assert_true(mb.weights[i] == 1);
        assert_int_equal(mb.positions[i], i % T);
    }
    loader_batch_free(&mb, &none);
    dataset_close(d);
}

static void every_token_an_eod_is_a_document_each(void **state) {
    (void)state;
    uint16_t ids[2 * T + 1];
    for (int i = 0; i <= 2 * T; i++) ids[i] = EOD;
    DataSource s = {.path = (char *)write_ids("eods.bin", ids, 2 * T + 1)};
    Dataset *d;
    assert_status_ok(dataset_open(
        &d, &(DatasetOptions){.sources = &s, .n_sources = 1, .seq_len = T, .vocab = 4}));
    LoaderOptions o = options(2, 2, 0, 1);
    o.documents = o.reset_positions = o.eod_mask_loss = true;
    MicroBatch mb;
    assert_status_ok(loader_batch(&mb, d, &o, 0, 0));
    assert_int_equal(mb.n_docs, 2 * T);
    assert_as_defined(&mb, &o);
    loader_batch_free(&mb, &o);
    dataset_close(d);
}

static void nap(int64_t us) {
    nanosleep(&(struct timespec){.tv_nsec = (long)(us * 1000)}, NULL);
}

/* The thread gives what loader_batch defines, whatever the depth, the start and who is faster. */
static void the_thread_delivers_what_the_definition_says(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    for (int depth = 0; depth <= 5; depth++)
        for (int64_t first = 0; first <= 7; first += 7)
            for (int slow = 0; slow < 2; slow++) {
                LoaderOptions o = options(12, 2, 1, 2);
                o.depth = depth;
                o.documents = o.reset_positions = o.eod_mask_loss = true;
                Loader *l;
                assert_status_ok(loader_create(&l, d, &o, first));
                double waited = 0;
                for (int64_t n = 0; n < 30; n++) {
                    const MicroBatch *got;
                    MicroBatch expected;
                    assert_status_ok(loader_next(l, &got, n % 2 ? &waited : NULL));
                    if (slow) nap(200); /* the ring fills while the batch is held */
                    assert_status_ok(loader_batch(&expected, d, &o, first + n / 3, n % 3));
                    assert_same_batch(got, &expected);
                    loader_batch_free(&expected, &o);
                }
                assert_true(waited >= 0);
                loader_free(l);
            }
    dataset_close(d);
}

static void freeing_works_at_any_moment(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    for (int i = 0; i < 60; i++) {
        LoaderOptions o = options(4, 2, 0, 1);
        o.depth = 1 + i % 3;
        Loader *l;
        const MicroBatch *mb;
        assert_status_ok(loader_create(&l, d, &o, 0));
        for (int n = 0; n < i % 4; n++) assert_status_ok(loader_next(l, &mb, NULL));
        if (i % 2) nap(10 * i); /* otherwise often before the thread has begun */
        loader_free(l);
    }
    loader_free(NULL);
    dataset_close(d);
}

static void an_error_arrives_after_the_valid_batches_with_its_message(void **state) {
    (void)state;
    const char *path = write_counting("counting.bin", 0, 10 * T + 1);
    DataSource s = {.path = (char *)path};
    Dataset *d;
    /* samples 0-6 hold ids up to 112; sample 7 begins with 112 and reaches 128 */
    assert_status_ok(dataset_open(
        &d, &(DatasetOptions){.sources = &s, .n_sources = 1, .seq_len = T, .vocab = 113}));
    LoaderOptions o = options(2, 1, 0, 1);
    Loader *l;
    const MicroBatch *mb;
    MicroBatch one;
    assert_status_ok(loader_create(&l, d, &o, 0));
    for (int n = 0; n < 7; n++) assert_status_ok(loader_next(l, &mb, NULL));
    for (int again = 0; again < 2; again++)
        assert_status_fails(loader_next(l, &mb, NULL), ERR_USER,
                            "counting.bin has id 113 at byte 226 (token 113)");
    loader_free(l);
    assert_status_fails(loader_batch(&one, d, &o, 3, 1), ERR_USER, "has id 113");
    loader_batch_free(&one, &o); /* harmless after a failure */
    dataset_close(d);
}

static void a_micro_batch_too_large_for_its_index_is_refused(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    LoaderOptions o = options((int64_t)1 << 27, (int64_t)1 << 27, 0, 1);
    Loader *l;
    assert_status_fails(loader_create(&l, d, &o, 0), ERR_USER, "lower batch.micro");
    assert_null(l);
    dataset_close(d);
}

/* The loader takes these as they are. */
struct CpBatch {
    int64_t plan;
};
static int made, released; /* by both threads, but never at once: read after loader_free */

static CpBatch *prepare_plan(void *ctx, const MicroBatch *mb) {
    CpBatch *batch = NEW(CpBatch, 1);
    batch->plan = mb->samples[0] * 1000 + mb->n_docs;
    (*(int *)ctx)++;
    return batch;
}

static void release_plan(CpBatch *batch) {
    released++;
    free(batch);
}

static void what_is_prepared_stays_with_its_batch_and_is_released_once(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    LoaderOptions o = options(4, 2, 0, 1);
    o.prepare = prepare_plan;
    o.release = release_plan;
    o.ctx = &made;
    Loader *l;
    assert_status_ok(loader_create(&l, d, &o, 0));
    for (int n = 0; n < 40; n++) {
        const MicroBatch *mb;
        assert_status_ok(loader_next(l, &mb, NULL));
        if (n % 8 == 0) nap(200);
        assert_int_equal(mb->cp_batch->plan, mb->samples[0] * 1000 + mb->n_docs);
    }
    loader_free(l);
    assert_true(made >= 40);
    assert_int_equal(released, made);
    MicroBatch mb;
    assert_status_ok(loader_batch(&mb, d, &o, 5, 1));
    assert_int_equal(mb.cp_batch->plan, mb.samples[0] * 1000 + mb.n_docs);
    loader_batch_free(&mb, &o);
    assert_int_equal(released, made);
    dataset_close(d);
}

static void samples_past_the_end_have_no_weight(void **state) {
    (void)state;
    Dataset *d = open_random(40);
    LoaderOptions o = options(4, 4, 0, 1);
    o.samples_end = 6;
    MicroBatch mb;
    assert_status_ok(loader_batch(&mb, d, &o, 1, 0));
    for (int64_t i = 0; i < mb.B * mb.T; i++)
        assert_true(mb.weights[i] == (mb.samples[i / mb.T] < 6 ? 1.0f : 0.0f));
    assert_int_equal(mb.samples[0], 4);
    loader_batch_free(&mb, &o);
    dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_the_same_samples_for_any_ranks_and_micro_batch),
        cmocka_unit_test(a_run_of_two_batch_sizes_takes_every_sample_once),
        cmocka_unit_test(documents_positions_and_weights_follow_their_definition),
        cmocka_unit_test(every_token_an_eod_is_a_document_each),
        cmocka_unit_test(the_thread_delivers_what_the_definition_says),
        cmocka_unit_test(freeing_works_at_any_moment),
        cmocka_unit_test(an_error_arrives_after_the_valid_batches_with_its_message),
        cmocka_unit_test(a_micro_batch_too_large_for_its_index_is_refused),
        cmocka_unit_test(what_is_prepared_stays_with_its_batch_and_is_released_once),
        cmocka_unit_test(samples_past_the_end_have_no_weight),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
