#include "ops/limits.h"

#include <stdio.h>

const GpuProperties gpu_h100 = {.name = "H100", .capability = 90, .shared_bytes = 227 << 10};

/* The most shared memory of a block of attention. */
static int64_t attention_shared_bytes(int capability, int head_dim) {
    if (gpu_hopper_attention(capability, head_dim)) return 227 << 10;
    /* The backward holds six tiles of 64 rows, in bf16, and lse and delta of two. */
    return 6 * 64 * (head_dim <= 64 ? 64 : 128) * 2 + 2 * 2 * 64 * 4;
}

static bool head_dim_runs(int D) {
    return D % GPU_HEAD_DIM_UNIT == 0 && D > 0 && D <= GPU_HEAD_DIM_MAX;
}

static void add_problem(GpuProblem *out, int *n, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void add_problem(GpuProblem *out, int *n, const char *key, const char *fmt, ...) {
    va_list ap;
    REQUIRE(*n < GPU_PROBLEMS_MAX);
    va_start(ap, fmt);
    vsnprintf(out[*n].text, sizeof out[*n].text, fmt, ap);
    va_end(ap);
    out[(*n)++].key = key;
}

int gpu_model_problems(const GpuProperties *gpu, const ModelSizes *m,
                       GpuProblem out[GPU_PROBLEMS_MAX]) {
    int n = 0;
    int64_t attention = attention_shared_bytes(gpu->capability, m->head_dim);
    if (gpu->capability < GPU_CAPABILITY_MIN)
        add_problem(out, &n, "device",
                    "found cuda on %s (compute capability %d.%d), expected a GPU of compute "
                    "capability %d.%d or newer",
                    gpu->name, gpu->capability / 10, gpu->capability % 10, GPU_CAPABILITY_MIN / 10,
                    GPU_CAPABILITY_MIN % 10);
    else if (head_dim_runs(m->head_dim) && attention > gpu->shared_bytes)
        add_problem(out, &n, "device",
                    "found cuda on %s with %lld bytes of shared memory a block, expected the %lld "
                    "that attention with model.head_dim %d needs",
                    gpu->name, (long long)gpu->shared_bytes, (long long)attention, m->head_dim);
    else if (m->fp8 && gpu->capability < GPU_FP8_CAPABILITY)
        add_problem(out, &n, "precision",
                    "found fp8 on %s (compute capability %d.%d), expected a GPU of compute "
                    "capability %d.%d or newer, or bf16",
                    gpu->name, gpu->capability / 10, gpu->capability % 10, GPU_FP8_CAPABILITY / 10,
                    GPU_FP8_CAPABILITY % 10);
    if (!head_dim_runs(m->head_dim)) {
        bool derived = (int64_t)m->heads * m->head_dim == m->hidden;
        StrBuf from = {0};
        if (derived)
            strbuf_printf(&from, " (model.hidden %d / model.heads %d)", m->hidden, m->heads);
        add_problem(out, &n, "model.head_dim",
                    "found %d%s, expected a multiple of %d up to %d, which attention on GPUs needs",
                    m->head_dim, strbuf_text(&from), GPU_HEAD_DIM_UNIT, GPU_HEAD_DIM_MAX);
        strbuf_free(&from);
    }
    int64_t columns = (gpu->shared_bytes - GPU_RMSNORM_STATIC_BYTES) / (int64_t)sizeof(float);
    if (m->hidden > columns)
        add_problem(out, &n, "model.hidden",
                    "found %d, expected at most %lld on %s, whose blocks have %lld bytes of shared "
                    "memory",
                    m->hidden, (long long)columns, gpu->name, (long long)gpu->shared_bytes);
    /* A launch has at most 2^31 - 1 blocks. */
    int64_t block_columns = GPU_SWIGLU_THREADS * (m->ffn % 8 == 0 ? 8 : 1);
    int64_t rows_max = INT32_MAX / ceil_div(m->ffn, block_columns);
    if (m->rows > rows_max)
        add_problem(out, &n, "batch.micro",
                    "found %lld tokens a rank, expected at most %lld with model.ffn %d on GPUs",
                    (long long)m->rows, (long long)rows_max, m->ffn);
    return n;
}

Status gpu_check_model(const GpuProperties *gpu, const ModelSizes *m) {
    GpuProblem problems[GPU_PROBLEMS_MAX];
    int n = gpu_model_problems(gpu, m, problems);
    if (n == 0) return OK;
    StrBuf text = {0};
    if (n > 1) strbuf_printf(&text, "%d problems:\n", n);
    for (int i = 0; i < n; i++)
        strbuf_printf(&text, "%s%s: %s", i > 0 ? "\n" : "", problems[i].key, problems[i].text);
    strbuf_printf(&text, "; device=cpu runs this model");
    Status st = status_fail(ERR_USER, "%s", strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

Status gpu_check_head_dim(int head_dim) {
    if (head_dim_runs(head_dim)) return OK;
    return status_fail(ERR_USER,
                       "attention on GPUs takes heads whose width is a multiple of %d up to %d, "
                       "found %d; device=cpu takes any",
                       GPU_HEAD_DIM_UNIT, GPU_HEAD_DIM_MAX, head_dim);
}
