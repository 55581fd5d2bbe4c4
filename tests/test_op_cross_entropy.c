#include "op_test.h"

typedef struct {
    double *logits, *loss, *z_loss;
    const int32_t *labels;
    const float *weights;
    double z_coef;
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
        r->z_loss[s] = (double)r->weights[s] * r->z_coef * log(sum) * log(sum);
        total += r->loss[s] + r->z_loss[s];
    }
    return total;
}

static void check(int64_t S, int V, int Vp, float z_coef) {
    int64_t n = S * Vp;
    float *logits = tensor_random(n, 1, 3), *weights = tensor_random(S, 2, 1);
    float *loss = tensor_new(S), *z_loss = tensor_new(S), *kept = tensor_copy(logits, n);
    int32_t *labels = tensor_random_int(S, 3, V);
    if (S > 1) weights[1] = 0;
    Ref r = {.logits = to_double(logits, n),
             .loss = NEW(double, S),
             .z_loss = NEW(double, S),
             .labels = labels,
             .weights = weights,
             .z_coef = (double)z_coef,
             .S = S,
             .V = V,
             .Vp = Vp};
    double *want = NEW(double, n);
    numeric_grad(reference, &r, r.logits, n, want);
    reference(&r);
    CrossEntropy a = {.loss = loss,
                      .logits = logits,
                      .labels = labels,
                      .weights = weights,
                      .z_coef = z_coef,
                      .S = S,
                      .V = V,
                      .Vp = Vp};
    cpu_ops()->cross_entropy(&a, NULL);
    assert_close("loss", loss, r.loss, S, 1e-6);
    assert_bits("logits without grad", logits, kept, n);
    a.grad = true;
    a.z_loss = z_coef > 0 ? z_loss : NULL;
    cpu_ops()->cross_entropy(&a, NULL);
    assert_close("loss with grad", loss, r.loss, S, 1e-6);
    if (z_coef > 0) assert_close("z-loss", z_loss, r.z_loss, S, 1e-6);
    assert_close("gradient", logits, want, n, 2e-6);
    for (int64_t i = 0; i < n; i++) {
        if (i % Vp >= V || weights[i / Vp] == 0) assert_true(logits[i] == 0);
    }
    tensor_free(logits);
    tensor_free(weights);
    tensor_free(loss);
    tensor_free(z_loss);
    tensor_free(kept);
    tensor_free(labels);
    free(r.logits);
    free(r.loss);
    free(r.z_loss);
    free(want);
}

static void loss_and_gradient_match_finite_differences_of_fp64(void **state) {
    (void)state;
    check(1, 1, 1, 0);
    check(4, 7, 8, 0);
    check(5, 100, 128, 0);
    check(3, 64, 64, 0);
}

static void z_loss_and_gradient_match_finite_differences_of_fp64(void **state) {
    (void)state;
    check(1, 1, 1, 0.5f);
    check(4, 7, 8, 1);
    check(5, 100, 128, 0.1f);
    check(3, 64, 64, 1e-4f);
}

/* A row of this many logits, without z-loss. */
static void run_row(float *loss, float *logits, int32_t label, float weight, bool grad, int V,
                    int Vp) {
    cpu_ops()->cross_entropy(&(CrossEntropy){.loss = loss,
                                             .logits = logits,
                                             .labels = &label,
                                             .weights = &weight,
                                             .grad = grad,
                                             .S = 1,
                                             .V = V,
                                             .Vp = Vp},
                             NULL);
}

static void huge_logits_and_padding_garbage_are_harmless(void **state) {
    (void)state;
    float logits[] = {3e38f, 1, -3e38f, NAN, INFINITY}, loss;
    run_row(&loss, logits, 1, 1, true, 3, 5);
    assert_true(loss == 3e38f);
    float want[] = {1, -1, 0, 0, 0};
    assert_bits("gradient", logits, want, 5);
}

static void a_row_of_weight_zero_is_never_read(void **state) {
    (void)state;
    float logits[] = {NAN, INFINITY, 0, NAN}, loss = NAN, z_loss = NAN, weight = 0, zeros[4] = {0};
    int32_t label = -1;
    cpu_ops()->cross_entropy(&(CrossEntropy){.loss = &loss,
                                             .z_loss = &z_loss,
                                             .logits = logits,
                                             .labels = &label,
                                             .weights = &weight,
                                             .z_coef = 1,
                                             .grad = true,
                                             .S = 1,
                                             .V = 3,
                                             .Vp = 4},
                             NULL);
    assert_true(loss == 0 && z_loss == 0);
    assert_bits("gradient", logits, zeros, 4);
}

static void a_nan_logit_makes_the_loss_nan(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        float logits[40] = {0}, loss = 0;
        logits[i] = i % 2 ? NAN : -NAN;
        run_row(&loss, logits, 3, 1, false, 40, 40);
        assert_true(isnan(loss));
    }
}

static float *run_grad(int64_t *n) {
    const int64_t S = 33;
    const int V = 150, Vp = 160;
    *n = S * Vp + 2 * S;
    float *out = tensor_random(*n, 1, 2), *weights = tensor_random(S, 2, 1);
    int32_t *labels = tensor_random_int(S, 3, V);
    cpu_ops()->cross_entropy(&(CrossEntropy){.loss = out + S * Vp,
                                             .z_loss = out + S * Vp + S,
                                             .logits = out,
                                             .labels = labels,
                                             .weights = weights,
                                             .z_coef = 1e-4f,
                                             .grad = true,
                                             .S = S,
                                             .V = V,
                                             .Vp = Vp},
                             NULL);
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
        cmocka_unit_test(z_loss_and_gradient_match_finite_differences_of_fp64),
        cmocka_unit_test(huge_logits_and_padding_garbage_are_harmless),
        cmocka_unit_test(a_row_of_weight_zero_is_never_read),
        cmocka_unit_test(a_nan_logit_makes_the_loss_nan),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
