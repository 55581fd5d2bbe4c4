/* gemm_tile.h: the body of gemm_packed(), which gemm.c includes once per instruction set with
 * GEMM_TARGET and GEMM_NAME set: vector types are lowered for the target a function is declared
 * with, before target_clones would make its copies. No include guard, on purpose. */

/* Per k: 2 loads of b and 6 broadcasts of a feed 12 multiply-adds, whose sums stay in registers. */
GEMM_TARGET static inline void GEMM_NAME(micro)(float *c, const float *add, int64_t ldc,
                                                const float *a, const float *b, int64_t k) {
    Vec8 sum[GEMM_ROWS][2] = {0};
    for (int64_t p = 0; p < k; p++, a += GEMM_ROWS, b += GEMM_COLS) {
        Vec8 b0 = *(const Vec8 *)b, b1 = *(const Vec8 *)(b + 8);
#pragma GCC unroll 6
        for (int i = 0; i < GEMM_ROWS; i++) {
            sum[i][0] += a[i] * b0;
            sum[i][1] += a[i] * b1;
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < GEMM_ROWS; i++) {
        for (int j = 0; j < 2; j++) {
            if (add != NULL) sum[i][j] += *(const Vec8 *)(add + i * ldc + 8 * j);
            *(Vec8 *)(c + i * ldc + 8 * j) = sum[i][j];
        }
    }
}

/* A panel of b stays in the first-level cache while the panels of a pass by it. */
GEMM_TARGET static void GEMM_NAME(tile)(float *c, const float *add, int64_t ldc, const float *a,
                                        const float *b, int64_t m, int64_t n, int64_t k) {
    for (int64_t j = 0; j < n; j += GEMM_COLS) {
        for (int64_t i = 0; i < m; i += GEMM_ROWS) {
            int64_t at = i * ldc + j, rows = i64_min(m - i, GEMM_ROWS);
            int64_t cols = i64_min(n - j, GEMM_COLS);
            if (rows == GEMM_ROWS && cols == GEMM_COLS) {
                GEMM_NAME(micro)
                (c + at, add != NULL ? add + at : NULL, ldc, a + i * k, b + j * k, k);
                continue;
            }
            float edge[GEMM_ROWS * GEMM_COLS];
            GEMM_NAME(micro)(edge, NULL, GEMM_COLS, a + i * k, b + j * k, k);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t q = 0; q < cols; q++) {
                    float old = add != NULL ? add[at + r * ldc + q] : 0;
                    c[at + r * ldc + q] = edge[r * GEMM_COLS + q] + old;
                }
            }
        }
    }
}
