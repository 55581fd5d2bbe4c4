#include "op_test.h"

/* The published algorithm (Loshchilov and Hutter, 2019, algorithm 2), in double, `updates` times */
static void reference(double *x, double *m, double *v, const float *grad, double lr, double decay,
                      double grad_scale, int64_t n, int updates) {
    const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    for (int t = 1; t <= updates; t++) {
        for (int64_t i = 0; i < n; i++) {
            double g = (double)grad[i] * grad_scale;
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            double m_hat = m[i] / (1 - pow(beta1, t)), v_hat = v[i] / (1 - pow(beta2, t));
            x[i] -= lr * (m_hat / (sqrt(v_hat) + eps) + decay * x[i]);
        }
    }
}

static AdamwStep step_at(int t) {
    return (AdamwStep){.lr = 1e-2f,
                       .beta1 = 0.9f,
                       .beta2 = 0.95f,
                       .eps = 1e-8f,
                       .weight_decay = 0.1f,
                       .bias1 = (float)(1 - pow(0.9, t)),
                       .bias2 = (float)(1 - pow(0.95, t)),
                       .grad_scale = 0.25f};
}

static void check(int64_t n, bool in_place) {
    float *master = tensor_random(n, 1, 1), *grad = tensor_random(n, 2, 1);
    float *m = tensor_new(n), *v = tensor_new(n), *param = in_place ? master : tensor_new(n);
    for (int64_t i = 0; i < n; i++) m[i] = v[i] = 0;
    double *x = to_double(master, n), *dm = NEW(double, n), *dv = NEW(double, n);
    for (int t = 1; t <= 5; t++) {
        AdamwStep step = step_at(t);
        cpu_ops()->adamw(master, m, v, param, grad, &step, n, NULL);
    }
    reference(x, dm, dv, grad, 1e-2, 0.1, 0.25, n, 5);
    assert_close("m", m, dm, n, 2e-6);
    assert_close("v", v, dv, n, 2e-6);
    assert_close("master", master, x, n, 1e-6);
    assert_bits("param", param, master, n);
    if (!in_place) tensor_free(param);
    tensor_free(master);
    tensor_free(grad);
    tensor_free(m);
    tensor_free(v);
    free(x);
    free(dm);
    free(dv);
}

static void five_updates_match_the_published_algorithm_in_fp64(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 64, 4095, 4097, 9000};
    for (int i = 0; i < 7; i++) {
        check(sizes[i], false);
        check(sizes[i], true);
    }
}

static void a_zero_gradient_leaves_only_the_decay(void **state) {
    (void)state;
    float x[] = {1, -2}, m[2] = {0}, v[2] = {0}, grad[2] = {0};
    AdamwStep step = step_at(1);
    cpu_ops()->adamw(x, m, v, x, grad, &step, 2, NULL);
    assert_float_equal(x[0], 0.999, 1e-7);
    assert_float_equal(x[1], -1.998, 2e-7);
}

static float *run_update(int64_t *n) {
    *n = 20000;
    float *x = tensor_random(*n, 1, 1), *m = tensor_random(*n, 2, 1), *g = tensor_random(*n, 4, 1);
    float *v = tensor_random(*n, 3, 1);
    for (int64_t i = 0; i < *n; i++) v[i] *= v[i];
    AdamwStep step = step_at(3);
    cpu_ops()->adamw(x, m, v, x, g, &step, *n, NULL);
    tensor_free(m);
    tensor_free(g);
    tensor_free(v);
    return x;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_update);
}

/* ZeRO cuts tensors at any element: a cut must not change a bit. */
static void an_update_in_two_parts_has_the_bits_of_one(void **state) {
    (void)state;
    int64_t n = 5000;
    float *grad = tensor_random(n, 2, 1), *whole = NULL;
    static const int64_t cuts[] = {0, 1, 3, 2501, 4097};
    for (int i = 0; i < 5; i++) {
        float *x = tensor_random(n, 1, 1), *m = tensor_random(n, 3, 1), *v = tensor_new(n);
        for (int64_t j = 0; j < n; j++) v[j] = 0.5f;
        AdamwStep step = step_at(2);
        int64_t c = cuts[i];
        cpu_ops()->adamw(x, m, v, x, grad, &step, c, NULL);
        cpu_ops()->adamw(x + c, m + c, v + c, x + c, grad + c, &step, n - c, NULL);
        tensor_free(m);
        tensor_free(v);
        if (whole == NULL) {
            whole = x;
            continue;
        }
        assert_bits("master", x, whole, n);
        tensor_free(x);
    }
    tensor_free(whole);
    tensor_free(grad);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_updates_match_the_published_algorithm_in_fp64),
        cmocka_unit_test(a_zero_gradient_leaves_only_the_decay),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(an_update_in_two_parts_has_the_bits_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
