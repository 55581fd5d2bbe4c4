#include "op_test.h"

static const int64_t sizes[] = {0, 1, 7, 16, 8191, 8192, 8193, 50001};

static void sums_are_added_to_the_output_in_double(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        int64_t n = sizes[i];
        float *x = tensor_random(n, 1, 1);
        double sum = 3, squares = 5, want_sum = 3, want_squares = 5;
        for (int64_t j = 0; j < n; j++) {
            want_sum += (double)x[j];
            want_squares += (double)x[j] * (double)x[j];
        }
        cpu_ops()->sum_f32(&sum, x, n, NULL);
        cpu_ops()->sum_squares(&squares, x, n, NULL);
        assert_true(fabs(sum - want_sum) <= 1e-12 * (double)(n + 1));
        assert_true(fabs(squares - want_squares) <= 1e-12 * want_squares);
        tensor_free(x);
    }
}

static float *run_sums(int64_t *n) {
    double out[2] = {0.1, 0.2};
    float *x = tensor_random(100001, 1, 1), *bits = tensor_new(4);
    cpu_ops()->sum_f32(&out[0], x, 100001, NULL);
    cpu_ops()->sum_squares(&out[1], x, 100001, NULL);
    memcpy(bits, out, sizeof out);
    tensor_free(x);
    *n = 4;
    return bits;
}

static void sums_have_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_sums);
}

static void sums_do_not_depend_on_where_the_array_lies_in_memory(void **state) {
    (void)state;
    const int64_t n = 9001;
    float *x = tensor_random(n, 1, 1);
    double first = 0;
    cpu_ops()->sum_f32(&first, x, n, NULL);
    for (int offset = 1; offset < 16; offset++) {
        float *moved = tensor_new(n + offset);
        double sum = 0;
        memcpy(moved + offset, x, (size_t)n * sizeof(float));
        cpu_ops()->sum_f32(&sum, moved + offset, n, NULL);
        assert_true(sum == first);
        tensor_free(moved);
    }
    tensor_free(x);
}

static void a_nan_anywhere_makes_the_sum_of_squares_nan(void **state) {
    (void)state;
    float *x = tensor_random(20000, 1, 1);
    x[12345] = NAN;
    double out = 0;
    cpu_ops()->sum_squares(&out, x, 20000, NULL);
    assert_true(isnan(out));
    tensor_free(x);
}

static void add_and_cast_touch_exactly_n_elements(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        int64_t n = sizes[i];
        float *a = tensor_random(n, 1, 1), *b = tensor_random(n, 2, 1), *sum = tensor_copy(a, n);
        float *cast = tensor_new(n);
        cpu_ops()->add_f32(sum, b, n, NULL);
        cpu_ops()->cast_f32(cast, b, n, NULL);
        for (int64_t j = 0; j < n; j++) a[j] += b[j];
        assert_bits("sum", sum, a, n);
        assert_bits("cast", cast, b, n);
        cpu_ops()->cast_f32(b, b, n, NULL);
        assert_bits("cast in place", b, cast, n);
        cpu_ops()->widen(cast, a, false, n, NULL);
        assert_bits("widen", cast, a, n);
        cpu_ops()->widen(cast, b, true, n, NULL);
        for (int64_t j = 0; j < n; j++) a[j] += b[j];
        assert_bits("widen and add", cast, a, n);
        tensor_free(a);
        tensor_free(b);
        tensor_free(sum);
        tensor_free(cast);
    }
}

/* The definition, word for word. */
static uint64_t checksum_of(const unsigned char *x, int64_t bytes) {
    uint64_t sum = 0;
    for (int64_t i = 0; 8 * i < bytes; i++) {
        uint64_t word = 0;
        memcpy(&word, x + 8 * i, (size_t)i64_min(8, bytes - 8 * i));
        sum += checksum_mix(word, i);
    }
    return sum;
}

static void a_checksum_is_added_and_shows_any_change(void **state) {
    (void)state;
    enum { N = 100 };
    float *x = tensor_random(N, 1, 1);
    unsigned char *bytes = (unsigned char *)x;
    for (int64_t n = 0; n <= 4 * N; n++) {
        uint64_t sum = 77;
        cpu_ops()->checksum(&sum, x, n, NULL);
        assert_true(sum == checksum_of(bytes, n) + 77);
    }
    uint64_t whole = 0, swapped = 0, words[2];
    cpu_ops()->checksum(&whole, x, 4 * N, NULL);
    for (int bit = 0; bit < 32 * N; bit++) {
        uint64_t sum = 0;
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        cpu_ops()->checksum(&sum, x, 4 * N, NULL);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_true(sum != whole);
    }
    memcpy(words, bytes, sizeof words);
    memcpy(bytes, &words[1], 8);
    memcpy(bytes + 8, &words[0], 8);
    cpu_ops()->checksum(&swapped, x, 4 * N, NULL);
    assert_true(swapped != whole);
    tensor_free(x);
    float *large = tensor_random(100001, 2, 1);
    for (int threads = 1; threads <= 5; threads++) {
        uint64_t sum = 0;
        omp_set_num_threads(threads);
        cpu_ops()->checksum(&sum, large, 4 * 100001, NULL);
        assert_true(sum == checksum_of((unsigned char *)large, 4 * 100001));
    }
    tensor_free(large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_added_to_the_output_in_double),
        cmocka_unit_test(sums_have_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(sums_do_not_depend_on_where_the_array_lies_in_memory),
        cmocka_unit_test(a_nan_anywhere_makes_the_sum_of_squares_nan),
        cmocka_unit_test(add_and_cast_touch_exactly_n_elements),
        cmocka_unit_test(a_checksum_is_added_and_shows_any_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
