#include "op_test.h"

enum { N = 29, ROWS = 41 };

/* N distinct rows of ROWS */
static int32_t *distinct_rows(void) {
    int32_t *index = tensor_bytes(N * (int64_t)sizeof(int32_t));
    for (uint64_t i = 0; i < N; i++) index[i] = (int32_t)rng_permute(ROWS, 1, 2, i);
    return index;
}

static void gather_takes_and_scatter_puts_back(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 3, 16, 100};
    int32_t *index = distinct_rows();
    for (int i = 0; i < 4; i++) {
        int64_t w = widths[i], row_bytes = w * (int64_t)sizeof(float);
        float *src = tensor_random(ROWS * w, 1, 1), *packed = tensor_new(N * w);
        float *dst = tensor_random(ROWS * w, 2, 1), *want = tensor_copy(dst, ROWS * w);
        cpu_ops()->gather_rows(packed, src, index, N, row_bytes, NULL);
        cpu_ops()->scatter_rows(dst, packed, index, N, row_bytes, NULL);
        for (int64_t r = 0; r < N; r++) {
            assert_bits("packed row", packed + r * w, src + index[r] * w, w);
            memcpy(want + index[r] * w, src + index[r] * w, (size_t)row_bytes);
        }
        assert_bits("scattered", dst, want, ROWS * w);
        tensor_free(src);
        tensor_free(packed);
        tensor_free(dst);
        tensor_free(want);
    }
    tensor_free(index);
}

static void gather_may_repeat_a_row(void **state) {
    (void)state;
    float src[] = {1, 2, 3, 4}, dst[6];
    const int32_t index[] = {1, 1, 0};
    const float want[] = {3, 4, 3, 4, 1, 2};
    cpu_ops()->gather_rows(dst, src, index, 3, 8, NULL);
    assert_bits("dst", dst, want, 6);
}

/* Row i is the sum of a base row and of i % 4 rows of src, of which some serve several sums. */
static void sum_order(int32_t *begin, int32_t *from) {
    begin[0] = 0;
    for (int32_t i = 0; i < N; i++) {
        begin[i + 1] = begin[i] + i % 4;
        for (int32_t j = begin[i]; j < begin[i + 1]; j++) from[j] = (7 * i + 11 * j) % ROWS;
    }
}

static void sums_add_in_the_order_listed(void **state) {
    (void)state;
    int32_t begin[N + 1], from[4 * N];
    sum_order(begin, from);
    for (int64_t w = 1; w < 20; w += 6) {
        float *base = tensor_random(N * w, 1, 1), *src = tensor_random(ROWS * w, 2, 1);
        float *dst = tensor_new(N * w), *want = tensor_copy(base, N * w);
        for (int64_t i = 0; i < N; i++)
            for (int32_t j = begin[i]; j < begin[i + 1]; j++)
                for (int64_t c = 0; c < w; c++) want[i * w + c] += src[from[j] * w + c];
        cpu_ops()->sum_rows(dst, base, src, begin, from, N, w, NULL);
        assert_bits("sums", dst, want, N * w);
        cpu_ops()->sum_rows(base, base, src, begin, from, N, w, NULL);
        assert_bits("in place", base, want, N * w);
        tensor_free(base);
        tensor_free(src);
        tensor_free(dst);
        tensor_free(want);
    }
}

static float *run_sum(int64_t *n) {
    int32_t begin[N + 1], from[4 * N];
    sum_order(begin, from);
    float *dst = tensor_random(N * 10, 1, 1), *src = tensor_random(ROWS * 10, 2, 1);
    cpu_ops()->sum_rows(dst, dst, src, begin, from, N, 10, NULL);
    tensor_free(src);
    *n = N * 10;
    return dst;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_sum);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_takes_and_scatter_puts_back),
        cmocka_unit_test(gather_may_repeat_a_row),
        cmocka_unit_test(sums_add_in_the_order_listed),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
