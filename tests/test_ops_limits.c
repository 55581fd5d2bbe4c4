/* What GPUs refuse: ops_limits.c against the conditions of every kernel, written down here once
 * more from the kernels' launches (which tests/e2e/gpu_conditions_are_listed.sh keeps complete),
 * and the reason for a CPU that was not asked for. */
#include <stdlib.h>

#include "config/config.h"
#include "ops/limits.h"
#include "base/rng.h"
#include "test.h"
#include "session/device.h"

/* ---- the kernels' conditions ----------------------------------------------------------------- */

static const int64_t grid_x = INT32_MAX, grid_y = 65535;

static int64_t blocks(int64_t n, int64_t each) {
    return (n + each - 1) / each;
}

static bool any_row(const GpuProperties *g, const ModelSizes *m) { /* a block or more for a row */
    return m->rows <= grid_x && g != NULL;
}
static bool portable_code(const GpuProperties *g, const ModelSizes *m) {
    return g->capability >= 80 && m != NULL; /* PTX of compute_80 */
}
static bool embedding_bwd(const GpuProperties *g, const ModelSizes *m) {
    return blocks(m->hidden, 128) <= grid_y && g != NULL;
}
static bool rmsnorm_bwd(const GpuProperties *g, const ModelSizes *m) {
    return 4 * (int64_t)m->hidden + 32 * 4 <= g->shared_bytes;
}
static bool rope(const GpuProperties *g, const ModelSizes *m) {
    return 4 * m->head_dim <= 48 << 10 && g != NULL; /* without asking for more */
}
static bool swiglu(const GpuProperties *g, const ModelSizes *m) {
    return m->rows * blocks(m->ffn, m->ffn % 8 == 0 ? 2048 : 256) <= grid_x && g != NULL;
}
static bool attention_heads(const GpuProperties *g, const ModelSizes *m) {
    return m->heads <= grid_y && m->heads % m->kv_heads == 0 && g != NULL;
}
static bool attention_width(const GpuProperties *g, const ModelSizes *m) {
    return m->head_dim % 16 == 0 && m->head_dim <= 128 && g != NULL;
}
static bool hopper(const GpuProperties *g, const ModelSizes *m) {
    return (g->capability == 90) && (m->head_dim == 64 || m->head_dim == 128);
}
static bool attention_hopper(const GpuProperties *g, const ModelSizes *m) {
    return !hopper(g, m) || g->shared_bytes >= 227 * 1024;
}
static bool attention_portable(const GpuProperties *g, const ModelSizes *m) {
    if (hopper(g, m) || m->head_dim > 128 || m->head_dim % 16 != 0) return true;
    int64_t tile = 64 * (m->head_dim <= 64 ? 64 : 128) * 2;
    return 5 * tile <= g->shared_bytes && 6 * tile + 4 * 64 * 4 <= g->shared_bytes;
}

static const struct {
    const char *key;
    bool (*holds)(const GpuProperties *g, const ModelSizes *m);
} conditions[] = {{"device", portable_code},
                  {"device", attention_hopper},
                  {"device", attention_portable},
                  {"model.head_dim", attention_width},
                  {"model.hidden", rmsnorm_bwd},
                  {"batch.micro", swiglu},
                  {"no key", embedding_bwd},
                  {"no key", rope},
                  {"no key", any_row},
                  {"no key", attention_heads}};
enum { CONDITIONS = sizeof conditions / sizeof *conditions };

static const GpuProperties gpus[] = {
    {"T4", 75, 64 << 10, ""},         {"A100", 80, 163 << 10, ""},
    {"A10", 86, 99 << 10, ""},        {"Orin", 87, 163 << 10, ""},
    {"L4", 89, 99 << 10, ""},         {"H200", 90, 227 << 10, ""},
    {"B200", 100, 227 << 10, ""},     {"RTX 5090", 120, 99 << 10, ""},
    {"a small one", 80, 48 << 10, ""}};
enum { GPUS = sizeof gpus / sizeof *gpus };

static void expect_same_verdict(const GpuProperties *g, const ModelSizes *m) {
    GpuProblem found[GPU_PROBLEMS_MAX];
    int n = gpu_model_problems(g, m, found);
    for (int i = 0; i < CONDITIONS; i++) {
        bool refused = false, expected = false;
        for (int j = 0; j < n; j++) refused |= strcmp(found[j].key, conditions[i].key) == 0;
        for (int j = 0; j < CONDITIONS; j++)
            expected |=
                strcmp(conditions[j].key, conditions[i].key) == 0 && !conditions[j].holds(g, m);
        if (refused != expected)
            fail_msg("%s, hidden %d, %d/%d heads of %d, ffn %d, %lld rows: %s is %srefused",
                     g->name, m->hidden, m->heads, m->kv_heads, m->head_dim, m->ffn,
                     (long long)m->rows, conditions[i].key, refused ? "" : "not ");
    }
    assert_int_equal(gpu_check_model(g, m), n > 0 ? ERR_USER : OK);
    for (int j = 0; j < n; j++) assert_non_null(strstr(status_message(), found[j].text));
    status_clear();
}

/* From 1 to most; half of them near a power of two. */
static int64_t draw(uint64_t *at, int64_t most) {
    uint64_t a = rng_u64(1, rng_stream(RNG_TEST, 5), (*at)++), b = rng_u64(2, 0, *at);
    if (a % 2 == 0) return 1 + (int64_t)(b % (uint64_t)most);
    int64_t power = (int64_t)1 << b % 30;
    return i64_max(1, i64_min(most, power + (int64_t)(a / 2 % 5) - 2));
}

/* Bounds as in config_keys.c. */
static void refusals_are_those_of_the_kernels(void **state) {
    (void)state;
    uint64_t at = 0;
    int refused = 0;
    for (int i = 0; i < 40000; i++) {
        const GpuProperties *g = &gpus[i % GPUS];
        ModelSizes m = {.rows = draw(&at, 1 << 29), .ffn = (int)draw(&at, 1 << 20)};
        m.kv_heads = (int)draw(&at, 1024);
        m.heads = m.kv_heads * (int)draw(&at, 1024 / m.kv_heads);
        m.head_dim = 2 * (int)draw(&at, i % 3 ? 64 : 512);
        m.hidden = (int)draw(&at, i % 5 ? 65536 : 30000);
        expect_same_verdict(g, &m);
        GpuProblem found[GPU_PROBLEMS_MAX];
        refused += gpu_model_problems(g, &m, found) > 0;
    }
    assert_in_range(refused, 10000, 39000); /* the draw meets both sides */
}

static void refusals_begin_at_the_limit(void **state) {
    (void)state;
    ModelSizes m = {8192, 2048, 32, 8, 64, 8192, false};
    for (int i = 0; i < GPUS; i++) {
        for (int D = 2; D <= 260; D += 2) {
            m.head_dim = D;
            expect_same_verdict(&gpus[i], &m);
        }
        m.head_dim = 64;
        int most = (int)(gpus[i].shared_bytes - 128) / 4;
        for (m.hidden = most - 2; m.hidden <= most + 2; m.hidden++)
            expect_same_verdict(&gpus[i], &m);
        for (m.hidden = 12250; m.hidden <= 12300; m.hidden++) expect_same_verdict(&gpus[i], &m);
        m.hidden = 2048;
    }
    assert_status_ok(gpu_check_model(&gpu_h100, &m));
}

static void every_shipped_model_runs(void **state) {
    (void)state;
    static const char *const files[] = {"configs/tiny.yaml", "configs/llama-1b.yaml",
                                        "configs/llama-1b-example.yaml", "configs/llama-3b.yaml"};
    for (int i = 0; i < 4; i++) {
        Config c;
        assert_status_ok(config_load(&c, files[i], 0, NULL));
        for (int g = 1; g < GPUS - 1; g++) assert_status_ok(device_check_model(&c, &gpus[g]));
        assert_status_ok(device_check_model(&c, NULL));
        config_free(&c);
    }
}

static void messages_name_key_value_and_remedy(void **state) {
    (void)state;
    ModelSizes m = {8192, 3200, 32, 32, 100, 8640, false};
    assert_status_fails(
        gpu_check_model(&gpu_h100, &m), ERR_USER,
        "model.head_dim: found 100 (model.hidden 3200 / model.heads 32), expected a "
        "multiple of 16 up to 128, which attention on GPUs needs; device=cpu runs");
    m.hidden = 60000;
    assert_status_fails(gpu_check_model(&gpu_h100, &m), ERR_USER,
                        "2 problems:\nmodel.head_dim: found 100, expected");
    gpu_check_model(&gpus[0], &m);
    assert_non_null(strstr(status_message(),
                           "found cuda on T4 (compute capability 7.5), expected a "
                           "GPU of compute capability 8.0 or newer"));
    assert_non_null(
        strstr(status_message(), "\nmodel.hidden: found 60000, expected at most 16352"));
    status_clear();
    m.head_dim = 64, m.hidden = 2048, m.fp8 = true;
    const GpuProperties a100 = {.name = "A100", .capability = 80, .shared_bytes = 163 << 10};
    assert_status_fails(gpu_check_model(&a100, &m), ERR_USER,
                        "precision: found fp8 on A100 (compute capability 8.0), expected a GPU of "
                        "compute capability 8.9 or newer, or bf16");
    assert_status_ok(gpu_check_model(&gpu_h100, &m));
    assert_status_fails(gpu_check_head_dim(24), ERR_USER, "found 24");
    assert_status_ok(gpu_check_head_dim(112));
}

/* ---- a CPU that was not asked for -------------------------------------------------------------
 */

static void expect_reason(char *found, const char *expected) {
    if (expected == NULL)
        assert_null(found);
    else if (found == NULL || strstr(found, expected) == NULL)
        fail_msg("the reason is '%s', expected '%s'", found != NULL ? found : "", expected);
    free(found);
}

static void auto_says_why_it_takes_the_cpu(void **state) {
    (void)state;
    const char *nowhere = "/dev/no-such-gpu", *there = "/dev/null";
    expect_reason(device_why_cpu(true, "no driver is loaded", nowhere, 10),
                  "device: auto takes the CPU: no driver is loaded");
    expect_reason(device_why_cpu(false, "built without CUDA", there, 10),
                  "takes the CPU of a machine with an NVIDIA GPU (/dev/null): this cria was built "
                  "without CUDA");
    expect_reason(device_why_cpu(false, "built without CUDA", nowhere, 1236 * 1000000LL),
                  "takes the CPU for a model of 1236 M weights: ");
    expect_reason(device_why_cpu(false, "built without CUDA", nowhere, 100 * 1000000LL), NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_are_those_of_the_kernels),
        cmocka_unit_test(refusals_begin_at_the_limit),
        cmocka_unit_test(every_shipped_model_runs),
        cmocka_unit_test(messages_name_key_value_and_remedy),
        cmocka_unit_test(auto_says_why_it_takes_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
