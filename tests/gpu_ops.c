/* gpu_ops.c: every op of the CUDA table against the CPU table on the same inputs (rounded to bf16
 * where they are activations), attention (gpu_attention.cu) and
 * FP8 (gpu_fp8.c) aside. Each case runs twice on the GPU:
 *   the results must agree with the CPU's, element by element, |got - want| <= rel |want| + abs rms
 *     (rel 0, abs 0: the same value, the CPU's rounded to bf16 for activations);
 *   both runs must leave the same bits;
 *   no byte outside the outputs may change: inputs, and the space between the tensors.
 * Then those that are bound by memory are timed against a copy.
 * `gpu_ops [WORD]` runs the cases whose name contains WORD. */
#include "gpu_ops_rig.h"
#include "ops/linear.h"

CALL(embedding_fwd) {
    o->embedding_fwd(p[0], p[1], p[2], z[0], (int)z[1], s);
}
CALL(embedding_bwd) {
    o->embedding_bwd(p[0], p[1], p[2], z[0], (int)z[1], (int)z[2], s);
}

static void test_embedding(OpsRig *rig, int64_t S, int C, int V) {
    Case c;
    case_begin(&c, rig, "embedding_fwd S=%lld C=%d V=%d", (long long)S, C, V);
    add_output(&c, "x", ACT, S * C, EXACT);
    add_ints(&c, "tokens", S, V);
    add_input(&c, "table", ACT, (int64_t)V * C, 1);
    c.z[0] = S, c.z[1] = C;
    c.bytes = S * (4 + 4 * C);
    case_run(&c, embedding_fwd);
    case_begin(&c, rig, "embedding_bwd S=%lld C=%d V=%d", (long long)S, C, V);
    add_input(&c, "dtable", F32, (int64_t)V * C, 1), is_output(&c, EXACT); /* the same order */
    add_input(&c, "dx", ACT, S * C, 1);
    add_ints(&c, "tokens", S, V);
    c.z[0] = S, c.z[1] = C, c.z[2] = V;
    c.bytes = S * (4 + 2 * C) + i64_min(S, V) * 8 * C;
    case_run(&c, embedding_bwd);
}

CALL(rmsnorm_fwd) {
    o->rmsnorm_fwd(p[0], p[1], NULL, p[2], p[3], z[0], (int)z[1], 1e-5f, s);
}
CALL(rmsnorm_bwd) {
    const void *dres[] = {NULL, p[7], p[0]};
    o->rmsnorm_bwd(&(RmsnormBwd){.dx = p[0],
                                 .dw = p[1],
                                 .y = z[3] ? p[2] : NULL,
                                 .dy = p[3],
                                 .x = p[4],
                                 .w = p[5],
                                 .rstd = p[6],
                                 .dres = dres[z[2]],
                                 .S = z[0],
                                 .C = (int)z[1]},
                   s);
}

static void test_rmsnorm(OpsRig *rig, int64_t S, int C) {
    Case c;
    case_begin(&c, rig, "rmsnorm_fwd S=%lld C=%d", (long long)S, C);
    add_output(&c, "y", ACT, S * C, ROUNDED);
    add_output(&c, "rstd", F32, S, 1e-6, 0);
    add_input(&c, "x", ACT, S * C, 2);
    add_input(&c, "w", ACT, C, 1);
    c.z[0] = S, c.z[1] = C;
    c.bytes = S * 4 * C;
    case_run(&c, rmsnorm_fwd);
    static const char *const residual[] = {"", " +dres", " +dres in dx"};
    for (int r = 0; r < 3; r++) {
        bool write_y = r != 0;
        case_begin(&c, rig, "rmsnorm_bwd S=%lld C=%d%s%s", (long long)S, C, residual[r],
                   write_y ? " +y" : "");
        add_input(&c, "dx", ACT, S * C, 1), is_output(&c, ROUNDED);
        add_input(&c, "dw", F32, C, 1), is_output(&c, 1e-5, 1e-5);
        add_input(&c, "y", ACT, S * C, 1), is_output(&c, ROUNDED); /* left alone if not asked for */
        add_input(&c, "dy", ACT, S * C, 1);
        add_input(&c, "x", ACT, S * C, 2);
        add_input(&c, "w", ACT, C, 1);
        float *rstd = add_tensor(&c, "rstd", F32, S);
        for (int64_t s = 0; s < S; s++) rstd[s] = 0.3f + (float)s * 0.001f;
        add_input(&c, "dres", ACT, S * C, 1);
        c.z[0] = S, c.z[1] = C, c.z[2] = r, c.z[3] = write_y;
        c.bytes = S * 2 * C * (3 + (r != 0) + write_y);
        case_run(&c, rmsnorm_bwd);
    }
}

/* z: S N M variant; residual own or in y */
CALL(fwd) {
    const void *residual[] = {NULL, p[3], p[0]};
    linear_fwd(o, (Linear){z[0], z[1], z[2]}, p[0], p[1], p[2], residual[z[3]], s);
}
CALL(dgrad) {
    linear_dgrad(o, (Linear){z[0], z[1], z[2]}, p[0], p[1], p[2], s);
}
/* dx += dy w: c of a Matmul with operands as of linear_dgrad() */
CALL(dgrad_add) {
    Matmul m = {.m = z[0], .n = z[2], .k = z[1], .c = p[0], .d = p[0], .d_type = o->act_dtype};
    m.a = linear_input(o, p[1]);
    m.b = linear_input(o, p[2]);
    o->linear_dgrad(&m, s);
}
CALL(wgrad) {
    linear_wgrad(o, (Linear){z[0], z[1], z[2]}, p[0], p[1], p[2], s);
}

static void set_linear_sizes(Case *c, int64_t S, int64_t N, int64_t M, int variant) {
    c->z[0] = S, c->z[1] = N, c->z[2] = M, c->z[3] = variant;
}

/* Where d is also c, cuBLASLt may round the product to bf16 before it adds: one more rounding, of a
 * number that has no part in how small the sum is. */
static double linear_slack(bool in_place) {
    return in_place ? 5 * 0x1p-8 : 1e-4;
}

static void test_linear(OpsRig *rig, int64_t S, int64_t N, int64_t M) {
    static const char *const residual[] = {"", " +residual", " +residual in y"};
    long long s = S, n = N, m = M;
    Case c;
    for (int v = 0; v < 3; v++) {
        case_begin(&c, rig, "linear_fwd S=%lld N=%lld M=%lld%s", s, n, m, residual[v]);
        add_input(&c, "y", ACT, S * N, 1), is_output(&c, 0x1p-8 * 1.01, linear_slack(v == 2));
        add_input(&c, "x", ACT, S * M, 1);
        add_input(&c, "w", ACT, N * M, 0.1);
        add_input(&c, "residual", ACT, S * N, 1);
        set_linear_sizes(&c, S, N, M, v);
        case_run(&c, fwd);
    }
    for (int v = 0; v < 2; v++) {
        case_begin(&c, rig, "linear_dgrad S=%lld N=%lld M=%lld%s", s, n, m, v ? " +dx" : "");
        add_input(&c, "dx", ACT, S * M, 1), is_output(&c, 0x1p-8 * 1.01, linear_slack(v == 1));
        add_input(&c, "dy", ACT, S * N, 1);
        add_input(&c, "w", ACT, N * M, 0.1);
        set_linear_sizes(&c, S, N, M, v);
        case_run(&c, v ? dgrad_add : dgrad);
    }
    case_begin(&c, rig, "linear_wgrad S=%lld N=%lld M=%lld", s, n, m);
    add_input(&c, "dw", F32, N * M, 3), is_output(&c, 1e-5, 5e-5);
    add_input(&c, "dy", ACT, S * N, 1);
    add_input(&c, "x", ACT, S * M, 1);
    set_linear_sizes(&c, S, N, M, 0);
    case_run(&c, wgrad);
}

CALL(rope_fwd) {
    Rope rope = {p[3], p[4], z[0], (int)z[1], (int)z[2], (int)z[3]};
    o->rope_split_fwd(p[0], p[1], p[2], &rope, s);
}
CALL(rope_bwd) {
    Rope rope = {p[3], p[4], z[0], (int)z[1], (int)z[2], (int)z[3]};
    o->rope_split_bwd(p[0], NULL, p[1], p[2], &rope, s);
}

static void test_rope(OpsRig *rig, int64_t S, int H, int K, int D) {
    for (int backward = 0; backward < 2; backward++) {
        Case c;
        Kind kind = backward ? F32 : ACT;
        int64_t q = S * H * D, kv = S * 2 * K * D;
        case_begin(&c, rig, "rope_split_%s S=%lld H=%d K=%d D=%d", backward ? "bwd" : "fwd",
                   (long long)S, H, K, D);
        if (backward) add_output(&c, "dqkv", ACT, q + kv, ROUNDED);
        if (backward)
            add_input(&c, "q", kind, q, 1), add_input(&c, "kv", kind, kv, 1);
        else
            add_output(&c, "q", kind, q, ROUNDED), add_output(&c, "kv", kind, kv, ROUNDED);
        if (!backward) add_input(&c, "qkv", ACT, q + kv, 1);
        int32_t *positions = add_ints(&c, "positions", S, 131072);
        positions[S - 1] = 131071;
        float *inv_freq = add_tensor(&c, "inv_freq", F32, D / 2);
        for (int i = 0; i < D / 2; i++) inv_freq[i] = (float)pow(500000, -2.0 * i / D);
        c.z[0] = S, c.z[1] = H, c.z[2] = K, c.z[3] = D;
        c.bytes = (q + kv) * (backward ? 6 : 4);
        case_run(&c, backward ? rope_bwd : rope_fwd);
    }
}

CALL(swiglu_fwd) {
    o->swiglu_fwd(p[0], NULL, p[1], z[0], (int)z[1], s);
}
CALL(swiglu_bwd) {
    o->swiglu_bwd(z[2] ? p[3] : p[0], z[2] ? p[1] : NULL, NULL, p[2], p[3], z[0], (int)z[1], s);
}

static void test_swiglu(OpsRig *rig, int64_t S, int F) {
    Case c;
    case_begin(&c, rig, "swiglu_fwd S=%lld F=%d", (long long)S, F);
    add_output(&c, "h", ACT, S * F, ROUNDED);
    add_input(&c, "gate_up", ACT, S * 2 * F, 4);
    c.z[0] = S, c.z[1] = F;
    c.bytes = S * 6 * F;
    case_run(&c, swiglu_fwd);
    for (int in_place = 0; in_place < 2; in_place++) {
        case_begin(&c, rig, "swiglu_bwd S=%lld F=%d%s", (long long)S, F,
                   in_place ? " in place +h" : "");
        add_input(&c, "dgate_up", ACT, S * 2 * F, 1), is_output(&c, ROUNDED);
        add_input(&c, "h", ACT, S * F, 1), is_output(&c, ROUNDED);
        add_input(&c, "dh", ACT, S * F, 1);
        add_input(&c, "gate_up", ACT, S * 2 * F, 4);
        if (in_place) is_output(&c, ROUNDED);
        c.z[0] = S, c.z[1] = F, c.z[2] = in_place;
        c.bytes = S * F * (10 + 2 * in_place);
        case_run(&c, swiglu_bwd);
    }
}

CALL(cross_entropy) {
    o->cross_entropy(&(CrossEntropy){.loss = p[0],
                                     .logits = p[1],
                                     .labels = p[2],
                                     .weights = p[3],
                                     .z_loss = z[3] > 1 ? p[4] : NULL,
                                     .z_coef = 1e-3f,
                                     .grad = z[3] > 0,
                                     .S = z[0],
                                     .V = (int)z[1],
                                     .Vp = (int)z[2]},
                     s);
}

static void test_cross_entropy(OpsRig *rig, int64_t S, int V, int Vp, double scale) {
    static const char *const forms[] = {"", " grad", " z_loss"};
    for (int grad = 0; grad < 3; grad++) {
        Case c;
        case_begin(&c, rig, "cross_entropy%s S=%lld V=%d Vp=%d scale %g", forms[grad], (long long)S,
                   V, Vp, scale);
        add_output(&c, "loss", F32, S, 1e-5, 1e-5);
        float *x = add_input(&c, "logits", ACT, S * Vp, scale);
        if (grad) is_output(&c, 0x1p-8 * 1.01, 1e-6);
        int32_t *labels = add_ints(&c, "labels", S, V);
        float *weights = add_tensor(&c, "weights", F32, S);
        int64_t used = 0;
        for (int64_t s = 0; s < S; s++) {
            for (int i = V; i < Vp; i++) x[s * Vp + i] = 1000; /* padding has no part in it */
            weights[s] = s % 3 == 1 ? 0.0f : 0.5f + (float)(s % 3);
            labels[s] = s == 0 ? V - 1 : s == 2 ? 0 : labels[s];
            used += weights[s] != 0;
            if (weights[s] == 0) labels[s] = -1;
            if (weights[s] == 0) x[s * Vp] = INFINITY; /* an unused row may hold anything */
        }
        c.z[0] = S, c.z[1] = V, c.z[2] = Vp, c.z[3] = grad;
        if (grad == 2) add_output(&c, "z_loss", F32, S, 2e-5, 1e-5);
        c.bytes = 2 * Vp * (used + (grad ? S : 0));
        case_run(&c, cross_entropy);
    }
}

CALL(adamw) {
    const AdamwStep step = {.lr = 3e-3f,
                            .beta1 = 0.9f,
                            .beta2 = 0.95f,
                            .eps = 1e-8f,
                            .weight_decay = 0.1f,
                            .bias1 = 0.271f,
                            .bias2 = 0.142625f,
                            .grad_scale = 0.37f};
    o->adamw(p[0], p[1], p[2], p[3], p[4], &step, z[0], s);
}
CALL(cast_f32) {
    o->cast_f32(p[0], p[1], z[0], s);
}
CALL(add_f32) {
    o->add_f32(p[0], p[1], z[0], s);
}
CALL(widen) {
    o->widen(p[0], p[1], z[1], z[0], s);
}
CALL(sum_f32) {
    o->sum_f32(p[0], p[1], z[0], s);
}
CALL(sum_squares) {
    o->sum_squares(p[0], p[1], z[0], s);
}

CALL(checksum) {
    o->checksum(p[0], p[1], z[0], s);
}

static void test_flat(OpsRig *rig, int64_t n) {
    Case c;
    case_begin(&c, rig, "adamw n=%lld", (long long)n);
    add_input(&c, "master", F32, n, 1), is_output(&c, 1e-6, 1e-6);
    add_input(&c, "m", F32, n, 1), is_output(&c, 1e-6, 1e-6);
    float *v = add_input(&c, "v", F32, n, 1);
    is_output(&c, 1e-6, 1e-6);
    for (int64_t i = 0; i < n; i++) v[i] *= v[i];
    add_output(&c, "param", ACT, n, ROUNDED);
    add_input(&c, "grad", F32, n, 1);
    c.z[0] = n;
    c.bytes = n * 30;
    case_run(&c, adamw);
    case_begin(&c, rig, "cast_f32 n=%lld", (long long)n);
    add_output(&c, "dst", ACT, n, EXACT);
    add_input(&c, "src", F32, n, 1);
    c.z[0] = n;
    c.bytes = n * 6;
    case_run(&c, cast_f32);
    case_begin(&c, rig, "add_f32 n=%lld", (long long)n);
    add_input(&c, "dst", F32, n, 1), is_output(&c, EXACT);
    add_input(&c, "src", F32, n, 1);
    c.z[0] = n;
    c.bytes = n * 12;
    case_run(&c, add_f32);
    for (int adds = 0; adds < 2; adds++) {
        case_begin(&c, rig, "widen n=%lld add=%d", (long long)n, adds);
        add_input(&c, "dst", F32, n, 1), is_output(&c, EXACT);
        add_input(&c, "src", ACT, n, 1);
        c.z[0] = n, c.z[1] = adds;
        c.bytes = n * (adds ? 10 : 6);
        case_run(&c, widen);
    }
    for (int squares = 0; squares < 2; squares++) {
        case_begin(&c, rig, "%s n=%lld", squares ? "sum_squares" : "sum_f32", (long long)n);
        *(double *)add_tensor(&c, "out", F64, 1) = 0.25;
        is_output(&c, 1e-11, 1e-11);
        add_input(&c, "x", F32, n, 1);
        c.z[0] = n;
        c.bytes = n * 4;
        case_run(&c, squares ? sum_squares : sum_f32);
    }
    for (int64_t cut = 0; cut < 8 && cut <= 4 * n; cut += 3) {
        case_begin(&c, rig, "checksum of %lld bytes", (long long)(4 * n - cut));
        *(double *)add_tensor(&c, "out", F64, 1) = 0.25; /* 64 bits that are a number */
        is_output(&c, EXACT);
        add_input(&c, "x", F32, n, 1);
        c.z[0] = 4 * n - cut;
        c.bytes = c.z[0];
        case_run(&c, checksum);
    }
}

CALL(gather_rows) {
    o->gather_rows(p[0], p[1], p[2], z[0], z[1] * 4, s);
}
CALL(scatter_rows) {
    o->scatter_rows(p[0], p[1], p[2], z[0], z[1] * 4, s);
}
CALL(sum_rows) {
    o->sum_rows(p[0], p[1], p[2], p[3], p[4], z[0], z[1], s);
}

/* n of `rows` rows of `width` words */
static void test_rows(OpsRig *rig, int64_t n, int64_t rows, int64_t width) {
    static const struct {
        const char *name;
        Call *call;
    } ops[] = {{"gather_rows", gather_rows}, {"scatter_rows", scatter_rows}};
    for (int i = 0; i < 2; i++) {
        Case c;
        case_begin(&c, rig, "%s %lld of %lld x %lld", ops[i].name, (long long)n, (long long)rows,
                   (long long)width);
        add_input(&c, "dst", F32, (i == 0 ? n : rows) * width, 1), is_output(&c, EXACT);
        add_input(&c, "src", F32, (i == 0 ? rows : n) * width, 1);
        int32_t *index = add_tensor(&c, "index", I32, n);
        for (int64_t k = 0; k < n; k++)
            index[k] = (int32_t)rng_permute((uint64_t)rows, 5, 6, (uint64_t)k);
        c.z[0] = n, c.z[1] = width;
        c.bytes = n * 8 * width;
        case_run(&c, ops[i].call);
    }
    Case c;
    case_begin(&c, rig, "sum_rows %lld of %lld x %lld", (long long)n, (long long)rows,
               (long long)width);
    add_input(&c, "dst", F32, n * width, 1), is_output(&c, EXACT);
    add_input(&c, "base", F32, n * width, 1);
    add_input(&c, "src", F32, rows * width, 1);
    int32_t *begin = add_tensor(&c, "begin", I32, n + 1);
    int32_t *from = add_tensor(&c, "from", I32, 4 * n);
    for (int32_t i = 0; i < n; i++) {
        begin[i + 1] = begin[i] + i % 4;
        for (int32_t j = begin[i]; j < begin[i + 1]; j++)
            from[j] = (int32_t)((7 * i + 11 * j) % rows);
    }
    c.z[0] = n, c.z[1] = width;
    c.bytes = (2 * n + begin[n]) * 4 * width;
    case_run(&c, sum_rows);
}

/* What was uploaded may change at once, however far behind the stream is: more than the op keeps,
 * behind 200 copies of it all. */
static void test_upload(OpsRig *rig) {
    enum { BYTES = 12 << 20, LARGEST = 300000 };
    static const int64_t sizes[] = {4, 32768, 65536, 65537, LARGEST};
    if (strstr("mem_upload", rig->filter) == NULL) return;
    unsigned char *found = NEW(unsigned char, BYTES), *from = NEW(unsigned char, LARGEST);
    char *to, *other;
    EXPECT_OK(rig->ops->mem_alloc((void **)&to, BYTES, "uploads of the test"));
    EXPECT_OK(rig->ops->mem_alloc((void **)&other, BYTES, "uploads of the test"));
    rig->ops->mem_zero(to, BYTES, rig->stream);
    for (int i = 0; i < 200; i++) rig->ops->mem_copy(other, to, BYTES, rig->stream);
    for (int64_t at = 0, i = 0; at < BYTES; at += sizes[i++ % 5]) {
        int64_t n = i64_min(sizes[i % 5], BYTES - at);
        for (int64_t b = 0; b < n; b++) from[b] = (unsigned char)((at + b) % 251);
        rig->ops->mem_upload(to + at, from, n, rig->stream);
        memset(from, 0xff, (size_t)n);
    }
    rig->ops->mem_copy(found, to, BYTES, rig->stream);
    EXPECT_OK(rig->ops->stream_sync(rig->stream));
    int64_t wrong = 0;
    for (int64_t b = 0; b < BYTES; b++) wrong += found[b] != b % 251;
    printf("%-58s %lld bytes wrong\n", "mem_upload", (long long)wrong);
    *(wrong == 0 ? &rig->passed : &rig->failed) += 1;
    rig->ops->mem_free(to);
    rig->ops->mem_free(other);
    free(found);
    free(from);
}

static void test_all(OpsRig *rig) {
    test_upload(rig);

    static const int64_t sizes[] = {1, 7, 8, 255, 4096, 4099, 1000003};
    for (int i = 0; i < 7; i++) test_flat(rig, sizes[i]);
    test_rows(rig, 1, 1, 1);
    test_rows(rig, 5, 9, 3);
    test_rows(rig, 33, 64, 4);
    test_rows(rig, 700, 1000, 512);
    test_embedding(rig, 1, 1, 1);
    test_embedding(rig, 7, 3, 2);
    test_embedding(rig, 50, 8, 3);
    test_embedding(rig, 1000, 72, 5);
    test_embedding(rig, 300, 2048, 1000);
    test_embedding(rig, 2048, 16, 128256);
    static const int columns[] = {1, 7, 8, 33, 64, 200, 2048, 3072, 16392};
    for (int i = 0; i < 9; i++) test_rmsnorm(rig, 1 + 37 * (i % 8), columns[i]);
    /* Where shared memory ends that needs no attribute, and the widest model that is not refused */
    test_rmsnorm(rig, 3, 12257);
    test_rmsnorm(rig, 3, 12288);
    int64_t widest = (rig->ops->gpu->shared_bytes - GPU_RMSNORM_STATIC_BYTES) / 4;
    test_rmsnorm(rig, 3, (int)i64_min(widest, 65536));
    test_rope(rig, 1, 1, 1, 2);
    test_rope(rig, 5, 3, 1, 6);
    test_rope(rig, 9, 4, 2, 16);
    test_rope(rig, 33, 32, 8, 64);
    test_rope(rig, 17, 24, 8, 128);
    test_swiglu(rig, 1, 1);
    test_swiglu(rig, 5, 7);
    test_swiglu(rig, 9, 24);
    test_swiglu(rig, 33, 5440);
    test_cross_entropy(rig, 1, 2, 2, 1);
    test_cross_entropy(rig, 4, 7, 8, 1);
    test_cross_entropy(rig, 5, 129, 131, 3);
    test_cross_entropy(rig, 7, 1000, 1024, 1);
    test_cross_entropy(rig, 5, 50257, 50304, 30);
    test_cross_entropy(rig, 4, 128256, 128256, 4);
    test_cross_entropy(rig, 1100, 2049, 2056, 2); /* several rows for each SM */
    test_cross_entropy(rig, 600, 32000, 32000, 2);
    test_cross_entropy(rig, 300, 50257, 50304, 2);
    test_cross_entropy(rig, 300, 92544, 92544, 2);
    test_cross_entropy(rig, 300, 131071, 131072, 2);
    test_cross_entropy(rig, 5, 151936, 151936, 2); /* a row does not fit into an SM */
    test_linear(rig, 1, 1, 1);
    test_linear(rig, 3, 5, 7);
    test_linear(rig, 8, 16, 8);
    test_linear(rig, 33, 65, 17);
    test_linear(rig, 64, 128, 64);
    test_linear(rig, 129, 264, 200);
    test_linear(rig, 1, 2048, 256);
    test_linear(rig, 300, 1000, 1096);
    test_linear(rig, 512, 1024, 2048);
}

/* Ops bound by memory, at sizes that do not fit into a cache. Nobody fails for being slow: what is
 * far below the rate of a copy stands out. */
static void time_all(OpsRig *rig) {
    time_copies(rig);
    test_flat(rig, 1 << 25);
    test_rows(rig, 16384, 32768, 1024);
    test_embedding(rig, 32768, 2048, 50304);
    test_rmsnorm(rig, 32768, 2048);
    test_rope(rig, 32768, 32, 8, 64);
    test_swiglu(rig, 8192, 5440);
    test_cross_entropy(rig, 2048, 50257, 50304, 1);
    test_cross_entropy(rig, 2048, 32000, 32000, 1);
    test_cross_entropy(rig, 2048, 128256, 128256, 1);
}

int main(int argc, char **argv) {
    OpsRig rig = {.filter = argc > 1 ? argv[1] : ""};
    rig_open(&rig);
    printf("device %s\n", rig.ops->device_name);
    for (rig.shift = 0; rig.shift < 2; rig.shift++) test_all(&rig);
    printf("with the algorithms of matrix products chosen by time:\n");
    rig.table.deterministic = false; /* timing must leave outputs as they are */
    rig.shift = 0;
    test_linear(&rig, 33, 65, 17);
    test_linear(&rig, 512, 1024, 2048);
    time_all(&rig);
    rig_close(&rig);
    printf("%d passed, %d failed\n", rig.passed, rig.failed);
    return rig.failed != 0 || rig.passed == 0;
}
