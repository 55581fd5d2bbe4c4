#include "op_test.h"

static const float EPS = 1e-5f;

typedef struct {
    double *x, *w, *y;
    const float *dy, *dres;
    int64_t S;
    int C;
} Ref;

static double reference(void *context) { /* writes y; the scalar whose gradient the op returns */
    Ref *r = context;
    for (int64_t s = 0; s < r->S; s++) {
        double *x = r->x + s * r->C, squares = 0;
        for (int c = 0; c < r->C; c++) squares += x[c] * x[c];
        double rstd = 1 / sqrt(squares / r->C + (double)EPS);
        for (int c = 0; c < r->C; c++) r->y[s * r->C + c] = x[c] * rstd * r->w[c];
    }
    double loss = dot_float(r->y, r->dy, r->S * r->C);
    return r->dres != NULL ? loss + dot_float(r->x, r->dres, r->S * r->C) : loss;
}

/* where the residual gradient comes from */
typedef enum { NO_RESIDUAL, RESIDUAL, RESIDUAL_IN_DX } Residual;

static void check(int64_t S, int C, Residual residual, bool write_y) {
    const Ops *ops = cpu_ops();
    int64_t n = S * C;
    float *x = tensor_random(n, 1, 2), *w = tensor_random(C, 2, 1), *dy = tensor_random(n, 3, 1);
    float *y = tensor_new(n), *again = tensor_new(n), *rstd = tensor_new(S);
    float *dres = tensor_random(n, 4, 1), *dw = tensor_random(C, 5, 1);
    float *dx = residual == RESIDUAL_IN_DX ? tensor_copy(dres, n) : tensor_new(n);
    Ref r = {to_double(x, n), to_double(w, C), NEW(double, n), dy, residual ? dres : NULL, S, C};
    double *want_dx = NEW(double, n), *want_dw = NEW(double, C);
    numeric_grad(reference, &r, r.x, n, want_dx);
    numeric_grad(reference, &r, r.w, C, want_dw);
    for (int c = 0; c < C; c++) want_dw[c] += (double)dw[c];
    reference(&r);

    ops->rmsnorm_fwd(y, rstd, NULL, x, w, S, C, EPS, NULL);
    assert_close("y", y, r.y, n, 1e-6);
    ops->rmsnorm_fwd(again, NULL, NULL, x, w, S, C, EPS, NULL);
    assert_bits("y without rstd", again, y, n);
    const float *from = residual == RESIDUAL ? dres : residual == RESIDUAL_IN_DX ? dx : NULL;
    for (int64_t i = 0; i < n; i++) again[i] = NAN;
    ops->rmsnorm_bwd(&(RmsnormBwd){.dx = dx,
                                   .dw = dw,
                                   .y = write_y ? again : NULL,
                                   .dy = dy,
                                   .x = x,
                                   .w = w,
                                   .rstd = rstd,
                                   .dres = from,
                                   .S = S,
                                   .C = C},
                     NULL);
    assert_close("dx", dx, want_dx, n, 2e-6);
    assert_close("dw", dw, want_dw, C, 2e-6);
    if (write_y) assert_bits("y of the backward", again, y, n);

    float *tensors[] = {x, w, dy, y, again, rstd, dres, dw, dx};
    for (int i = 0; i < 9; i++) tensor_free(tensors[i]);
    double *doubles[] = {r.x, r.w, r.y, want_dx, want_dw};
    for (int i = 0; i < 5; i++) free(doubles[i]);
}

static void forward_and_gradients_match_finite_differences_of_fp64(void **state) {
    (void)state;
    static const int columns[] = {2, 7, 8, 33, 64, 65};
    for (int i = 0; i < 6; i++) {
        for (Residual residual = NO_RESIDUAL; residual <= RESIDUAL_IN_DX; residual++) {
            check(1 + i, columns[i], residual, residual != RESIDUAL);
        }
    }
}

static float *run_both(int64_t *n) {
    const int64_t S = 41;
    const int C = 200;
    float *x = tensor_random(S * C, 1, 1), *w = tensor_random(C, 2, 1);
    float *dy = tensor_random(S * C, 3, 1), *rstd = tensor_new(S);
    float *out = tensor_random(2 * S * C + C, 4, 1); /* y, dx, dw */
    cpu_ops()->rmsnorm_fwd(out, rstd, NULL, x, w, S, C, EPS, NULL);
    cpu_ops()->rmsnorm_bwd(&(RmsnormBwd){.dx = out + S * C,
                                         .dw = out + 2 * S * C,
                                         .dy = dy,
                                         .x = x,
                                         .w = w,
                                         .rstd = rstd,
                                         .S = S,
                                         .C = C},
                           NULL);
    tensor_free(x);
    tensor_free(w);
    tensor_free(dy);
    tensor_free(rstd);
    *n = 2 * S * C + C;
    return out;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_both);
}

static void result_does_not_depend_on_where_a_row_lies_in_memory(void **state) {
    (void)state;
    const int C = 61;
    float *row = tensor_random(C, 1, 1), *w = tensor_random(C, 2, 1), *first = tensor_new(C);
    cpu_ops()->rmsnorm_fwd(first, NULL, NULL, row, w, 1, C, EPS, NULL);
    for (int offset = 1; offset < 16; offset++) {
        float *x = tensor_new(C + offset), *y = tensor_new(C);
        memcpy(x + offset, row, C * sizeof(float));
        cpu_ops()->rmsnorm_fwd(y, NULL, NULL, x + offset, w, 1, C, EPS, NULL);
        assert_bits("y", y, first, C);
        tensor_free(x);
        tensor_free(y);
    }
    tensor_free(row);
    tensor_free(w);
    tensor_free(first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_gradients_match_finite_differences_of_fp64),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(result_does_not_depend_on_where_a_row_lies_in_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
