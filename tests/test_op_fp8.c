/* FP8: the formats against ml_dtypes (tests/golden/make_fp8.py), the cast of a tensor, and products
 * against fp64 of the quantized operands. */
#include "op_test.h"

#include <float.h>
#include <zlib.h>

#include "golden/fp8.h"
#include "ops/fp8.h"
#include "ops/linear.h"

static const Dtype formats[] = {DT_F8_E4M3, DT_F8_E5M2};

static const float *golden(Dtype type) {
    return type == DT_F8_E4M3 ? golden_e4m3 : golden_e5m2;
}

static void every_code_has_its_value(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        for (int code = 0; code < 256; code++) {
            float got = fp8_to_float((uint8_t)code, formats[f]), want = golden(formats[f])[code];
            if (isnan(want))
                assert_true(isnan(got));
            else
                assert_bits("value", &got, &want, 1);
        }
    }
}

/* Between neighbours the nearer one, in the middle the one with an even code, on both sides of 0.
 */
static void numbers_round_to_the_nearest_code(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        Dtype type = formats[f];
        for (int code = 0; code < fp8_max_code(type); code++) {
            float low = golden(type)[code], high = golden(type)[code + 1];
            float middle = (low + high) / 2; /* exact */
            for (int sign = 0; sign < 2; sign++) {
                float s = sign ? -1.0f : 1.0f;
                int bit = sign * 0x80, even = code % 2 == 0 ? code : code + 1;
                assert_int_equal(fp8_from_float(s * low, type), bit | code);
                assert_int_equal(fp8_from_float(s * nextafterf(middle, 0), type), bit | code);
                assert_int_equal(fp8_from_float(s * middle, type), bit | even);
                assert_int_equal(fp8_from_float(s * nextafterf(middle, INFINITY), type),
                                 bit | (code + 1));
            }
        }
        assert_int_equal(fp8_from_float(FLT_TRUE_MIN, type), 0);
        assert_int_equal(fp8_from_float(-FLT_TRUE_MIN, type), 0x80);
    }
}

static void what_is_too_large_saturates_and_nan_stays(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        Dtype type = formats[f];
        int largest = fp8_max_code(type);
        assert_true(golden(type)[largest] == fp8_max(type));
        assert_int_equal(fp8_from_float(nextafterf(fp8_max(type), INFINITY), type), largest);
        assert_int_equal(fp8_from_float(FLT_MAX, type), largest);
        assert_int_equal(fp8_from_float(-INFINITY, type), largest | 0x80);
        assert_true(isnan(fp8_to_float(fp8_from_float(NAN, type), type)));
        assert_true(isnan(fp8_to_float(fp8_from_float(-NAN, type), type)));
    }
}

static void bf16_numbers_become_the_codes_of_ml_dtypes(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        uLong crc = 0;
        for (uint32_t half = 0; half < 1 << 16; half++) {
            float x = float_from_bits(half << 16);
            uint8_t code = fp8_from_float(x, formats[f]);
            if (fabsf(x) <= fp8_max(formats[f])) crc = crc32(crc, &code, 1);
        }
        assert_int_equal(crc, f == 0 ? golden_e4m3_codes_crc : golden_e5m2_codes_crc);
    }
}

/* ---- the cast of a tensor -------------------------------------------------------------------- */

static void absmax_is_the_largest_of_all_calls(void **state) {
    (void)state;
    float *x = tensor_random(1000, 1, 1), out = 0, want = 0;
    x[777] = -7.5f;
    for (int i = 0; i < 500; i++) want = fmaxf(want, fabsf(x[i]));
    cpu_ops()->absmax(&out, x, 500, NULL);
    assert_true(out == want);
    cpu_ops()->absmax(&out, x + 500, 500, NULL);
    assert_true(out == 7.5f);
    cpu_ops()->absmax(&out, x, 500, NULL);
    assert_true(out == 7.5f);
    x[3] = INFINITY;
    cpu_ops()->absmax(&out, x, 1000, NULL);
    assert_true(isinf(out));
    x[4] = NAN;
    cpu_ops()->absmax(&out, x, 1000, NULL);
    assert_true(isnan(out));
    tensor_free(x);
}

typedef struct {
    uint8_t *rows, *columns;
    float *scale;
    Fp8Counts counts;
    Fp8Matrix matrix;
} Quantized;

static Quantized quantize(const float *x, int64_t R, int64_t C, Dtype type) {
    Quantized q = {.rows = tensor_bytes(R * C),
                   .columns = tensor_bytes(round_up(R, FP8_UNIT) * C),
                   .scale = tensor_new(1)};
    float absmax = 0;
    cpu_ops()->absmax(&absmax, x, R * C, NULL);
    cpu_ops()->fp8_cast(&(Fp8Cast){.type = type,
                                   .rows = q.rows,
                                   .columns = q.columns,
                                   .scale = q.scale,
                                   .counts = &q.counts,
                                   .x = x,
                                   .absmax = &absmax,
                                   .R = R,
                                   .C = C},
                        NULL);
    q.matrix = (Fp8Matrix){q.rows, q.columns, q.scale, type};
    return q;
}

static void release(Quantized *q) {
    tensor_free(q->rows);
    tensor_free(q->columns);
    tensor_free(q->scale);
}

static void a_tensor_fills_the_range_of_its_format(void **state) {
    (void)state;
    enum { R = 37, C = 48, LD = 48 };
    for (int f = 0; f < 2; f++) {
        float *x = tensor_random(R * C, 1, 0.01);
        x[5 * C + 3] = -0.25f; /* the largest */
        x[6 * C + 3] = 1e-30f; /* too small */
        x[7 * C + 3] = 0;      /* was 0 */
        Quantized q = quantize(x, R, C, formats[f]);
        float factor = fp8_max(formats[f]) / 0.25f;
        int64_t zeros = 0, saturated = 0;
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < C; c++) {
                uint8_t want = fp8_from_float(x[r * C + c] * factor, formats[f]);
                assert_int_equal(q.rows[r * C + c], want);
                assert_int_equal(q.columns[c * LD + r], want);
                zeros += (want & 0x7f) == 0 && x[r * C + c] != 0;
                saturated += (want & 0x7f) == fp8_max_code(formats[f]);
            }
        }
        for (int c = 0; c < C; c++)
            for (int r = R; r < LD; r++) assert_int_equal(q.columns[c * LD + r], 0);
        assert_int_equal(q.rows[5 * C + 3], 0x80 | fp8_max_code(formats[f]));
        assert_true(*q.scale == 1 / factor);
        assert_true(zeros >= 1 && saturated >= 1);
        assert_int_equal(q.counts.elements, R * C);
        assert_int_equal(q.counts.zeros, zeros);
        assert_int_equal(q.counts.saturated, saturated);
        assert_true(q.counts.absmax == 0.25f);
        release(&q);
        tensor_free(x);
    }
}

/* Zeros stay zeros with scale 1; an infinity makes every product NaN instead of disappearing; the
 * smallest numbers do not overflow their factor. */
static void odd_tensors_have_usable_scales(void **state) {
    (void)state;
    float x[16] = {0};
    Quantized q = quantize(x, 1, 16, DT_F8_E4M3);
    assert_true(*q.scale == 1 && q.rows[3] == 0);
    release(&q);
    x[2] = INFINITY;
    q = quantize(x, 1, 16, DT_F8_E4M3);
    assert_true(isnan(*q.scale));
    release(&q);
    x[2] = FLT_TRUE_MIN;
    q = quantize(x, 1, 16, DT_F8_E4M3);
    assert_true(isfinite(*q.scale) && *q.scale > 0);
    release(&q);
}

/* ---- products -------------------------------------------------------------------------------- */

static double *dequantized(const Quantized *q, int64_t n) {
    double *d = NEW(double, n);
    for (int64_t i = 0; i < n; i++)
        d[i] = (double)golden(q->matrix.type)[q->rows[i]] * (double)*q->scale;
    return d;
}

/* out[m,n] = old + sum_k a[i,k] b[j,k], as if a and b lay so */
static void reference(double *out, const float *old, const double *a, int64_t as, int64_t ak,
                      const double *b, int64_t bs, int64_t bk, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = old != NULL ? (double)old[i * n + j] : 0;
            for (int64_t p = 0; p < k; p++) sum += a[i * as + p * ak] * b[j * bs + p * bk];
            out[i * n + j] = sum;
        }
}

static void check_products(int64_t S, int64_t N, int64_t M, Dtype gradients) {
    float *x = tensor_random(S * M, 1, 3), *w = tensor_random(N * M, 2, 0.02);
    float *dy = tensor_random(S * N, 3, 1e-5), *residual = tensor_random(S * N, 4, 1);
    float *dw = tensor_random(N * M, 5, 1e-4), *old = tensor_copy(dw, N * M);
    float *y = tensor_new(S * N), *dx = tensor_new(S * M);
    Quantized qx = quantize(x, S, M, DT_F8_E4M3), qw = quantize(w, N, M, DT_F8_E4M3);
    Quantized qdy = quantize(dy, S, N, gradients);
    Linear z = {S, N, M};
    linear_fwd_fp8(cpu_ops(), z, y, &qx.matrix, &qw.matrix, residual, NULL);
    linear_dgrad_fp8(cpu_ops(), z, dx, &qdy.matrix, &qw.matrix, NULL);
    linear_wgrad_fp8(cpu_ops(), z, dw, &qdy.matrix, &qx.matrix, NULL);

    double *wide_x = dequantized(&qx, S * M), *wide_w = dequantized(&qw, N * M);
    double *wide_dy = dequantized(&qdy, S * N);
    double *want = NEW(double, i64_max(S * N, i64_max(S * M, N * M)));
    reference(want, residual, wide_x, M, 1, wide_w, M, 1, S, N, M);
    assert_close("y", y, want, S * N, 3e-6);
    reference(want, NULL, wide_dy, N, 1, wide_w, 1, M, S, M, N);
    assert_close("dx", dx, want, S * M, 3e-6);
    reference(want, old, wide_dy, 1, N, wide_x, 1, M, N, M, S);
    assert_close("dw", dw, want, N * M, 3e-6);

    float *tensors[] = {x, w, dy, residual, dw, old, y, dx};
    for (int i = 0; i < 8; i++) tensor_free(tensors[i]);
    double *wide[] = {wide_x, wide_w, wide_dy, want};
    for (int i = 0; i < 4; i++) free(wide[i]);
    release(&qx), release(&qw), release(&qdy);
}

static void products_are_those_of_the_quantized_operands(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        check_products(1, 16, 16, formats[f]);
        check_products(21, 48, 32, formats[f]); /* S is padded */
        check_products(130, 272, 320, formats[f]);
    }
}

static float *run_threaded(int64_t *n) {
    enum { S = 53, N = 304, M = 272 };
    float *x = tensor_random(S * M, 1, 3), *dy = tensor_random(S * N, 3, 1e-5);
    Quantized qx = quantize(x, S, M, DT_F8_E4M3), qdy = quantize(dy, S, N, DT_F8_E5M2);
    float *dw = tensor_random(N * M, 5, 1e-4);
    linear_wgrad_fp8(cpu_ops(), (Linear){S, N, M}, dw, &qdy.matrix, &qx.matrix, NULL);
    release(&qx), release(&qdy);
    tensor_free(x);
    tensor_free(dy);
    *n = N * M;
    return dw;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_threaded);
}

/* Rows and columns of one tensor; what was there before is smaller or larger than all. */
static void assert_absmax(const char *op, float got, float before, const float *x, int64_t n) {
    float want = before;
    for (int64_t i = 0; i < n; i++) want = fmaxf(want, fabsf(x[i]));
    if (got != want) fail_msg("%s: absmax %.9g, its output has %.9g", op, got, want);
}

static void ops_give_the_absolute_maximum_of_what_they_write(void **state) {
    (void)state;
    enum { S = 5, C = 24, H = 2, K = 1, D = 6 };
    const Ops *o = cpu_ops();
    float *x = tensor_random(S * C, 1, 2), *w = tensor_random(C, 2, 1), *y = tensor_new(S * C);
    float *dq = tensor_random(S * C, 3, 1), rstd[S], dw[C] = {0},
          inv_freq[D / 2] = {1, 0.5f, 0.25f};
    int32_t positions[S] = {0, 1, 2, 3, 4};
    Rope rope = {positions, inv_freq, S, H, K, D};
    for (int large = 0; large < 2; large++) {
        const float before = large ? 1e6f : 0;
        float max[5] = {before, before, before, before, before};
        o->rmsnorm_fwd(y, rstd, &max[0], x, w, S, C, 1e-5f, NULL);
        assert_absmax("rmsnorm_fwd", max[0], before, y, S * C);
        RmsnormBwd a = {.dx = y, .absmax = &max[1], .dw = dw, .dy = dq, .x = x, .w = w};
        a.rstd = rstd, a.S = S, a.C = C;
        o->rmsnorm_bwd(&a, NULL);
        assert_absmax("rmsnorm_bwd", max[1], before, y, S * C);
        o->swiglu_fwd(y, &max[2], x, S, C / 2, NULL);
        assert_absmax("swiglu_fwd", max[2], before, y, S * C / 2);
        o->swiglu_bwd(y, NULL, &max[3], dq, x, S, C / 2, NULL);
        assert_absmax("swiglu_bwd", max[3], before, y, S * C);
        o->rope_split_bwd(y, &max[4], dq, dq, &rope, NULL);
        assert_absmax("rope_split_bwd", max[4], before, y, S * (H + 2 * K) * D);
    }
    float *all[] = {x, w, y, dq};
    for (int i = 0; i < 4; i++) tensor_free(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_give_the_absolute_maximum_of_what_they_write),
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(numbers_round_to_the_nearest_code),
        cmocka_unit_test(what_is_too_large_saturates_and_nan_stays),
        cmocka_unit_test(bf16_numbers_become_the_codes_of_ml_dtypes),
        cmocka_unit_test(absmax_is_the_largest_of_all_calls),
        cmocka_unit_test(a_tensor_fills_the_range_of_its_format),
        cmocka_unit_test(odd_tensors_have_usable_scales),
        cmocka_unit_test(products_are_those_of_the_quantized_operands),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
