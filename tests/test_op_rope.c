#include "op_test.h"

typedef struct {
    int64_t S;
    int H, K, D;
    int32_t *positions;
    float *inv_freq;
} Shape;

static Shape shape_new(int64_t S, int H, int K, int D) {
    Shape z = {S, H, K, D, tensor_random_int(S, 1, 3000), tensor_new(D / 2)};
    for (int i = 0; i < D / 2; i++) z.inv_freq[i] = powf(10000.0f, -2.0f * (float)i / (float)D);
    z.positions[0] = 0;
    return z;
}

static void shape_free(Shape *z) {
    tensor_free(z->positions);
    tensor_free(z->inv_freq);
}

/* out (q, then kv) from qkv; the rotation is linear, so that the backward must be its transpose */
static void reference(double *q, double *kv, const float *qkv, const Shape *z) {
    int heads = z->H + 2 * z->K, half = z->D / 2;
    for (int64_t s = 0; s < z->S; s++) {
        for (int h = 0; h < heads; h++) {
            const float *from = qkv + (s * heads + h) * z->D;
            double *to =
                h < z->H ? q + (s * z->H + h) * z->D : kv + (s * 2 * z->K + h - z->H) * z->D;
            for (int i = 0; i < half; i++) {
                float angle = (float)z->positions[s] * z->inv_freq[i]; /* fp32 by contract */
                bool turned = h < z->H + z->K;
                double c = turned ? cos((double)angle) : 1, n = turned ? sin((double)angle) : 0;
                double a = (double)from[i], b = (double)from[i + half];
                to[i] = a * c - b * n;
                to[i + half] = b * c + a * n;
            }
        }
    }
}

static void check(int64_t S, int H, int K, int D) {
    Shape z = shape_new(S, H, K, D);
    int64_t nq = S * H * D, nkv = 2 * S * K * D, n = nq + nkv;
    float *qkv = tensor_random(n, 2, 1), *q = tensor_new(nq), *kv = tensor_new(nkv);
    double *want_q = NEW(double, nq), *want_kv = NEW(double, nkv);
    reference(want_q, want_kv, qkv, &z);
    Rope rope = {z.positions, z.inv_freq, S, H, K, D};
    cpu_ops()->rope_split_fwd(q, kv, qkv, &rope, NULL);
    assert_close("q", q, want_q, nq, 1e-6);
    assert_close("kv", kv, want_kv, nkv, 1e-6);

    /* column j of the matrix is reference(e_j); dqkv[j] = its product with (dq, dkv) */
    float *dq = tensor_random(nq, 3, 1), *dkv = tensor_random(nkv, 4, 1), *dqkv = tensor_new(n);
    double *want = NEW(double, n);
    for (int64_t i = 0; i < n; i++) qkv[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        qkv[i] = 1;
        reference(want_q, want_kv, qkv, &z);
        want[i] = dot_float(want_q, dq, nq) + dot_float(want_kv, dkv, nkv);
        qkv[i] = 0;
    }
    cpu_ops()->rope_split_bwd(dqkv, NULL, dq, dkv, &rope, NULL);
    assert_close("dqkv", dqkv, want, n, 1e-6);

    float *tensors[] = {qkv, q, kv, dq, dkv, dqkv};
    for (int i = 0; i < 6; i++) tensor_free(tensors[i]);
    free(want_q);
    free(want_kv);
    free(want);
    shape_free(&z);
}

static void forward_rotates_and_splits_and_backward_is_its_transpose(void **state) {
    (void)state;
    check(1, 1, 1, 2);
    check(5, 4, 1, 8);
    check(3, 6, 2, 22);
    check(4, 3, 3, 64);
}

static float *run_both(int64_t *n) {
    Shape z = shape_new(50, 4, 2, 32);
    *n = z.S * (z.H + 2 * z.K) * z.D;
    int64_t nq = z.S * z.H * z.D;
    float *qkv = tensor_random(*n, 2, 1), *out = tensor_new(*n), *back = tensor_new(*n);
    Rope rope = {z.positions, z.inv_freq, z.S, z.H, z.K, z.D};
    cpu_ops()->rope_split_fwd(out, out + nq, qkv, &rope, NULL);
    cpu_ops()->rope_split_bwd(back, NULL, out, out + nq, &rope, NULL);
    double *want = to_double(qkv, *n);
    assert_close("qkv, turned there and back", back, want, *n, 1e-6);
    free(want);
    tensor_free(qkv);
    tensor_free(out);
    shape_free(&z);
    return back;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_both);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_rotates_and_splits_and_backward_is_its_transpose),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
