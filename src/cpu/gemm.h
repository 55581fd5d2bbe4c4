/* gemm.h: the packed matrix product under linear.c and attention.c. One micro-kernel, two packers;
 * blocking over the caller's matrices, and threads, are the caller's.
 * Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008. */
#ifndef CRIA_CPU_GEMM_H
#define CRIA_CPU_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/* The micro-tile: 6 x 16 fp32 sums fill 12 of the 16 AVX2 registers. */
enum { GEMM_ROWS = 6, GEMM_COLS = 16 };

/* One factor of C[i,j] = sum_k A[i,k] B[k,j]. A line is a row of A or a column of B: element k of
 * line i is at[i * ld + k] when k_contiguous, else at[k * ld + i]. */
typedef struct {
    const float *at;
    int64_t ld;
    bool k_contiguous;
} GemmFactor;

static inline GemmFactor gemm_factor_at(GemmFactor f, int64_t line, int64_t k) {
    f.at += f.k_contiguous ? line * f.ld + k : k * f.ld + line;
    return f;
}

/* Packs `lines` lines of k elements as panels of GEMM_ROWS lines (A) or GEMM_COLS lines (B), each
 * panel [k][width], the last one filled up with zeros: round_up(lines, width) * k floats. */
void gemm_pack_a(float *packed, GemmFactor a, int64_t lines, int64_t k);
void gemm_pack_b(float *packed, GemmFactor b, int64_t lines, int64_t k);

/* c[m,n] = A B + add from packed factors; rows of c and add are ldc apart; add may be NULL or c. */
void gemm_packed(float *c, const float *add, int64_t ldc, const float *a, const float *b, int64_t m,
                 int64_t n, int64_t k);

#endif
