/* gpu_bench.c: how fast the ops are at the shapes of configs/llama-1b-example.yaml (S = 8192),
 * against the bytes they must move or the FLOPs they must do, and one step of the whole model.
 * Random data, median of single runs, each on other memory than the one before where that fits.
 * `gpu_bench [ops|gemm|step]`: all of them without an argument. */
#include "gpu_rig.h"

enum { S = 8192, C = 2048, H = 32, K = 8, D = 64, F = 5440, V = 128256, CHUNK = 768, RUNS = 21 };
enum { QKV = (H + 2 * K) * D };

static const Ops *gpu;
static Stream *stream;
static char *memory; /* random bf16 numbers */
static int64_t memory_bytes;

/* The k-th tensor of the call's i-th run: slices of `memory`, so that L2 holds none of it. */
static int64_t used;
static void *tensor(int64_t bytes) {
    bytes = round_up(bytes, 256);
    REQUIRE(bytes <= memory_bytes);
    if (used + bytes > memory_bytes) used = 0;
    used += bytes;
    return memory + used - bytes;
}
static void *act(int64_t n) {
    return tensor(2 * n);
}
static float *f32(int64_t n) {
    return tensor(4 * n);
}

static int32_t *tokens, *positions, *labels; /* device */
static float *inv_freq, *weights, *rstd;

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_ms(void (*call)(void)) {
    Event *begin, *end;
    double ms[RUNS];
    MUST(gpu->event_create(&begin));
    MUST(gpu->event_create(&end));
    for (int i = -2; i < RUNS; i++) {
        gpu->event_record(begin, stream);
        call();
        gpu->event_record(end, stream);
        MUST(gpu->stream_sync(stream));
        if (i >= 0) ms[i] = gpu->event_ms(begin, end);
    }
    gpu->event_free(begin);
    gpu->event_free(end);
    qsort(ms, RUNS, sizeof *ms, compare_doubles);
    return ms[RUNS / 2];
}

/* ---- memory-bound ops ----------------------------------------------------------------------- */

static void run_embedding_fwd(void) {
    gpu->embedding_fwd(act(S * C), tokens, act((int64_t)V * C), S, C, stream);
}
static void run_embedding_bwd(void) {
    gpu->embedding_bwd(f32((int64_t)V * C), act(S * C), tokens, S, C, V, stream);
}
static void run_rmsnorm_fwd(void) {
    gpu->rmsnorm_fwd(act(S * C), rstd, act(S * C), act(C), S, C, 1e-5f, stream);
}
static void run_rmsnorm_bwd(void) {
    void *dx = act(S * C);
    gpu->rmsnorm_bwd(dx, f32(C), act(S * C), act(S * C), act(S * C), act(C), rstd, dx, S, C,
                     stream);
}
static void run_rope_fwd(void) {
    gpu->rope_split_fwd(act(S * H * D), act(S * 2 * K * D), act(S * QKV), positions, inv_freq, S, H,
                        K, D, stream);
}
static void run_rope_bwd(void) {
    gpu->rope_split_bwd(act(S * QKV), f32(S * H * D), f32(S * 2 * K * D), positions, inv_freq, S, H,
                        K, D, stream);
}
static void run_swiglu_fwd(void) {
    gpu->swiglu_fwd(act((int64_t)S * F), act((int64_t)S * 2 * F), S, F, stream);
}
static void run_swiglu_bwd(void) {
    void *gu = act((int64_t)S * 2 * F);
    gpu->swiglu_bwd(gu, act((int64_t)S * F), act((int64_t)S * F), gu, S, F, stream);
}
static void run_loss(void) {
    gpu->cross_entropy(f32(CHUNK), act((int64_t)CHUNK * V), labels, weights, true, CHUNK, V, V,
                       stream);
}
enum { FLAT = 1 << 26 };
static void run_adamw(void) {
    AdamwStep a = {1e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.1f, 0.05f, 1};
    gpu->adamw(f32(FLAT), f32(FLAT), f32(FLAT), act(FLAT), f32(FLAT), &a, FLAT, stream);
}
static void run_sum_squares(void) {
    double *out = tensor(8);
    gpu->sum_squares(out, f32(FLAT), FLAT, stream);
}
static void run_cast(void) {
    gpu->cast_f32(act(FLAT), f32(FLAT), FLAT, stream);
}
static void run_add(void) {
    gpu->add_f32(f32(FLAT), f32(FLAT), FLAT, stream);
}
static void run_gather(void) {
    gpu->gather_rows(act(S * 2 * K * D), act(S * 2 * K * D), positions, S, 2 * K * D * 2, stream);
}
static void run_copy(void) {
    gpu->mem_copy(act(FLAT * 4LL), act(FLAT * 4LL), FLAT * 8LL, stream);
}
static void run_zero(void) {
    gpu->mem_zero(f32(FLAT * 2LL), FLAT * 8LL, stream);
}

static void bench_ops(void) {
    const double M = 1e6, SC = S * C / M, SF = (double)S * F / M, n = FLAT / M, SQ = S * QKV / M;
    const struct {
        const char *name;
        void (*call)(void);
        double megabytes;
    } ops[] = {{"copy, device to device", run_copy, 16 * n},
               {"zero", run_zero, 8 * n},
               {"embedding_fwd", run_embedding_fwd, 4 * SC},
               {"embedding_bwd", run_embedding_bwd, (2 + 8 * 0.875) * SC},
               {"rmsnorm_fwd", run_rmsnorm_fwd, 4 * SC},
               {"rmsnorm_bwd +dres +y", run_rmsnorm_bwd, 10 * SC},
               {"rope_split_fwd", run_rope_fwd, 4 * SQ},
               {"rope_split_bwd", run_rope_bwd, 6 * SQ},
               {"swiglu_fwd", run_swiglu_fwd, 6 * SF},
               {"swiglu_bwd +h", run_swiglu_bwd, 12 * SF},
               {"cross_entropy grad, 768 rows", run_loss, 4.0 * CHUNK * V / M},
               {"adamw", run_adamw, 30 * n},
               {"sum_squares", run_sum_squares, 4 * n},
               {"cast_f32", run_cast, 6 * n},
               {"add_f32", run_add, 12 * n},
               {"gather_rows, 8192 of 2 KiB", run_gather, 4.0 * S * 2 * K * D / M}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        double ms = median_ms(ops[i].call);
        printf("%-32s %8.4f ms %7.0f GB/s\n", ops[i].name, ms, ops[i].megabytes / ms);
    }
}

/* ---- matrix products ------------------------------------------------------------------------ */

static struct { int64_t S, N, M; } shape;
static void run_forward(void) {
    gpu->linear_fwd(act(shape.S * shape.N), act(shape.S * shape.M), act(shape.N * shape.M), NULL,
                    shape.S, shape.N, shape.M, stream);
}
static void run_dgrad(void) {
    gpu->linear_dgrad(act(shape.S * shape.M), act(shape.S * shape.N), act(shape.N * shape.M), false,
                      shape.S, shape.N, shape.M, stream);
}
static void run_wgrad(void) {
    gpu->linear_wgrad(f32(shape.N * shape.M), act(shape.S * shape.N), act(shape.S * shape.M),
                      shape.S, shape.N, shape.M, stream);
}

static void bench_gemm(void) {
    static const struct {
        const char *name;
        int64_t S, N, M;
    } layers[] = {{"qkv", S, QKV, C},
                  {"o", S, C, C},
                  {"gate-up", S, 2 * F, C},
                  {"down", S, C, F},
                  {"gate-up 8192", S, 16384, C},
                  {"down 8192", S, C, 8192},
                  {"head, 768 rows", CHUNK, V, C},
                  {"head, 2048 rows", 2048, V, C}};
    for (int tuned = 0; tuned < 2; tuned++) {
        cuda_gemm_autotune(tuned);
        printf("%s, TFLOP/s: fwd dgrad wgrad\n", tuned ? "chosen by time" : "first suggestion");
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            shape.S = layers[i].S, shape.N = layers[i].N, shape.M = layers[i].M;
            double gflop = 2e-9 * (double)shape.S * (double)shape.N * (double)shape.M;
            printf("  %-18s [%6lld %6lld %6lld] %7.0f", layers[i].name, (long long)shape.S,
                   (long long)shape.N, (long long)shape.M, gflop / median_ms(run_forward));
            printf(" %7.0f", gflop / median_ms(run_dgrad));
            printf(" %7.0f\n", gflop / median_ms(run_wgrad));
        }
    }
}

/* ---- the whole model --------------------------------------------------------------------------
 */

static void bench_step(bool tuned) {
    const ModelConfig m = {.layers = 16,
                           .hidden = C,
                           .heads = H,
                           .kv_heads = K,
                           .head_dim = D,
                           .ffn = F,
                           .vocab = V,
                           .seq_len = S,
                           .norm_eps = 1e-5,
                           .init_std = 0.006,
                           .rope_theta = 500000,
                           .rope_scaling = {8, 1, 4, 8192}};
    enum { MICRO = 4 };
    Rig r;
    Event *at[3];
    cuda_gemm_autotune(tuned);
    rig_open(&r, gpu, &m, 1, MASK_CAUSAL, RECOMPUTE_NONE);
    for (int i = 0; i < 3; i++) MUST(gpu->event_create(&at[i]));
    double begin = time_now();
    MUST(optimizer_init(r.optimizer, 1, r.stream));
    printf("  weights made in %.1f s\n", time_now() - begin);
    for (int step = 0; step < 4; step++) {
        double loss = 0, norm;
        begin = time_now();
        gpu->mem_zero(r.loss, sizeof loss, r.stream);
        llama_zero_gradients(r.llama, r.stream);
        gpu->event_record(at[0], r.stream);
        for (int i = 0; i < MICRO; i++)
            MUST(llama_run(r.llama, r.batch, true, r.loss, NULL, NULL, r.stream));
        gpu->event_record(at[1], r.stream);
        double queued = time_now();
        MUST(optimizer_grad_norm(r.optimizer, &norm, r.stream));
        MUST(optimizer_step(r.optimizer, step + 1, 1e-4, 1 / (MICRO * r.batch->weight_sum),
                            r.stream));
        gpu->event_record(at[2], r.stream);
        gpu->mem_copy(&loss, r.loss, sizeof loss, r.stream);
        MUST(gpu->stream_sync(r.stream));
        double seconds = time_now() - begin;
        printf("  step %d: loss %.4f norm %.3g  micro-batch %.2f ms (host %.2f)  update %.2f ms  "
               "%.0f tok/s\n",
               step, loss / (MICRO * r.batch->weight_sum), norm / (MICRO * r.batch->weight_sum),
               gpu->event_ms(at[0], at[1]) / MICRO, 1e3 * (queued - begin) / MICRO,
               gpu->event_ms(at[1], at[2]), MICRO * S / seconds);
        fflush(stdout);
    }
    printf("  memory %.2f GiB\n", (double)gpu->mem_peak() / 0x1p30);
    for (int i = 0; i < 3; i++) gpu->event_free(at[i]);
    rig_close(&r);
}

static void *upload(const void *host, int64_t bytes) {
    void *p;
    MUST(gpu->mem_alloc(&p, bytes, "input of the benchmark"));
    gpu->mem_copy(p, host, bytes, stream);
    MUST(gpu->stream_sync(stream));
    return p;
}

/* Inputs of the ops. bf16 pairs read as fp32 are numbers of the same size. */
static void make_inputs(void) {
    const int64_t block = 1 << 24;
    memory_bytes = 6LL << 30;
    uint16_t *random = NEW(uint16_t, block);
#pragma omp parallel for
    for (int64_t i = 0; i < block; i++) random[i] = to_bf16(random_normal(1, i));
    MUST(gpu->mem_alloc((void **)&memory, memory_bytes, "tensors of the benchmark"));
    for (int64_t at = 0; at < memory_bytes; at += 2 * block)
        gpu->mem_copy(memory + at, random, 2 * block, stream);
    int32_t *ints = NEW(int32_t, S);
    float *floats = NEW(float, S);
    for (int i = 0; i < S; i++) ints[i] = i;
    positions = upload(ints, S * 4);
    for (int i = 0; i < S; i++) ints[i] = (int32_t)(rng_u64(7, 1, (uint64_t)i) % V);
    labels = upload(ints, S * 4);
    for (int i = 0; i < S; i++) /* an eighth is one frequent token */
        if (i % 8 == 0) ints[i] = 1;
    tokens = upload(ints, S * 4);
    for (int i = 0; i < S; i++) floats[i] = 1;
    weights = upload(floats, S * 4);
    rstd = upload(floats, S * 4);
    for (int i = 0; i < D / 2; i++) floats[i] = (float)pow(500000, -2.0 * i / D);
    inv_freq = upload(floats, D / 2 * 4);
    free(random);
    free(ints);
    free(floats);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    MUST(cuda_ops_open(&gpu, 0));
    MUST(gpu->stream_create(&stream));
    printf("device %s\n", gpu->device_name);
    if (strcmp(what, "step") != 0) make_inputs();
    if (*what == '\0' || strcmp(what, "ops") == 0) bench_ops();
    if (*what == '\0' || strcmp(what, "gemm") == 0) bench_gemm();
    gpu->mem_free(memory);
    for (int tuned = 0; tuned < 2 && (*what == '\0' || strcmp(what, "step") == 0); tuned++) {
        printf("example 1B, 4 micro-batches of 8192 tokens, products %s\n",
               tuned ? "chosen by time" : "as first suggested");
        bench_step(tuned);
    }
    gpu->stream_free(stream);
    return 0;
}
