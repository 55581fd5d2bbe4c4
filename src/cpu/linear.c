/* linear.c: y = x w^T and its two gradients, three forms of one blocked product.
 * 2 S N M FLOPs each. Blocks: KC deep panels so that one of b (KC x 16 floats, 16 KiB) fits L1, and
 * a tile's rows of a (TILE_M x KC, 96 KiB) fit L2; the packed blocks of both factors are shared by
 * the threads, which split the tiles of the output. Every output element sums k in one fixed order,
 * so the result does not depend on the number of threads. */
#include <stdlib.h>

#include "cpu/cpu.h"
#include "cpu/gemm.h"
#include "ops/fp8.h"

enum {
    KC = 256,
    MC = 160 * GEMM_ROWS, /* packed rows of a: 960 KiB */
    NC = 2048,            /* packed columns of b: 2 MiB */
    TILE_M = 16 * GEMM_ROWS,
    TILE_N = 16 * GEMM_COLS,
};

/* c[m,n] = a b + add, rows contiguous; add may be NULL or alias c */
static void gemm(float *c, const float *add, GemmFactor a, GemmFactor b, int64_t m, int64_t n,
                 int64_t k) {
    int64_t depth = i64_min(k, KC);
    float *pa = cpu_scratch(round_up(i64_min(m, MC), GEMM_ROWS) * depth);
    float *pb = cpu_scratch(round_up(i64_min(n, NC), GEMM_COLS) * depth);
#pragma omp parallel
    for (int64_t j0 = 0; j0 < n; j0 += NC) {
        int64_t nc = i64_min(n - j0, NC);
        for (int64_t p = 0; p == 0 || p < k; p += KC) {
            int64_t kc = i64_min(k - p, KC);
#pragma omp for schedule(static) nowait /* the barrier after packing a is one for both */
            for (int64_t j = 0; j < nc; j += GEMM_COLS) {
                gemm_pack_b(pb + j * kc, gemm_factor_at(b, j0 + j, p), i64_min(nc - j, GEMM_COLS),
                            kc);
            }
            for (int64_t i0 = 0; i0 < m; i0 += MC) {
                int64_t mc = i64_min(m - i0, MC);
#pragma omp for schedule(static)
                for (int64_t i = 0; i < mc; i += GEMM_ROWS) {
                    gemm_pack_a(pa + i * kc, gemm_factor_at(a, i0 + i, p),
                                i64_min(mc - i, GEMM_ROWS), kc);
                }
#pragma omp for schedule(static) collapse(2)
                for (int64_t i = 0; i < mc; i += TILE_M) {
                    for (int64_t j = 0; j < nc; j += TILE_N) {
                        int64_t at = (i0 + i) * n + j0 + j;
                        const float *start = p > 0 ? c + at : add != NULL ? add + at : NULL;
                        gemm_packed(c + at, start, n, pa + i * kc, pb + j * kc,
                                    i64_min(mc - i, TILE_M), i64_min(nc - j, TILE_N), kc);
                    }
                }
            }
        }
    }
    free(pa);
    free(pb);
}

static bool is_plain(MatmulInput x) {
    return x.type == DT_F32 && x.scale == NULL;
}

static float *widen_fp8(MatmulInput x, int64_t n) {
    float table[256], *wide = cpu_scratch(n);
    const uint8_t *codes = x.data;
    for (int i = 0; i < 256; i++) table[i] = fp8_to_float((uint8_t)i, x.type);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) wide[i] = table[codes[i]];
    return wide;
}

/* d = a.scale b.scale (a b) + c, the product of the 8-bit values summed in fp32: as cuBLASLt */
static void matmul_fp8(const Matmul *p) {
    REQUIRE(dtype_is_fp8(p->a.type) && dtype_is_fp8(p->b.type) && p->d_type == DT_F32);
    REQUIRE(!p->transpose_a && p->transpose_b && p->k % FP8_UNIT == 0);
    float *a = widen_fp8(p->a, p->m * p->k), *b = widen_fp8(p->b, p->n * p->k);
    float *product = cpu_scratch(p->m * p->n), *d = p->d, scale = *p->a.scale * *p->b.scale;
    const float *c = p->c;
    gemm(product, NULL, (GemmFactor){a, p->k, true}, (GemmFactor){b, p->k, true}, p->m, p->n, p->k);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < p->m * p->n; i++) d[i] = scale * product[i] + (c != NULL ? c[i] : 0);
    free(a);
    free(b);
    free(product);
}

static void matmul(const Matmul *p) {
    if (dtype_is_fp8(p->a.type)) {
        matmul_fp8(p);
        return;
    }
    REQUIRE(is_plain(p->a) && is_plain(p->b) && p->d_type == DT_F32);
    GemmFactor a = {p->a.data, p->transpose_a ? p->m : p->k, !p->transpose_a};
    GemmFactor b = {p->b.data, p->transpose_b ? p->k : p->n, p->transpose_b};
    gemm(p->d, p->c, a, b, p->m, p->n, p->k);
}

void cpu_linear_fwd(const Matmul *p, Stream *stream) {
    (void)stream;
    matmul(p);
}

void cpu_linear_dgrad(const Matmul *p, Stream *stream) {
    (void)stream;
    matmul(p);
}

void cpu_linear_wgrad(const Matmul *p, Stream *stream) {
    (void)stream;
    matmul(p);
}
