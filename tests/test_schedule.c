/* The learning rate of every update, and that of Megatron-LM's OptimizerParamScheduler for the
 * settings of configs/llama-1b-example.yaml. */
#include "optim/schedule.h"

#include <math.h>

#include "test.h"

static void close_to(double found, double expected) {
    if (!(fabs(found - expected) <= 5e-10 * expected))
        fail_msg("found %.10g, expected %.10g", found, expected);
}

static Config example(char *override) {
    Config c;
    assert_status_ok(config_load(&c, "configs/llama-1b-example.yaml", override != NULL, &override));
    return c;
}

static double lr_of(const Config *c, int64_t update) {
    return schedule_lr(&c->optim, c->run.steps, update);
}

/* What megatron-core 0.11.0's scheduler gave with the arguments of train_llama_1b_from_scratch.sh.
 */
static void the_example_is_megatrons(void **state) {
    (void)state;
    static const struct {
        int64_t update;
        double lr;
    } golden[] = {{2, 1.395348837e-07},
                  {430, 5.986046512e-05},
                  {431, 6e-05},
                  {1000, 5.999976623e-05},
                  {1001, 5.999976541e-05}};
    Config c = example(NULL);
    assert_true(lr_of(&c, 1) == 0);
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++)
        close_to(lr_of(&c, golden[i].update), golden[i].lr);
    config_free(&c);
}

/* Megatron-LM core_v0.11's get_lr, which counts in samples. */
static double megatron_lr(const OptimConfig *o, int64_t batch, int64_t num_steps) {
    double warmup = (double)(o->warmup_steps * batch), decay = (double)(o->decay_steps * batch);
    double n = (double)(num_steps * batch);
    if (warmup > 0 && n <= warmup) return 0.0 + (o->lr - 0.0) * n / warmup;
    if (n > decay) return o->min_lr;
    double ratio = (n - warmup) / (decay - warmup);
    return o->min_lr + 0.5 * (cos(acos(-1) * ratio) + 1.0) * (o->lr - o->min_lr);
}

static void every_update_of_the_example(void **state) {
    (void)state;
    Config c = example(NULL);
    for (int64_t t = 1; t <= 600000; t += t < 2000 ? 1 : 997) {
        double expected = megatron_lr(&c.optim, c.batch.global, t - 1), found = lr_of(&c, t);
        if (!(fabs(found - expected) <= 1e-15 * 6e-5))
            fail_msg("update %lld: found %.17g, expected %.17g", (long long)t, found, expected);
    }
    config_free(&c);
}

static void the_default_begins_at_step_1(void **state) {
    (void)state;
    Config c = example("optim.schedule_start=1"), shifted = example(NULL);
    close_to(lr_of(&c, 1), 1.395348837e-07);
    close_to(lr_of(&c, 430), 6e-05);
    close_to(lr_of(&c, 1000), 5.999976541e-05);
    for (int64_t t = 1; t < 1000; t++) assert_true(lr_of(&c, t) == lr_of(&shifted, t + 1));
    config_free(&c);
    config_free(&shifted);
    c = example("optim.warmup_steps=0"); /* nothing to divide by */
    close_to(lr_of(&c, 1), 6e-05);
    config_free(&c);
}

static void every_shape(void **state) {
    (void)state;
    OptimConfig o = {
        .lr = 10, .min_lr = 2, .schedule_start = 1, .warmup_steps = 2, .decay_steps = 6};
    static const struct {
        ScheduleKind kind;
        double lr[8]; /* of updates 1 to 8 */
    } cases[] = {{SCHEDULE_CONSTANT, {5, 10, 10, 10, 10, 10, 10, 10}},
                 {SCHEDULE_LINEAR, {5, 10, 8, 6, 4, 2, 2, 2}},
                 {SCHEDULE_COSINE, {5, 10, 6 + 2 * M_SQRT2, 6, 6 - 2 * M_SQRT2, 2, 2, 2}},
                 {SCHEDULE_WSD, {5, 10, 26 / 3.0, 22 / 3.0, 6, 14 / 3.0, 10 / 3.0, 2}}};
    for (int start = 0; start < 2; start++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            for (int64_t t = 1; t <= 8; t++) {
                o.schedule = cases[i].kind;
                o.schedule_start = start;
                if (start + t > 1) close_to(schedule_lr(&o, 8, t), cases[i].lr[start + t - 2]);
                if (start + t == 1) assert_true(schedule_lr(&o, 8, t) == 0);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_megatrons),
        cmocka_unit_test(every_update_of_the_example),
        cmocka_unit_test(the_default_begins_at_step_1),
        cmocka_unit_test(every_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
