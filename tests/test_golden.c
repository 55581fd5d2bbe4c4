/* 20 steps of training against an independent implementation (tests/golden/README.md): loss,
 * gradient norm and learning rate of every step, first gradients, final weights. */
#include "test.h"

#include <math.h>

#include "ckpt/checkpoint.h"
#include "config/config.h"
#include "model_rig.h"
#include "optim/schedule.h"

/* The file's metadata are cria's own keys, so the configuration goes through the real parser. */
static void read_config(const Checkpoint *ck, Config *config) {
    const SafeFile *f = checkpoint_file(ck);
    char **overrides = NEW(char *, f->n_entries);
    int n = 0;
    for (int i = 0; i < f->n_entries; i++)
        if (strcmp(f->entries[i].key, "precision") == 0 ||
            (strchr(f->entries[i].key, '.') != NULL && strncmp(f->entries[i].key, "crc.", 4) != 0))
            overrides[n++] = mem_printf("%s=%s", f->entries[i].key, f->entries[i].value);
    static const char base[] = "data: {train: unused}\n";
    assert_status_ok(config_parse(config, "golden", base, strlen(base), n, overrides));
    for (int i = 0; i < n; i++) free(overrides[i]);
    free(overrides);
}

static void *read_all(Checkpoint *ck, const char *name, int64_t *n) {
    const SafeTensor *t = safetensors_find(checkpoint_file(ck), name);
    if (t == NULL) fail_msg("no tensor %s", name);
    *n = safetensors_count(t);
    void *data = mem_new(*n, (size_t)dtype_bytes(t->dtype));
    assert_status_ok(checkpoint_read(ck, name, 0, *n, data));
    return data;
}

/* Largest |a - b| over all tensors of the file, and its place. */
static double compare(const Rig *r, const char *path, const float *flat, double scale) {
    Checkpoint *ck;
    assert_status_ok(checkpoint_open(&ck, path));
    double worst = 0;
    for (int i = 0; i < r->table->n_params; i++) {
        const Param *p = &r->table->params[i];
        int64_t n;
        float *expected = read_all(ck, p->name, &n);
        assert_int_equal(n, p->rows * p->cols);
        for (int64_t k = 0; k < n; k++) {
            double d = fabs(scale * (double)flat[p->offset + k] - (double)expected[k]);
            if (!(d <= worst)) worst = d;
        }
        free(expected);
    }
    checkpoint_close(ck);
    return worst;
}

static void assert_close(const char *what, int64_t step, double found, double expected,
                         double relative) {
    if (!(fabs(found - expected) <= relative * fabs(expected)))
        fail_msg("step %lld: %s is %.10g, expected %.10g", (long long)step, what, found, expected);
}

/* What a correct fp32 program may be off by. In FP8 a number that lies between two codes may become
 * the other one, from which later steps differ (README.md). */
typedef struct {
    double first, later, weights;
} Tolerance;
static const Tolerance exact = {1e-5, 1e-5, 5e-5}, fp8 = {2e-5, 0.08, 0.03};

static void train(const char *name, Recompute recompute, Tolerance tolerance) {
    char *path = mem_printf("tests/golden/%s.safetensors", name);
    char *grad_path = mem_printf("tests/golden/%s.grad.safetensors", name);
    char *final_path = mem_printf("tests/golden/%s.final.safetensors", name);
    Checkpoint *ck;
    assert_status_ok(checkpoint_open(&ck, path));
    Config config;
    read_config(ck, &config);
    const SafeTensor *shape = safetensors_find(checkpoint_file(ck), "golden.tokens");
    int64_t steps = shape->shape[0], B = shape->shape[1], T = shape->shape[2] - 1, n;
    Rig r = {.model = config.model,
             .optim = config.optim,
             .fp8 = config.precision == PRECISION_FP8 ? &config.fp8 : NULL};
    rig_open(&r, B, T, recompute, 0);
    for (int i = 0; i < r.table->n_params; i++) {
        float *w = read_all(ck, r.table->params[i].name, &n);
        memcpy(r.weights + r.table->params[i].offset, w, (size_t)n * sizeof *w);
        free(w);
    }
    int32_t *tokens = read_all(ck, "golden.tokens", &n);
    float *weights = read_all(ck, "golden.weights", &n);
    double *loss = read_all(ck, "golden.loss", &n), *norm = read_all(ck, "golden.grad_norm", &n);
    double *lr = read_all(ck, "golden.lr", &n);
    double *z_loss = config.optim.z_loss > 0 ? read_all(ck, "golden.z_loss", &n) : NULL;
    for (int64_t t = 0; t < steps; t++) {
        double count = 0;
        for (int64_t s = 0; s < B * T; s++) {
            const int32_t *row = tokens + (t * B + s / T) * (T + 1) + s % T;
            r.mb.tokens[s] = row[0];
            r.mb.labels[s] = row[1];
            r.mb.weights[s] = weights[t * B * T + s];
            count += (double)r.mb.weights[s];
        }
        double found_norm, found_lr = schedule_lr(&config.optim, config.run.steps, t + 1);
        double within = t == 0 ? tolerance.first : tolerance.later;
        assert_close("loss", t, rig_run(&r, true) / count, loss[t], within);
        if (z_loss != NULL) assert_close("z-loss", t, r.z_loss / count, z_loss[t], within);
        if (t == 0) assert_true(compare(&r, grad_path, r.grads, 1 / count) < 1e-5);
        assert_status_ok(optimizer_grad_norm(r.optimizer, &found_norm, NULL));
        assert_close("gradient norm", t, found_norm / count, norm[t], within);
        assert_close("learning rate", t, found_lr, lr[t], 1e-12);
        double scale = fmin(1, config.optim.clip / (found_norm / count + 1e-6)) / count;
        assert_status_ok(optimizer_step(r.optimizer, t + 1, found_lr, scale, NULL));
    }
    /* Where a gradient is almost nothing, AdamW's quotient keeps few of its digits. */
    assert_true(compare(&r, final_path, r.weights, 1) < tolerance.weights);
    rig_close(&r);
    config_free(&config);
    checkpoint_close(ck);
    free(tokens), free(weights), free(loss), free(norm), free(lr), free(z_loss);
    free(path), free(grad_path), free(final_path);
}

static void an_untied_model_trains_as_the_oracle_does(void **state) {
    (void)state;
    train("case1", RECOMPUTE_NONE, exact);
}

static void a_tied_model_trains_as_the_oracle_does(void **state) {
    (void)state;
    train("case2", RECOMPUTE_LAYER, exact);
}

static void a_model_in_fp8_trains_as_the_oracle_does(void **state) {
    (void)state;
    train("case3", RECOMPUTE_NONE, fp8);
    train("case3", RECOMPUTE_LAYER, fp8);
}

static void a_model_with_its_head_in_fp8_trains_as_the_oracle_does(void **state) {
    (void)state;
    train("case4", RECOMPUTE_NONE, fp8);
}

static void a_model_with_z_loss_trains_as_the_oracle_does(void **state) {
    (void)state;
    train("case5", RECOMPUTE_NONE, exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_in_fp8_trains_as_the_oracle_does),
        cmocka_unit_test(a_model_with_its_head_in_fp8_trains_as_the_oracle_does),
        cmocka_unit_test(an_untied_model_trains_as_the_oracle_does),
        cmocka_unit_test(a_tied_model_trains_as_the_oracle_does),
        cmocka_unit_test(a_model_with_z_loss_trains_as_the_oracle_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
