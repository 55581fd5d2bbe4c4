#include "op_test.h"

static void forward_copies_the_row_of_each_token(void **state) {
    (void)state;
    const int64_t S = 37;
    const int C = 67, V = 11;
    float *table = tensor_random(V * C, 1, 1), *x = tensor_new(S * C);
    int32_t *tokens = tensor_random_int(S, 2, V);
    cpu_ops()->embedding_fwd(x, tokens, table, S, C, NULL);
    for (int64_t s = 0; s < S; s++) assert_bits("x", x + s * C, table + tokens[s] * C, C);
    tensor_free(table);
    tensor_free(x);
    tensor_free(tokens);
}

static void backward_adds_rows_in_order_to_what_the_table_gradient_holds(void **state) {
    (void)state;
    const int64_t S = 53;
    static const int columns[] = {1, 63, 64, 65, 130};
    const int V = 7; /* tokens repeat */
    for (int i = 0; i < 5; i++) {
        int C = columns[i];
        float *dx = tensor_random(S * C, 1, 1), *dtable = tensor_random(V * C, 2, 1);
        float *want = tensor_copy(dtable, V * C);
        int32_t *tokens = tensor_random_int(S, 3, V);
        for (int64_t s = 0; s < S; s++) {
            for (int c = 0; c < C; c++) want[tokens[s] * C + c] += dx[s * C + c];
        }
        cpu_ops()->embedding_bwd(dtable, dx, tokens, S, C, V, NULL);
        assert_bits("dtable", dtable, want, V * C);
        tensor_free(dx);
        tensor_free(dtable);
        tensor_free(want);
        tensor_free(tokens);
    }
}

static float *run_backward(int64_t *n) {
    const int64_t S = 100;
    const int C = 300, V = 5;
    float *dx = tensor_random(S * C, 1, 1), *dtable = tensor_random(V * C, 2, 1);
    int32_t *tokens = tensor_random_int(S, 3, V);
    cpu_ops()->embedding_bwd(dtable, dx, tokens, S, C, V, NULL);
    tensor_free(dx);
    tensor_free(tokens);
    *n = V * C;
    return dtable;
}

static void backward_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_backward);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_copies_the_row_of_each_token),
        cmocka_unit_test(backward_adds_rows_in_order_to_what_the_table_gradient_holds),
        cmocka_unit_test(backward_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
