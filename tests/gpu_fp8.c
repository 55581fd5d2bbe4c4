/* gpu_fp8.c: the ops of FP8 against the CPU's, as gpu_ops.c: maxima and codes bit for bit, products
 * of the same codes within what sums may differ by; then the casts are timed against a copy.
 * `gpu_fp8 [WORD]` runs the cases whose name contains WORD. */
#include "gpu_ops_rig.h"
#include "ops/fp8.h"

CALL(absmax) {
    o->absmax(p[0], p[1], z[0], s);
}
static void test_absmax(OpsRig *rig, int64_t n) {
    Case c;
    case_begin(&c, rig, "absmax n=%lld", (long long)n);
    float *out = add_input(&c, "out", F32, 1, 1);
    is_output(&c, EXACT);
    *out = 0.5f;
    add_input(&c, "x", ACT, n, 3);
    c.z[0] = n;
    c.bytes = 2 * n;
    case_run(&c, absmax);
}

/* z: R C type; p: rows, columns, scale, counts, x, absmax */
CALL(fp8_cast) {
    Fp8Cast a = {.type = (Dtype)z[2],
                 .rows = p[0],
                 .columns = p[1],
                 .scale = p[2],
                 .counts = p[3],
                 .x = p[4],
                 .absmax = p[5],
                 .R = z[0],
                 .C = z[1]};
    o->fp8_cast(&a, s);
}

/* C is a multiple of 4, so that codes are whole words. spread: x has numbers from 1 down to
 * 2^-spread of the largest, so that the small ones are codes below the normal range, or zero. */
static void test_fp8_cast(OpsRig *rig, int64_t R, int64_t C, Dtype type, float spread) {
    Case c;
    case_begin(&c, rig, "fp8_cast %s R=%lld C=%lld spread %g", type == DT_F8_E4M3 ? "e4m3" : "e5m2",
               (long long)R, (long long)C, (double)spread);
    add_ints(&c, "rows", R * C / 4, INT32_MAX), is_output(&c, EXACT);
    add_ints(&c, "columns", round_up(R, FP8_UNIT) * C / 4, INT32_MAX), is_output(&c, EXACT);
    add_output(&c, "scale", F32, 1, EXACT);
    memset(add_ints(&c, "counts", sizeof(Fp8Counts) / 4, 1), 0, sizeof(Fp8Counts));
    is_output(&c, EXACT);
    float *x = add_input(&c, "x", ACT, R * C, 1), *absmax;
    for (int64_t i = 0; i < R * C; i++)
        x[i] = from_bf16(to_bf16(x[i] * exp2f(-spread * (float)(i % 7) / 7)));
    absmax = add_tensor(&c, "absmax", F32, 1);
    for (int64_t i = 0; i < R * C; i++) *absmax = fmaxf(*absmax, fabsf(x[i]));
    c.z[0] = R, c.z[1] = C, c.z[2] = type;
    c.bytes = 4 * R * C;
    case_run(&c, fp8_cast);
}

/* One of the three products: p: d, codes of a, scale of a, codes of b, scale of b; z: m n k, which,
 * types of a and b. d is bf16 for the first two, fp32 and added to for wgrad. */
CALL(fp8_product) {
    Matmul m = {.m = z[0], .n = z[1], .k = z[2], .transpose_b = true, .d = p[0]};
    m.a = (MatmulInput){p[1], (Dtype)z[4], p[2]};
    m.b = (MatmulInput){p[3], (Dtype)z[5], p[4]};
    m.d_type = z[3] == 2 ? DT_F32 : o->act_dtype;
    m.c = z[3] == 2 ? p[0] : NULL;
    if (z[3] == 0) o->linear_fwd(&m, s);
    if (z[3] == 1) o->linear_dgrad(&m, s);
    if (z[3] == 2) o->linear_wgrad(&m, s);
}

/* n codes of finite numbers */
static void add_codes(Case *c, const char *name, int64_t n, Dtype type) {
    uint8_t *code = (uint8_t *)add_ints(c, name, n / 4, INT32_MAX);
    for (int64_t i = 0; i < n; i++)
        code[i] = fp8_from_float(random_normal((uint64_t)c->n, i), type);
}

static void test_fp8_products(OpsRig *rig, int64_t m, int64_t n, int64_t k) {
    static const char *const names[] = {"fwd", "dgrad", "wgrad"};
    for (int e5m2 = 0; e5m2 < 2; e5m2++) {
        for (int which = e5m2; which < 3; which++) {
            Dtype type = e5m2 ? DT_F8_E5M2 : DT_F8_E4M3;
            Case c;
            case_begin(&c, rig, "fp8 linear_%s %s m=%lld n=%lld k=%lld", names[which],
                       e5m2 ? "e5m2" : "e4m3", (long long)m, (long long)n, (long long)k);
            add_input(&c, "d", which == 2 ? F32 : ACT, m * n, 1);
            /* Hopper's tensor cores align the products of an instruction to the largest and keep
             * some 13 bits of them; with fast accumulation of a whole sum, which the forward has.
             */
            is_output(&c, which == 2 ? 1e-3 : 0x1p-7, which == 0 ? 8e-3 : 2e-3);
            add_codes(&c, "a", m * k, type);
            *(float *)add_tensor(&c, "scale of a", F32, 1) = 0.37f;
            add_codes(&c, "b", n * k, DT_F8_E4M3);
            *(float *)add_tensor(&c, "scale of b", F32, 1) = 0.011f;
            c.z[0] = m, c.z[1] = n, c.z[2] = k, c.z[3] = which, c.z[4] = type, c.z[5] = DT_F8_E4M3;
            case_run(&c, fp8_product);
        }
    }
}

/* Ops that give the absolute maximum of what they write: p: it by the op, it by absmax, the output,
 * inputs; z: rows, sizes. */
CALL(norm_fwd) {
    o->rmsnorm_fwd(p[2], NULL, p[0], p[3], p[4], z[0], (int)z[1], 1e-5f, s);
    o->absmax(p[1], p[2], z[0] * z[1], s);
}
CALL(norm_bwd) {
    RmsnormBwd a = {.dx = p[2], .absmax = p[0], .dw = p[5], .dy = p[3], .x = p[3], .w = p[4]};
    a.rstd = p[6], a.dres = p[2], a.S = z[0], a.C = (int)z[1];
    o->rmsnorm_bwd(&a, s);
    o->absmax(p[1], p[2], z[0] * z[1], s);
}
CALL(gate_fwd) {
    o->swiglu_fwd(p[2], p[0], p[3], z[0], (int)z[1] / 2, s);
    o->absmax(p[1], p[2], z[0] * (z[1] / 2), s);
}
CALL(gate_bwd) {
    o->swiglu_bwd(p[2], NULL, p[0], p[3], p[2], z[0], (int)z[1] / 2, s);
    o->absmax(p[1], p[2], z[0] * (z[1] / 2) * 2, s);
}
CALL(rotate_bwd) {
    Rope rope = {p[7], p[6], z[0], 4, 2, (int)z[1] / 8};
    o->rope_split_bwd(p[2], p[0], p[5], p[5], &rope, s);
    o->absmax(p[1], p[2], z[0] * (z[1] / 8) * 8, s);
}

static void test_absmax_of(OpsRig *rig, const char *name, Call *call, int64_t S, int64_t C,
                           int64_t large) {
    Case c;
    case_begin(&c, rig, "absmax of %s S=%lld C=%lld", name, (long long)S, (long long)C);
    if (strstr(c.name, rig->filter) == NULL) return;
    *(float *)add_tensor(&c, "by the op", F32, 1) = 0.125f;
    *(float *)add_tensor(&c, "by absmax", F32, 1) = 0.125f;
    add_input(&c, "output", ACT, S * C, 1);
    add_input(&c, "input", ACT, S * C, 1)[large] = -77;
    add_input(&c, "weight", ACT, C, 1);
    add_input(&c, "gradients", F32, i64_max(C, S * C), 1)[large] = 88;
    add_input(&c, "one a row", F32, i64_max(S, C), 1);
    add_ints(&c, "positions", S, 1000);
    c.z[0] = S, c.z[1] = C;
    int64_t bytes = lay_out(&c);
    unsigned char *before = make_image(&c, bytes), *after = NEW(unsigned char, bytes);
    run_on_gpu(&c, call, before, after, bytes);
    double by_op = value(&c.t[0], after + c.t[0].offset, 0);
    double by_absmax = value(&c.t[1], after + c.t[1].offset, 0);
    bool good = by_op == by_absmax && by_op > 0.125;
    printf("%-58s %s  %g, absmax gives %g\n", c.name, good ? "ok  " : "FAIL", by_op, by_absmax);
    *(good ? &rig->passed : &rig->failed) += 1;
    for (int i = 0; i < c.n; i++) free(c.t[i].cpu);
    free(before);
    free(after);
}

static void test_absmax_of_ops(OpsRig *rig) {
    static const int64_t sizes[][2] = {{1, 16}, {5, 56}, {333, 2048}, {64, 10880}};
    for (int i = 0; i < 4; i++) {
        int64_t S = sizes[i][0], C = sizes[i][1];
        int64_t places[] = {0, S * C - 1};
        for (int k = 0; k < 2; k++) {
            test_absmax_of(rig, "rmsnorm_fwd", norm_fwd, S, C, places[k]);
            test_absmax_of(rig, "rmsnorm_bwd", norm_bwd, S, C, places[k]);
            test_absmax_of(rig, "swiglu_fwd", gate_fwd, S, C, places[k]);
            test_absmax_of(rig, "swiglu_bwd", gate_bwd, S, C, places[k]);
            test_absmax_of(rig, "rope_split_bwd", rotate_bwd, S, C, places[k]);
        }
    }
}

static void test_casts(OpsRig *rig) {
    for (int type = DT_F8_E4M3; type <= DT_F8_E5M2; type++) {
        test_fp8_cast(rig, 1, 16, (Dtype)type, 0);
        test_fp8_cast(rig, 17, 20, (Dtype)type, 12);
        test_fp8_cast(rig, 64, 128, (Dtype)type, 24);
        test_fp8_cast(rig, 200, 3072, (Dtype)type, 30);
        test_fp8_cast(rig, 333, 5440, (Dtype)type, 40);
    }
}

static void test_products(OpsRig *rig) {
    test_fp8_products(rig, 16, 16, 16);
    test_fp8_products(rig, 48, 64, 128);
    test_fp8_products(rig, 512, 1024, 2048);
    test_fp8_products(rig, 1000, 5440, 496);
}

int main(int argc, char **argv) {
    OpsRig rig = {.filter = argc > 1 ? argv[1] : ""};
    rig_open(&rig);
    printf("device %s\n", rig.ops->device_name);
    for (rig.shift = 0; rig.shift < 2; rig.shift++)
        for (int64_t n = 1; n < 2000000; n = 7 * n + 3) test_absmax(&rig, n);
    for (rig.shift = 0; rig.shift < 2; rig.shift++) test_absmax_of_ops(&rig);
    rig.shift = 0;
    test_casts(&rig);
    if (rig.ops->gpu->capability >= GPU_FP8_CAPABILITY) {
        test_products(&rig);
        printf("with the algorithms of matrix products chosen by time:\n");
        rig.table.deterministic = false;
        test_products(&rig);
    }
    time_copies(&rig);
    test_absmax(&rig, 8192 * 5440);
    test_fp8_cast(&rig, 8192, 2048, DT_F8_E4M3, 0);
    test_fp8_cast(&rig, 8192, 5440, DT_F8_E5M2, 0);
    rig_close(&rig);
    printf("%d passed, %d failed\n", rig.passed, rig.failed);
    return rig.failed != 0 || rig.passed == 0;
}
