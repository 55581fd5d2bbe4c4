#include "op_test.h"
#include "ops/linear.h"

typedef enum { FWD, FWD_RESIDUAL, FWD_IN_PLACE, DGRAD, DGRAD_ADD, WGRAD, N_CASES } Case;
static const char *const case_names[] = {"y",  "y with residual", "y over residual",
                                         "dx", "dx added",        "dw"};

/* out[m,n] = old + sum_k a[i * as + k * ak] b[j * bs + k * bk], in double */
static void reference(double *out, const float *old, const float *a, int64_t as, int64_t ak,
                      const float *b, int64_t bs, int64_t bk, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = old != NULL ? (double)old[i * n + j] : 0;
            for (int64_t p = 0; p < k; p++) {
                sum += (double)a[i * as + p * ak] * (double)b[j * bs + p * bk];
            }
            out[i * n + j] = sum;
        }
    }
}

/* out += dy w: c of a Matmul with operands as of linear_dgrad() */
static void dgrad_add(float *out, const float *dy, const float *w, int64_t S, int64_t N,
                      int64_t M) {
    Matmul p = {.m = S, .n = M, .k = N, .c = out, .d = out, .d_type = DT_F32};
    p.a = linear_input(cpu_ops(), dy);
    p.b = linear_input(cpu_ops(), w);
    cpu_ops()->linear_dgrad(&p, NULL);
}

/* x[S,M], w[N,M], dy[S,N]; returns the op's result, and the reference when want is not NULL */
static float *run_case(Case what, int64_t S, int64_t N, int64_t M, double **want, int64_t *size) {
    const Ops *ops = cpu_ops();
    Linear z = {S, N, M};
    float *x = tensor_random(S * M, 1, 1), *w = tensor_random(N * M, 2, 1);
    float *dy = tensor_random(S * N, 3, 1);
    int64_t sizes[] = {S * N, S * N, S * N, S * M, S * M, N * M};
    *size = sizes[what];
    float *old = tensor_random(*size, 4, 1);
    bool adds = what == FWD_IN_PLACE || what == DGRAD_ADD || what == WGRAD;
    float *out = adds ? tensor_copy(old, *size) : tensor_new(*size);
    if (what == FWD) linear_fwd(ops, z, out, x, w, NULL, NULL);
    if (what == FWD_RESIDUAL) linear_fwd(ops, z, out, x, w, old, NULL);
    if (what == FWD_IN_PLACE) linear_fwd(ops, z, out, x, w, out, NULL);
    if (what == DGRAD) linear_dgrad(ops, z, out, dy, w, NULL);
    if (what == DGRAD_ADD) dgrad_add(out, dy, w, S, N, M);
    if (what == WGRAD) linear_wgrad(ops, z, out, dy, x, NULL);
    if (want != NULL) {
        const float *start = what == FWD || what == DGRAD ? NULL : old;
        *want = NEW(double, *size);
        if (what <= FWD_IN_PLACE) reference(*want, start, x, M, 1, w, M, 1, S, N, M);
        if (what == DGRAD || what == DGRAD_ADD) reference(*want, start, dy, N, 1, w, 1, M, S, M, N);
        if (what == WGRAD) reference(*want, start, dy, 1, N, x, 1, M, N, M, S);
    }
    tensor_free(x);
    tensor_free(w);
    tensor_free(dy);
    tensor_free(old);
    return out;
}

static void check(int64_t S, int64_t N, int64_t M) {
    for (Case what = 0; what < N_CASES; what++) {
        double *want;
        int64_t size;
        float *got = run_case(what, S, N, M, &want, &size);
        assert_close(case_names[what], got, want, size, 3e-6);
        tensor_free(got);
        free(want);
    }
}

static void products_match_fp64_for_shapes_around_the_micro_tile(void **state) {
    (void)state;
    static const int sides[] = {1, 4, 5, 6, 7, 12, 15, 16, 17, 33};
    set_threads(1); /* nothing to share in matrices this small */
    for (int i = 0; i < 10; i++) {
        for (int j = 0; j < 10; j++) {
            for (int k = 0; k < 10; k += 3) check(sides[i], sides[j], sides[k]);
        }
    }
}

static void products_match_fp64_for_shapes_beyond_every_block_size(void **state) {
    (void)state;
    set_threads(2);
    check(97, 259, 513); /* tiles and depth */
    check(1000, 40, 20); /* more rows than one packed block */
    check(30, 2100, 21); /* more columns than one packed block */
    check(9, 20, 2100);
}

static void an_empty_batch_leaves_the_weight_gradient_as_it_was(void **state) {
    (void)state;
    float *dw = tensor_random(35, 1, 1), *want = tensor_copy(dw, 35), none = 0;
    linear_wgrad(cpu_ops(), (Linear){0, 5, 7}, dw, &none, &none, NULL);
    assert_bits("dw", dw, want, 35);
    tensor_free(dw);
    tensor_free(want);
}

static void a_nan_reaches_the_rows_it_belongs_to_and_no_other(void **state) {
    (void)state;
    float *x = tensor_random(20 * 30, 1, 1), *w = tensor_random(40 * 30, 2, 1);
    float *y = tensor_new(20 * 40);
    x[7 * 30 + 29] = NAN;
    linear_fwd(cpu_ops(), (Linear){20, 40, 30}, y, x, w, NULL, NULL);
    for (int i = 0; i < 20 * 40; i++) assert_int_equal(isnan(y[i]) != 0, i / 40 == 7);
    tensor_free(x);
    tensor_free(w);
    tensor_free(y);
}

static Case threaded_case;
static float *run_threaded(int64_t *n) {
    return run_case(threaded_case, 203, 301, 270, NULL, n);
}

static void products_have_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    for (threaded_case = 0; threaded_case < N_CASES; threaded_case++) {
        assert_same_for_any_threads(run_threaded);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_fp64_for_shapes_around_the_micro_tile),
        cmocka_unit_test(products_match_fp64_for_shapes_beyond_every_block_size),
        cmocka_unit_test(an_empty_batch_leaves_the_weight_gradient_as_it_was),
        cmocka_unit_test(a_nan_reaches_the_rows_it_belongs_to_and_no_other),
        cmocka_unit_test(products_have_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
