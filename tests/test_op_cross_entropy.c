#include "op_test.h"

typedef struct {
    double *logits, *loss;
    const int32_t *labels;
    const float *weights;
    int64_t S;
    int V, Vp;
} Ref;

static double reference(void *context) { /* columns V..Vp-1 do not take part */
    Ref *r = context;
    double total = 0;
    for (int64_t s = 0; s < r->S; s++) {
        const double *x = r->logits + s * r->Vp;
        double sum = 0;
        for (int i = 0; i < r->V; i++) sum += exp(x[i]);
        r->loss[s] = (double)r->weights[s] * (log(sum) - x[r->labels[s]]);
        total += r->loss[s];
    }
    return total;
}

static void check(int64_t S, int V, int Vp) {
    int64_t n = S * Vp;
    float *logits = tensor_random(n, 1, 3), *weights = tensor_random(S, 2, 1);
    float *loss = tensor_new(S), *kept = tensor_copy(logits, n);
    int32_t *labels = tensor_random_int(S, 3, V);
    if (S > 1) weights[1] = 0;
    Ref r = {to_double(logits, n), NEW(double, S), labels, weights, S, V, Vp};
    double *want = NEW(double, n);
    numeric_grad(reference, &r, r.logits, n, want);
    reference(&r);
    cpu_ops()->cross_entropy(loss, logits, labels, weights, false, S, V, Vp, NULL);
    assert_close("loss", loss, r.loss, S, 1e-6);
    assert_bits("logits without grad", logits, kept, n);
    cpu_ops()->cross_entropy(loss, logits, labels, weights, true, S, V, Vp, NULL);
    assert_close("loss with grad", loss, r.loss, S, 1e-6);
    assert_close("gradient", logits, want, n, 2e-6);
    for (int64_t i = 0; i < n; i++) {
        if (i % Vp >= V || weights[i / Vp] == 0) assert_true(logits[i] == 0);
    }
    tensor_free(logits);
    tensor_free(weights);
    tensor_free(loss);
    tensor_free(kept);
    tensor_free(labels);
    free(r.logits);
    free(r.loss);
    free(want);
}

static void loss_and_gradient_match_finite_differences_of_fp64(void **state) {
    (void)state;
    check(1, 1, 1);
    check(4, 7, 8);
    check(5, 100, 128);
    check(3, 64, 64);
}

static void huge_logits_and_padding_garbage_are_harmless(void **state) {
    (void)state;
    float logits[] = {3e38f, 1, -3e38f, NAN, INFINITY}, loss, weight = 1;
    int32_t label = 1;
    cpu_ops()->cross_entropy(&loss, logits, &label, &weight, true, 1, 3, 5, NULL);
    assert_true(loss == 3e38f);
    float want[] = {1, -1, 0, 0, 0};
    assert_bits("gradient", logits, want, 5);
}

static void a_row_of_weight_zero_is_never_read(void **state) {
    (void)state;
    float logits[] = {NAN, INFINITY, 0, NAN}, loss = NAN, weight = 0, zeros[4] = {0};
    int32_t label = -1;
    cpu_ops()->cross_entropy(&loss, logits, &label, &weight, true, 1, 3, 4, NULL);
    assert_true(loss == 0);
    assert_bits("gradient", logits, zeros, 4);
}

static void a_nan_logit_makes_the_loss_nan(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        float logits[40] = {0}, loss = 0, weight = 1;
        int32_t label = 3;
        logits[i] = i % 2 ? NAN : -NAN;
        cpu_ops()->cross_entropy(&loss, logits, &label, &weight, false, 1, 40, 40, NULL);
        assert_true(isnan(loss));
    }
}

static float *run_grad(int64_t *n) {
    const int64_t S = 33;
    const int V = 150, Vp = 160;
    *n = S * Vp + S;
    float *out = tensor_random(*n, 1, 2), *weights = tensor_random(S, 2, 1);
    int32_t *labels = tensor_random_int(S, 3, V);
    cpu_ops()->cross_entropy(out + S * Vp, out, labels, weights, true, S, V, Vp, NULL);
    tensor_free(weights);
    tensor_free(labels);
    return out;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_grad);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_and_gradient_match_finite_differences_of_fp64),
        cmocka_unit_test(huge_logits_and_padding_garbage_are_harmless),
        cmocka_unit_test(a_row_of_weight_zero_is_never_read),
        cmocka_unit_test(a_nan_logit_makes_the_loss_nan),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
