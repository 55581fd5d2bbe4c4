#include "op_test.h"

/* ---- a dense reference in double ------------------------------------------------------------- */
typedef struct {
    AttnShape z;
    const unsigned char *allowed; /* [Sq,Sk] */
    double *q, *kv;               /* inputs */
    double *o, *lse;              /* written by dense_fwd */
    const float *d_o;
} Dense;

static double dense_score(const Dense *a, int h, int64_t i, int64_t j) {
    const double *q = a->q + (i * a->z.H + h) * a->z.D;
    const double *k = a->kv + (2 * j * a->z.K + h / (a->z.H / a->z.K)) * a->z.D;
    double dot = 0;
    for (int d = 0; d < a->z.D; d++) dot += q[d] * k[d];
    return dot * (double)a->z.scale;
}

static const double *dense_v(const Dense *a, int h, int64_t j) {
    return a->kv + ((2 * j + 1) * a->z.K + h / (a->z.H / a->z.K)) * a->z.D;
}

/* Returns sum(o d_o), the scalar whose gradients the op returns. */
static double dense_fwd(void *context) {
    Dense *a = context;
    AttnShape z = a->z;
    double total = 0;
    for (int h = 0; h < z.H; h++) {
        for (int64_t i = 0; i < z.Sq; i++) {
            double *o = a->o + (i * z.H + h) * z.D, sum = 0; /* scores are small: no maximum */
            for (int d = 0; d < z.D; d++) o[d] = 0;
            for (int64_t j = 0; j < z.Sk; j++) {
                if (!a->allowed[i * z.Sk + j]) continue;
                double e = exp(dense_score(a, h, i, j));
                sum += e;
                for (int d = 0; d < z.D; d++) o[d] += e * dense_v(a, h, j)[d];
            }
            a->lse[h * z.Sq + i] = sum > 0 ? log(sum) : -INFINITY;
            if (sum == 0) continue; /* its d_o may hold anything */
            for (int d = 0; d < z.D; d++) {
                o[d] /= sum;
                total += o[d] * (double)a->d_o[(i * z.H + h) * z.D + d];
            }
        }
    }
    return total;
}

static void dense_bwd(const Dense *a, double *dq, double *dkv) {
    AttnShape z = a->z;
    for (int h = 0; h < z.H; h++) {
        for (int64_t i = 0; i < z.Sq; i++) {
            int64_t at = (i * z.H + h) * z.D;
            for (int64_t j = 0; j < z.Sk; j++) {
                if (!a->allowed[i * z.Sk + j]) continue;
                int64_t at_k = (2 * j * z.K + h / (z.H / z.K)) * z.D, at_v = at_k + z.K * z.D;
                double p = exp(dense_score(a, h, i, j) - a->lse[h * z.Sq + i]), dp = 0;
                for (int d = 0; d < z.D; d++) {
                    dp += (double)a->d_o[at + d] * (a->kv[at_v + d] - a->o[at + d]);
                }
                for (int d = 0; d < z.D; d++) {
                    dq[at + d] += p * dp * (double)z.scale * a->kv[at_k + d];
                    dkv[at_k + d] += p * dp * (double)z.scale * a->q[at + d];
                    dkv[at_v + d] += p * (double)a->d_o[at + d];
                }
            }
        }
    }
}

/* ---- random disjoint bands --------------------------------------------------------------------
 */
enum { MAX_BANDS = 256 };

typedef struct {
    Band bands[MAX_BANDS];
    int64_t n;
    unsigned char *allowed; /* [Sq,Sk] */
} Mask;

static void mask_add(Mask *m, Band b, AttnShape z) {
    m->bands[m->n++] = b;
    for (int64_t i = i64_max(b.q_begin, 0); i < i64_min(b.q_end, z.Sq); i++) {
        for (int64_t j = i64_max(b.k_begin, 0); j < i64_min(b.k_end, z.Sk); j++) {
            if (j - i < b.lo || j - i > b.hi) continue;
            assert_false(m->allowed[i * z.Sk + j]);
            m->allowed[i * z.Sk + j] = 1;
        }
    }
}

/* Strips of rows, each cut in rectangles, each with no band, one, or two along a diagonal */
static Mask mask_random(AttnShape z, uint64_t seed) {
    Mask m = {.allowed = NEW(unsigned char, z.Sq *z.Sk)};
    uint64_t draw = 0;
    for (int64_t q = 0, q_end; q < z.Sq; q = q_end) {
        q_end = i64_min(z.Sq, q + random_in(seed, draw++, 1, z.Sq / 3 + 2));
        for (int64_t k = 0, k_end; k < z.Sk; k = k_end) {
            k_end = i64_min(z.Sk, k + random_in(seed, draw++, 1, z.Sk / 2 + 2));
            int64_t kind = random_in(seed, draw++, 0, 6);
            int32_t cut = (int32_t)random_in(seed, draw++, k - q_end + 1, k_end - q);
            Band b = {(int32_t)q,     (int32_t)q_end, (int32_t)k,
                      (int32_t)k_end, BAND_NO_LO,     BAND_NO_HI};
            if (kind == 0 || m.n + 2 > MAX_BANDS) continue;
            if (kind == 2) b.lo = cut;
            if (kind >= 3) b.hi = cut;
            if (kind == 4) b.lo = cut - (int32_t)random_in(seed, draw++, 0, z.Sk);
            mask_add(&m, b, z);
            b.hi = BAND_NO_HI;
            b.lo = cut + 2;
            if (kind == 5) mask_add(&m, b, z);
        }
    }
    return m;
}

/* Rows that no band touches become NaN: the ops must not let them in. */
static void poison(const Mask *m, AttnShape z, float *q, float *d_o, float *kv) {
    for (int64_t i = 0; i < z.Sq; i++) {
        if (memchr(m->allowed + i * z.Sk, 1, (size_t)z.Sk) != NULL) continue;
        for (int64_t d = 0; d < z.H * z.D; d++) q[i * z.H * z.D + d] = d_o[i * z.H * z.D + d] = NAN;
    }
    for (int64_t j = 0; j < z.Sk; j++) {
        bool seen = false;
        for (int64_t i = 0; i < z.Sq; i++) seen = seen || m->allowed[i * z.Sk + j];
        for (int64_t d = 0; d < 2 * z.K * z.D; d++) {
            if (!seen) kv[2 * j * z.K * z.D + d] = NAN;
        }
    }
}

/* ---- the op over stages ------------------------------------------------------------------------
 */
typedef struct {
    float *o, *o_acc, *lse, *dq, *dkv;
} Result;

/* Every band goes to a random one of `stages` calls. */
static Result run_stages(AttnShape z, const Mask *m, const float *q, const float *kv,
                         const float *d_o, int stages) {
    const Ops *ops = cpu_ops();
    int64_t nq = z.Sq * z.H * z.D, nkv = 2 * z.Sk * z.K * z.D;
    Result r = {tensor_new(nq), tensor_new(nq), tensor_new(z.H * z.Sq), tensor_new(nq),
                tensor_new(nkv)};
    AttnWork *work[3];
    for (int s = 0; s < stages; s++) {
        Band bands[MAX_BANDS];
        int64_t n = 0;
        for (int64_t i = 0; i < m->n; i++) {
            if (random_in(99, (uint64_t)i, 0, stages) == s) bands[n++] = m->bands[i];
        }
        assert_status_ok(ops->attn_work_create(&work[s], bands, n, z, NULL, NULL));
        ops->attention_fwd(&(AttnFwd){.o = s == stages - 1 ? r.o : NULL,
                                      .o_acc = r.o_acc,
                                      .lse = r.lse,
                                      .q = q,
                                      .kv = kv,
                                      .work = work[s],
                                      .resume = s > 0},
                           NULL);
    }
    float *delta = tensor_new(z.H * z.Sq);
    ops->attention_delta(delta, d_o, r.o, z.Sq, z.H, z.D, NULL);
    for (int s = 0; s < stages; s++) {
        ops->attention_bwd(&(AttnBwd){.dq = r.dq,
                                      .dkv = r.dkv,
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = kv,
                                      .lse = r.lse,
                                      .delta = delta,
                                      .work = work[s],
                                      .accumulate_dq = s > 0,
                                      .accumulate_dkv = s > 0},
                           NULL);
        ops->attn_work_free(work[s]);
    }
    tensor_free(delta);
    return r;
}

static void result_free(Result *r) {
    tensor_free(r->o);
    tensor_free(r->o_acc);
    tensor_free(r->lse);
    tensor_free(r->dq);
    tensor_free(r->dkv);
}

static void check(int64_t Sq, int64_t Sk, int H, int K, int D, uint64_t seed) {
    AttnShape z = {Sq, Sk, H, K, D, 1 / sqrtf((float)D)};
    int64_t nq = Sq * H * D, nkv = 2 * Sk * K * D;
    float *q = tensor_random(nq, 1, 1), *kv = tensor_random(nkv, 2, 1);
    float *d_o = tensor_random(nq, 3, 1);
    Mask m = mask_random(z, seed);
    poison(&m, z, q, d_o, kv);
    Dense ref = {
        z,  m.allowed, to_double(q, nq), to_double(kv, nkv), NEW(double, nq), NEW(double, H *Sq),
        d_o};
    double *dq = NEW(double, nq), *dkv = NEW(double, nkv);
    dense_fwd(&ref);
    dense_bwd(&ref, dq, dkv);
    for (int stages = 1; stages <= 3; stages++) {
        Result r = run_stages(z, &m, q, kv, d_o, stages);
        assert_within("o", r.o, ref.o, nq, 2e-6, 1);
        assert_bits("o_acc", r.o_acc, r.o, nq);
        assert_within("lse", r.lse, ref.lse, H * Sq, 1e-6, 1);
        assert_within("dq", r.dq, dq, nq, 5e-6, 1); /* products of unit normals, which may cancel */
        assert_within("dkv", r.dkv, dkv, nkv, 5e-6, 1);
        result_free(&r);
    }
    tensor_free(q);
    tensor_free(kv);
    tensor_free(d_o);
    free(m.allowed);
    free(ref.q);
    free(ref.kv);
    free(ref.o);
    free(ref.lse);
    free(dq);
    free(dkv);
}

static void the_dense_gradients_match_finite_differences(void **state) {
    (void)state;
    AttnShape z = {7, 6, 4, 2, 3, 0.6f};
    int64_t nq = z.Sq * z.H * z.D, nkv = 2 * z.Sk * z.K * z.D;
    float *q = tensor_random(nq, 1, 1), *kv = tensor_random(nkv, 2, 1);
    float *d_o = tensor_random(nq, 3, 1);
    Mask m = mask_random(z, 12);
    Dense ref = {z,
                 m.allowed,
                 to_double(q, nq),
                 to_double(kv, nkv),
                 NEW(double, nq),
                 NEW(double, z.H *z.Sq),
                 d_o};
    double *dq = NEW(double, nq), *dkv = NEW(double, nkv);
    double *want_q = NEW(double, nq), *want_kv = NEW(double, nkv);
    numeric_grad(dense_fwd, &ref, ref.q, nq, want_q);
    numeric_grad(dense_fwd, &ref, ref.kv, nkv, want_kv);
    dense_fwd(&ref);
    dense_bwd(&ref, dq, dkv);
    for (int64_t i = 0; i < nq; i++) assert_true(fabs(dq[i] - want_q[i]) < 1e-9);
    for (int64_t i = 0; i < nkv; i++) assert_true(fabs(dkv[i] - want_kv[i]) < 1e-9);
    tensor_free(q);
    tensor_free(kv);
    tensor_free(d_o);
    double *doubles[] = {ref.q, ref.kv, ref.o, ref.lse, dq, dkv, want_q, want_kv};
    for (int i = 0; i < 8; i++) free(doubles[i]);
    free(m.allowed);
}

static void random_bands_in_one_to_three_stages_match_the_dense_reference(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        check(1 + (int64_t)seed % 3, 1 + (int64_t)seed % 5, 2, 1, 8, seed);
        check(47, 33, 3, 3, 8, seed);
        check(49, 97, 3, 1, 16, seed);
        check(60, 130, 4, 1, 12, seed);
    }
    for (uint64_t seed = 20; seed < 24; seed++) {
        check(100, 200, 6, 2, 40, seed);
        check(150, 101, 4, 1, 64, seed);
        check(48, 96, 4, 4, 128, seed);
    }
}

static void rows_without_keys_give_zero_and_minus_infinity_also_when_resumed(void **state) {
    (void)state;
    const Ops *ops = cpu_ops();
    AttnShape z = {5, 4, 2, 1, 8, 1};
    const Band first = {1, 2, 0, 4, BAND_NO_LO, BAND_NO_HI}, second = {3, 4, 1, 2, -9, 9};
    float *q = tensor_random(80, 1, 1), *kv = tensor_random(64, 2, 1);
    float *o = tensor_new(80), *acc = tensor_new(80), *lse = tensor_new(10);
    AttnWork *none, *one, *other;
    assert_status_ok(ops->attn_work_create(&none, NULL, 0, z, NULL, NULL));
    assert_status_ok(ops->attn_work_create(&one, &first, 1, z, NULL, NULL));
    assert_status_ok(ops->attn_work_create(&other, &second, 1, z, NULL, NULL));
    ops->attention_fwd(&(AttnFwd){.o_acc = acc, .lse = lse, .q = q, .kv = kv, .work = none}, NULL);
    for (int i = 0; i < 10; i++) assert_true(lse[i] == -INFINITY);
    for (int i = 0; i < 80; i++) assert_true(acc[i] == 0);
    ops->attention_fwd(
        &(AttnFwd){.o_acc = acc, .lse = lse, .q = q, .kv = kv, .work = one, .resume = true}, NULL);
    float *kept = tensor_copy(acc, 80), *kept_lse = tensor_copy(lse, 10);
    ops->attention_fwd(
        &(AttnFwd){
            .o = o, .o_acc = acc, .lse = lse, .q = q, .kv = kv, .work = other, .resume = true},
        NULL);
    for (int i = 0; i < 10; i++) assert_int_equal(isfinite(lse[i]) != 0, i % 5 == 1 || i % 5 == 3);
    for (int i = 0; i < 80; i++) {
        int row = i / 16;
        if (row == 1) assert_true(o[i] == kept[i] && o[i] != 0); /* stage two had nothing for it */
        if (row == 3) assert_float_equal(o[i], kv[16 + 8 + i % 8], 1e-6); /* one key: its v */
        if (row != 1 && row != 3) assert_true(o[i] == 0);
    }
    assert_true(lse[1] == kept_lse[1]);
    ops->attention_fwd(
        &(AttnFwd){
            .o = o, .o_acc = acc, .lse = lse, .q = q, .kv = kv, .work = none, .resume = true},
        NULL); /* a stage without bands */
    assert_bits("o", o, acc, 80);
    float *tensors[] = {q, kv, o, acc, lse, kept, kept_lse};
    for (int i = 0; i < 7; i++) tensor_free(tensors[i]);
    ops->attn_work_free(none);
    ops->attn_work_free(one);
    ops->attn_work_free(other);
    ops->attn_work_free(NULL);
}

static void bands_beyond_the_buffers_are_cut_and_o_acc_is_optional(void **state) {
    (void)state;
    const Ops *ops = cpu_ops();
    AttnShape z = {50, 40, 2, 2, 16, 0.25f};
    const Band wide = {0, 1000, 0, 1000, -30, 5}, exact = {0, 50, 0, 40, -30, 5};
    float *q = tensor_random(1600, 1, 1), *kv = tensor_random(2560, 2, 1);
    float *a = tensor_new(1600), *b = tensor_new(1600), *acc = tensor_new(1600);
    float *lse = tensor_new(100), *lse2 = tensor_new(100);
    AttnWork *work;
    assert_status_ok(ops->attn_work_create(&work, &wide, 1, z, NULL, NULL));
    ops->attention_fwd(&(AttnFwd){.o = a, .lse = lse, .q = q, .kv = kv, .work = work}, NULL);
    ops->attn_work_free(work);
    assert_status_ok(ops->attn_work_create(&work, &exact, 1, z, NULL, NULL));
    ops->attention_fwd(
        &(AttnFwd){.o = b, .o_acc = acc, .lse = lse2, .q = q, .kv = kv, .work = work}, NULL);
    ops->attn_work_free(work);
    assert_bits("o", a, b, 1600);
    assert_bits("lse", lse, lse2, 100);
    float *tensors[] = {q, kv, a, b, acc, lse, lse2};
    for (int i = 0; i < 7; i++) tensor_free(tensors[i]);
}

static void scores_far_beyond_the_range_of_exp_are_fine(void **state) {
    (void)state;
    AttnShape z = {1, 3, 1, 1, 2, 1};
    const Band band = {0, 1, 0, 3, BAND_NO_LO, BAND_NO_HI};
    float q[] = {1000, 0}, kv[] = {-1, 0, 1, 2, 1, 0, 3, 4, 1, 0, 5, 6}, o[2], lse[1];
    AttnWork *work;
    assert_status_ok(cpu_ops()->attn_work_create(&work, &band, 1, z, NULL, NULL));
    cpu_ops()->attention_fwd(&(AttnFwd){.o = o, .lse = lse, .q = q, .kv = kv, .work = work}, NULL);
    cpu_ops()->attn_work_free(work);
    assert_float_equal(o[0], 4, 1e-6);
    assert_float_equal(o[1], 5, 1e-6);
    assert_float_equal(lse[0], 1000 + logf(2), 1e-3);
}

static float *run_everything(int64_t *n) {
    AttnShape z = {130, 110, 6, 3, 24, 0.2f};
    int64_t nq = z.Sq * z.H * z.D, nkv = 2 * z.Sk * z.K * z.D, nl = z.H * z.Sq;
    float *q = tensor_random(nq, 1, 1), *kv = tensor_random(nkv, 2, 1);
    float *d_o = tensor_random(nq, 3, 1);
    Mask m = mask_random(z, 4);
    Result r = run_stages(z, &m, q, kv, d_o, 2);
    *n = 2 * nq + nkv + nl;
    float *all = tensor_new(*n);
    memcpy(all, r.o, (size_t)nq * sizeof(float));
    memcpy(all + nq, r.dq, (size_t)nq * sizeof(float));
    memcpy(all + 2 * nq, r.dkv, (size_t)nkv * sizeof(float));
    memcpy(all + 2 * nq + nkv, r.lse, (size_t)nl * sizeof(float));
    result_free(&r);
    free(m.allowed);
    tensor_free(q);
    tensor_free(kv);
    tensor_free(d_o);
    return all;
}

static void result_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    assert_same_for_any_threads(run_everything);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dense_gradients_match_finite_differences),
        cmocka_unit_test(random_bands_in_one_to_three_stages_match_the_dense_reference),
        cmocka_unit_test(rows_without_keys_give_zero_and_minus_infinity_also_when_resumed),
        cmocka_unit_test(bands_beyond_the_buffers_are_cut_and_o_acc_is_optional),
        cmocka_unit_test(scores_far_beyond_the_range_of_exp_are_fine),
        cmocka_unit_test(result_has_the_same_bits_with_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
