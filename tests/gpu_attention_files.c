/* gpu_attention_files.c: attention forward and backward on inputs from files, for
 * scripts/check_attention_error.py, which makes them and judges what is written beside them.
 *
 *   gpu_attention_files cpu|cuda DIR...
 *
 * Each DIR holds, raw and little-endian: shape.i32 (S, H, K, D), bands.i32 [n,6] (the fields of a
 * Band), q.bf16 [S,H,D], kv.bf16 [S,2,K,D], do.bf16 [S,H,D]. It gets o.bf16 [S,H,D], lse.f32 [H,S],
 * dq.f32 [S,H,D] and dkv.f32 [S,2,K,D]. */
#include "gpu.h"

typedef struct {
    const Ops *ops;
    const char *dir;
    Stream *stream;
} Files;

static FILE *open_file(const Files *f, const char *name, const char *mode) {
    char *path = mem_printf("%s/%s", f->dir, name);
    FILE *file = fopen(path, mode);
    if (file == NULL) {
        perror(path);
        exit(3);
    }
    free(path);
    return file;
}

static void fail_file(const Files *f, const char *name, const char *what) {
    printf("%s/%s: %s\n", f->dir, name, what);
    exit(3);
}

/* All of a file; *n gets its number of elements, which `expected` names unless it is 0. */
static void *read_file(const Files *f, const char *name, int64_t width, int64_t expected,
                       int64_t *n) {
    FILE *file = open_file(f, name, "rb");
    fseek(file, 0, SEEK_END);
    int64_t bytes = ftell(file);
    rewind(file);
    if (bytes <= 0 || bytes % width != 0 || (expected != 0 && bytes != expected * width))
        fail_file(f, name, "has not the size that the shape asks for");
    void *data = NEW(char, bytes);
    if (fread(data, 1, (size_t)bytes, file) != (size_t)bytes) fail_file(f, name, "cannot be read");
    fclose(file);
    if (n != NULL) *n = bytes / width;
    return data;
}

static void write_file(const Files *f, const char *name, const void *data, int64_t bytes) {
    FILE *file = open_file(f, name, "wb");
    bool written = fwrite(data, 1, (size_t)bytes, file) == (size_t)bytes;
    if (fclose(file) != 0 || !written) fail_file(f, name, "cannot be written");
}

/* n numbers of a .bf16 file, in device memory as the backend's activations. */
static void *load(const Files *f, const char *name, int64_t n) {
    uint16_t *bits = read_file(f, name, 2, n, NULL);
    float *wide = NEW(float, n);
    for (int64_t i = 0; i < n; i++) wide[i] = from_bf16(bits[i]);
    const void *from = f->ops->act_dtype == DT_BF16 ? (const void *)bits : wide;
    void *memory;
    EXPECT_OK(f->ops->mem_alloc(&memory, n * f->ops->act_bytes, name));
    f->ops->mem_copy(memory, from, n * f->ops->act_bytes, f->stream);
    EXPECT_OK(f->ops->stream_sync(f->stream));
    free(bits);
    free(wide);
    return memory;
}

static void store_f32(const Files *f, const char *name, const float *memory, int64_t n) {
    float *x = NEW(float, n);
    f->ops->mem_copy(x, memory, n * 4, f->stream);
    EXPECT_OK(f->ops->stream_sync(f->stream));
    write_file(f, name, x, n * 4);
    free(x);
}

static void store_act(const Files *f, const char *name, const void *memory, int64_t n) {
    char *x = NEW(char, n * f->ops->act_bytes);
    uint16_t *bits = NEW(uint16_t, n);
    f->ops->mem_copy(x, memory, n * f->ops->act_bytes, f->stream);
    EXPECT_OK(f->ops->stream_sync(f->stream));
    for (int64_t i = 0; i < n && f->ops->act_dtype == DT_F32; i++)
        bits[i] = to_bf16(((float *)x)[i]);
    write_file(f, name, f->ops->act_dtype == DT_BF16 ? x : (char *)bits, n * 2);
    free(x);
    free(bits);
}

static float *new_f32(const Files *f, int64_t n) {
    void *memory;
    EXPECT_OK(f->ops->mem_alloc(&memory, n * 4, "output"));
    return memory;
}

static void run(const Files *f) {
    const Ops *ops = f->ops;
    int32_t *shape = read_file(f, "shape.i32", 4, 4, NULL);
    int S = shape[0], H = shape[1], K = shape[2], D = shape[3];
    int64_t n_bands, nq = (int64_t)S * H * D, nkv = (int64_t)S * 2 * K * D, rows = (int64_t)S * H;
    Band *bands = read_file(f, "bands.i32", sizeof(Band), 0, &n_bands);
    AttnShape attention = {
        .Sq = S, .Sk = S, .H = H, .K = K, .D = D, .scale = (float)(1 / sqrt((double)D))};
    AttnWork *work;
    EXPECT_OK(ops->attn_work_create(&work, bands, n_bands, attention, NULL, f->stream));
    void *q = load(f, "q.bf16", nq), *kv = load(f, "kv.bf16", nkv), *d_o = load(f, "do.bf16", nq),
         *o;
    EXPECT_OK(ops->mem_alloc(&o, nq * ops->act_bytes, "o"));
    float *lse = new_f32(f, rows), *delta = new_f32(f, rows), *dq = new_f32(f, nq);
    float *dkv = new_f32(f, nkv);
    ops->attention_fwd(&(AttnFwd){.o = o, .lse = lse, .q = q, .kv = kv, .work = work}, f->stream);
    ops->attention_delta(delta, d_o, o, S, H, D, f->stream);
    ops->attention_bwd(&(AttnBwd){.dq = dq,
                                  .dkv = dkv,
                                  .d_o = d_o,
                                  .q = q,
                                  .kv = kv,
                                  .lse = lse,
                                  .delta = delta,
                                  .work = work},
                       f->stream);
    store_act(f, "o.bf16", o, nq);
    store_f32(f, "lse.f32", lse, rows);
    store_f32(f, "dq.f32", dq, nq);
    store_f32(f, "dkv.f32", dkv, nkv);
    ops->attn_work_free(work);
    void *memory[] = {q, kv, d_o, o, lse, delta, dq, dkv};
    for (int i = 0; i < 8; i++) ops->mem_free(memory[i]);
    free(shape);
    free(bands);
}

int main(int argc, char **argv) {
    Files f = {.ops = cpu_ops()};
    if (argc < 3 || (strcmp(argv[1], "cpu") != 0 && strcmp(argv[1], "cuda") != 0)) {
        printf("usage: gpu_attention_files cpu|cuda DIR...\n");
        return 2;
    }
    if (strcmp(argv[1], "cuda") == 0) gpu_open(&f.ops);
    EXPECT_OK(f.ops->stream_create(f.ops, &f.stream));
    for (int i = 2; i < argc; i++) {
        f.dir = argv[i];
        run(&f);
    }
    f.ops->stream_free(f.stream);
    return 0;
}
