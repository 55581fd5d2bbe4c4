#include "op_test.h"

typedef struct {
    double *gate_up, *h;
    const float *dh;
    int64_t S;
    int F;
} Ref;

static double reference(void *context) {
    Ref *r = context;
    for (int64_t s = 0; s < r->S; s++) {
        for (int i = 0; i < r->F; i++) {
            double g = r->gate_up[s * 2 * r->F + i], u = r->gate_up[s * 2 * r->F + r->F + i];
            r->h[s * r->F + i] = g / (1 + exp(-g)) * u;
        }
    }
    return dot_float(r->h, r->dh, r->S * r->F);
}

static void check(int64_t S, int F, bool in_place, bool write_h) {
    int64_t n = S * F;
    float *gate_up = tensor_random(2 * n, 1, 2), *dh = tensor_random(n, 2, 1), *h = tensor_new(n);
    Ref r = {to_double(gate_up, 2 * n), NEW(double, n), dh, S, F};
    double *want = NEW(double, 2 * n);
    numeric_grad(reference, &r, r.gate_up, 2 * n, want);
    reference(&r);
    cpu_ops()->swiglu_fwd(h, NULL, gate_up, S, F, NULL);
    assert_close("h", h, r.h, n, 1e-6);
    float *again = tensor_new(n), *d = in_place ? gate_up : tensor_new(2 * n);
    cpu_ops()->swiglu_bwd(d, write_h ? again : NULL, NULL, dh, gate_up, S, F, NULL);
    assert_close("dgate_up", d, want, 2 * n, 2e-6);
    if (write_h) assert_bits("h of the backward", again, h, n);
    if (!in_place) tensor_free(d);
    tensor_free(gate_up);
    tensor_free(dh);
    tensor_free(h);
    tensor_free(again);
    free(r.gate_up);
    free(r.h);
    free(want);
}

static void forward_and_gradients_match_finite_differences_of_fp64(void **state) {
    (void)state;
    static const int widths[] = {1, 7, 8, 9, 31, 80};
    for (int i = 0; i < 6; i++) {
        for (int flags = 0; flags < 4; flags++) check(1 + i, widths[i], flags & 1, flags & 2);
    }
}

static void large_gates_neither_overflow_nor_vanish(void **state) {
    (void)state;
    float in[] = {200, -200, 88.5f, -88.5f, 1, 1, 1, 1}, h[4], d[8], dh[] = {1, 1, 1, 1};
    cpu_ops()->swiglu_fwd(h, NULL, in, 1, 4, NULL);
    cpu_ops()->swiglu_bwd(d, NULL, NULL, dh, in, 1, 4, NULL);
    assert_true(h[0] == 200 && h[1] == 0 && h[2] == 88.5f && fabsf(h[3]) < 1e-36f);
    assert_true(d[0] == 1 && d[1] == 0 && d[2] == 1 && fabsf(d[3]) < 1e-36f);
}

/* All exponents, signs and the borders of the range, and 2 million arguments between. */
static void exp_is_within_two_units_in_the_last_place(void **state) {
    (void)state;
    double worst = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 2049) {
        float x = float_from_bits((uint32_t)bits), got = cpu_expf(x);
        double want = exp((double)x);
        if (isnan(x)) {
            assert_true(isnan(got));
        } else if ((float)want == INFINITY || (float)want == 0) {
            assert_true(got == (float)want);
        } else {
            double ulp = exp2(fmax(floor(log2(want)), -126) - 23);
            worst = fmax(worst, fabs((double)got - want) / ulp);
        }
    }
    if (!(worst <= 2)) fail_msg("error of %.2f units in the last place", worst);
    assert_true(cpu_expf(0) == 1 && cpu_expf(-INFINITY) == 0 && cpu_expf(INFINITY) == INFINITY);
    assert_true(isnan(cpu_expf(NAN)) && isnan(cpu_expf(-NAN)));
    assert_true(isfinite(cpu_expf(88.7228f)) && isinf(cpu_expf(88.7229f)));
}

static float *run_both(int64_t *n) {
    const int64_t S = 33;
    const int F = 70;
    float *gate_up = tensor_random(2 * S * F, 1, 1), *dh = tensor_random(S * F, 2, 1);
    float *out = tensor_new(3 * S * F);
    cpu_ops()->swiglu_bwd(out, out + 2 * S * F, NULL, dh, gate_up, S, F, NULL);
    tensor_free(gate_up);
    tensor_free(dh);
    *n = 3 * S * F;
    return out;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_both);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_gradients_match_finite_differences_of_fp64),
        cmocka_unit_test(large_gates_neither_overflow_nor_vanish),
        cmocka_unit_test(exp_is_within_two_units_in_the_last_place),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
