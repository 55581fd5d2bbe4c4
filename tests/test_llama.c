/* The whole model: gradients against finite differences, and what must not change a single bit. */
#include "test.h"

#include <math.h>
#include <omp.h>

#include "model_rig.h"

static ModelConfig small(void) {
    ModelConfig m = rig_model(12);
    m.rope_scaling.factor = 8, m.rope_scaling.original = 16; /* all kinds of frequencies */
    return m;
}

/* g . d against (8 (L(e) - L(-e)) - (L(2e) - L(-2e))) / 12e along random directions d, one tensor
 * at a time, so that no tensor's error hides behind another's. */
static void gradients_match(bool tied, Recompute recompute, int64_t head_chunk) {
    Rig r = {.model = small()};
    r.model.tie_embeddings = tied;
    rig_open(&r, 2, 12, recompute, head_chunk);
    for (int i = 0; i < r.table->n_params; i++) { /* norms away from 1, so that dw and w matter */
        const Param *p = &r.table->params[i];
        for (int64_t k = 0; p->ndim == 1 && k < p->count; k++)
            r.weights[p->offset + k] = (float)(1 + 0.3 * rng_normal(3, (uint64_t)i, (uint64_t)k));
    }
    rig_run(&r, true);
    float *grads = NEW(float, r.table->total), *saved = NEW(float, r.table->total);
    memcpy(grads, r.grads, (size_t)r.table->total * sizeof *grads);
    memcpy(saved, r.weights, (size_t)r.table->total * sizeof *saved);
    for (int i = 0; i < r.table->n_params; i++) {
        const Param *p = &r.table->params[i];
        int64_t n = p->rows * p->cols;
        double norm = 0;
        for (int64_t k = 0; k < n; k++) norm += (double)grads[p->offset + k] * grads[p->offset + k];
        norm = sqrt(norm);
        for (uint64_t trial = 0; trial < 3; trial++) {
            /* Half gradient, half noise: a purely random direction is nearly orthogonal to it. */
            double *d = NEW(double, n), length = 0, expected = 0;
            for (int64_t k = 0; k < n; k++) {
                double noise = rng_normal(11 + trial, (uint64_t)i, (uint64_t)k) / sqrt((double)n);
                d[k] = grads[p->offset + k] / norm + noise;
                length += d[k] * d[k];
            }
            length = sqrt(length);
            /* Far enough for fp32 to see the loss move, near enough for it to stay smooth. */
            double eps = fmin(0.02, 0.2 / norm), value[4];
            static const double at[4] = {1, -1, 2, -2};
            for (int64_t k = 0; k < n; k++) expected += grads[p->offset + k] * d[k] / length;
            for (int j = 0; j < 4; j++) {
                for (int64_t k = 0; k < n; k++)
                    r.weights[p->offset + k] =
                        (float)(saved[p->offset + k] + at[j] * eps * d[k] / length);
                value[j] = rig_run(&r, false);
            }
            memcpy(r.weights, saved, (size_t)r.table->total * sizeof *saved);
            double found = (8 * (value[0] - value[1]) - (value[2] - value[3])) / (12 * eps);
            if (fabs(found - expected) > 1e-3 * (fabs(expected) + 1e-2 * norm))
                fail_msg("%s: derivative %.8g, gradient says %.8g", p->name, found, expected);
            free(d);
        }
    }
    for (int i = 0; i < r.table->n_params; i++) { /* vocabulary padding stays out of it */
        const Param *p = &r.table->params[i];
        for (int64_t k = p->rows * p->cols; k < p->count; k++)
            assert_true(grads[p->offset + k] == 0 && r.weights[p->offset + k] == 0);
    }
    free(grads);
    free(saved);
    rig_close(&r);
}

static void every_gradient_matches_finite_differences(void **state) {
    (void)state;
    gradients_match(false, RECOMPUTE_NONE, 0);
}

static void every_gradient_matches_with_a_tied_head(void **state) {
    (void)state;
    gradients_match(true, RECOMPUTE_LAYER, 5);
}

static void run_once(bool tied, Recompute recompute, int64_t head_chunk, int threads, double *loss,
                     float **grads, int64_t *n) {
    omp_set_num_threads(threads);
    Rig r = {.model = small()};
    r.model.tie_embeddings = tied;
    rig_open(&r, 2, 12, recompute, head_chunk);
    *loss = rig_run(&r, true);
    *n = r.table->total;
    *grads = NEW(float, *n);
    memcpy(*grads, r.grads, (size_t)*n * sizeof **grads);
    rig_close(&r);
}

static void assert_same_bits(Recompute recompute, int threads) {
    for (int tied = 0; tied < 2; tied++) {
        double loss[2];
        float *grads[2];
        int64_t n;
        run_once(tied, RECOMPUTE_NONE, 0, 1, &loss[0], &grads[0], &n);
        run_once(tied, recompute, 0, threads, &loss[1], &grads[1], &n);
        assert_memory_equal(&loss[0], &loss[1], sizeof loss[0]);
        assert_memory_equal(grads[0], grads[1], (size_t)n * sizeof *grads[0]);
        free(grads[0]);
        free(grads[1]);
    }
}

static void recomputing_layers_changes_no_bit(void **state) {
    (void)state;
    assert_same_bits(RECOMPUTE_LAYER, 1);
}

static void the_number_of_threads_changes_no_bit(void **state) {
    (void)state;
    assert_same_bits(RECOMPUTE_NONE, 2);
    assert_same_bits(RECOMPUTE_NONE, 3);
}

static void head_chunks_change_the_loss_by_rounding_only(void **state) {
    (void)state;
    double whole, cut;
    float *a, *b;
    int64_t n;
    run_once(false, RECOMPUTE_NONE, 24, 1, &whole, &a, &n);
    run_once(false, RECOMPUTE_NONE, 7, 1, &cut, &b, &n);
    assert_true(fabs(whole - cut) <= 1e-6 * fabs(whole));
    for (int64_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-4f + 1e-4f * fabsf(a[i]));
    free(a);
    free(b);
}

static void a_fresh_model_knows_nothing(void **state) {
    (void)state;
    Rig r = {.model = small()};
    r.model.init_std = 0.02;
    rig_open(&r, 2, 12, RECOMPUTE_NONE, 0);
    double count = 0;
    for (int s = 0; s < 24; s++) count += (double)r.mb.weights[s];
    double loss = rig_run(&r, false) / count;
    assert_true(fabs(loss - log(61)) < 0.1);
    rig_close(&r);
}

static void the_first_bad_layer_is_found(void **state) {
    (void)state;
    Rig r = {.model = small()};
    rig_open(&r, 2, 12, RECOMPUTE_NONE, 0);
    int layer;
    rig_run(&r, false);
    assert_status_ok(llama_first_nonfinite(r.llama, 24, NULL, &layer));
    assert_int_equal(layer, -1);
    r.weights[param_layer_offset(r.table, 0, PARAM_UP)] = INFINITY;
    assert_false(isfinite(rig_run(&r, false)));
    assert_status_ok(llama_first_nonfinite(r.llama, 24, NULL, &layer));
    assert_int_equal(layer, 1);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_matches_finite_differences),
        cmocka_unit_test(every_gradient_matches_with_a_tied_head),
        cmocka_unit_test(recomputing_layers_changes_no_bit),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(head_chunks_change_the_loss_by_rounding_only),
        cmocka_unit_test(a_fresh_model_knows_nothing),
        cmocka_unit_test(the_first_bad_layer_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
