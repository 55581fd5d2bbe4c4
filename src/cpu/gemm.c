#include "cpu/gemm.h"

#include <stddef.h>

#include "base/base.h"
#include "cpu/cpu.h"

/* Vector types of the compiler, not intrinsics: the same text becomes AVX2, SSE2 or NEON. Aligned
 * to one float because the caller's matrices are; may_alias, as the memory holds floats. */
typedef float Vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Vec8 __attribute__((vector_size(32), aligned(4), may_alias));

#define SHUFFLE __builtin_shufflevector

/* to[k][line] = from[line][k] for a 4 x 4 block */
ALWAYS_INLINE void transpose_4x4(float *to, int64_t to_ld, const float *from, int64_t from_ld) {
    Vec4 a = *(const Vec4 *)from, b = *(const Vec4 *)(from + from_ld);
    Vec4 c = *(const Vec4 *)(from + 2 * from_ld), d = *(const Vec4 *)(from + 3 * from_ld);
    Vec4 ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    *(Vec4 *)to = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(Vec4 *)(to + to_ld) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    ab = SHUFFLE(a, b, 2, 6, 3, 7), cd = SHUFFLE(c, d, 2, 6, 3, 7);
    *(Vec4 *)(to + 2 * to_ld) = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(Vec4 *)(to + 3 * to_ld) = SHUFFLE(ab, cd, 2, 3, 6, 7);
}

ALWAYS_INLINE void pack_panel(float *packed, GemmFactor f, int64_t lines, int64_t k, int width) {
    int64_t line = 0;
    if (f.k_contiguous) {
        for (; line + 4 <= lines; line += 4) {
            const float *from = f.at + line * f.ld;
            int64_t p = 0;
            for (; p + 4 <= k; p += 4)
                transpose_4x4(packed + p * width + line, width, from + p, f.ld);
            for (; p < k; p++) {
                for (int i = 0; i < 4; i++) packed[p * width + line + i] = from[i * f.ld + p];
            }
        }
        for (; line < lines; line++) {
            for (int64_t p = 0; p < k; p++) packed[p * width + line] = f.at[line * f.ld + p];
        }
    } else if (lines == width) { /* the constant width makes this a few vector moves */
        for (int64_t p = 0; p < k; p++) {
            for (int i = 0; i < width; i++) packed[p * width + i] = f.at[p * f.ld + i];
        }
    } else {
        for (int64_t p = 0; p < k; p++) {
            for (int64_t i = 0; i < lines; i++) packed[p * width + i] = f.at[p * f.ld + i];
        }
    }
    for (line = lines; line < width; line++) {
        for (int64_t p = 0; p < k; p++) packed[p * width + line] = 0;
    }
}

ALWAYS_INLINE void pack(float *packed, GemmFactor f, int64_t lines, int64_t k, int width) {
    for (int64_t line = 0; line < lines; line += width) {
        pack_panel(packed + line * k, gemm_factor_at(f, line, 0), i64_min(lines - line, width), k,
                   width);
    }
}

void gemm_pack_a(float *packed, GemmFactor a, int64_t lines, int64_t k) {
    pack(packed, a, lines, k, GEMM_ROWS);
}

void gemm_pack_b(float *packed, GemmFactor b, int64_t lines, int64_t k) {
    pack(packed, b, lines, k, GEMM_COLS);
}

#if defined(__x86_64__)
#define GEMM_TARGET     __attribute__((target("avx2,fma")))
#define GEMM_NAME(part) part##_avx2
#include "cpu/gemm_tile.h"
#undef GEMM_TARGET
#undef GEMM_NAME
#endif

#define GEMM_TARGET
#define GEMM_NAME(part) part##_any
#include "cpu/gemm_tile.h"

void gemm_packed(float *c, const float *add, int64_t ldc, const float *a, const float *b, int64_t m,
                 int64_t n, int64_t k) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        tile_avx2(c, add, ldc, a, b, m, n, k);
        return;
    }
#endif
    tile_any(c, add, ldc, a, b, m, n, k);
}
