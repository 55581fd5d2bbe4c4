/* linear.h: the three products of a linear layer y[S,N] = x[S,M] w[N,M]^T, weights as in Hugging
 * Face, in the activation type. */
#ifndef CRIA_OPS_LINEAR_H
#define CRIA_OPS_LINEAR_H

#include "ops/ops.h"

typedef struct {
    int64_t S, N, M;
} Linear;

static inline MatmulInput linear_input(const Ops *ops, const void *data) {
    return (MatmulInput){.data = data, .type = ops->act_dtype};
}

/* y[S,N] = x[S,M] w[N,M]^T (+ residual[S,N] when not NULL, which may be y) */
static inline void linear_fwd(const Ops *ops, Linear z, void *y, const void *x, const void *w,
                              const void *residual, Stream *stream) {
    Matmul p = {.m = z.S,
                .n = z.N,
                .k = z.M,
                .transpose_b = true,
                .a = linear_input(ops, x),
                .b = linear_input(ops, w),
                .c = residual,
                .d = y,
                .d_type = ops->act_dtype};
    ops->linear_fwd(&p, stream);
}

/* dx[S,M] = dy[S,N] w[N,M] */
static inline void linear_dgrad(const Ops *ops, Linear z, void *dx, const void *dy, const void *w,
                                Stream *stream) {
    Matmul p = {.m = z.S,
                .n = z.M,
                .k = z.N,
                .a = linear_input(ops, dy),
                .b = linear_input(ops, w),
                .d = dx,
                .d_type = ops->act_dtype};
    ops->linear_dgrad(&p, stream);
}

/* dw[N,M] += dy[S,N]^T x[S,M] in fp32 */
static inline void linear_wgrad(const Ops *ops, Linear z, float *dw, const void *dy, const void *x,
                                Stream *stream) {
    Matmul p = {.m = z.N,
                .n = z.M,
                .k = z.S,
                .transpose_a = true,
                .a = linear_input(ops, dy),
                .b = linear_input(ops, x),
                .c = dw,
                .d = dw,
                .d_type = DT_F32};
    ops->linear_wgrad(&p, stream);
}

/* ---- the same in FP8: sums in fp32, y and dx in the activation type ------------------------- */

/* A matrix in FP8, as the op fp8_cast makes it, or one of its two copies. */
typedef struct {
    void *rows, *columns; /* [R,C]; [C,round_up(R,FP8_UNIT)]; NULL: not there */
    float *scale;
    Dtype type;
} Fp8Matrix;

/* d[m,n] = a[m,k] b[n,k]^T, each the copy of its matrix whose rows are summed over. */
static inline Matmul linear_product_fp8(int64_t m, int64_t n, int64_t k, const void *a,
                                        const Fp8Matrix *of_a, const void *b,
                                        const Fp8Matrix *of_b) {
    return (Matmul){.m = m,
                    .n = n,
                    .k = k,
                    .transpose_b = true,
                    .a = {a, of_a->type, of_a->scale},
                    .b = {b, of_b->type, of_b->scale}};
}

/* y[S,N] = x[S,M] w[N,M]^T (+ residual[S,N]); x and w by rows. M is a multiple of FP8_UNIT. */
static inline void linear_fwd_fp8(const Ops *ops, Linear z, void *y, const Fp8Matrix *x,
                                  const Fp8Matrix *w, const void *residual, Stream *stream) {
    Matmul p = linear_product_fp8(z.S, z.N, z.M, x->rows, x, w->rows, w);
    p.c = residual, p.d = y, p.d_type = ops->act_dtype;
    ops->linear_fwd(&p, stream);
}

/* dx[S,M] = dy[S,N] w[N,M]; dy by rows, w by columns. N is a multiple of FP8_UNIT. */
static inline void linear_dgrad_fp8(const Ops *ops, Linear z, void *dx, const Fp8Matrix *dy,
                                    const Fp8Matrix *w, Stream *stream) {
    Matmul p = linear_product_fp8(z.S, z.M, z.N, dy->rows, dy, w->columns, w);
    p.d = dx, p.d_type = ops->act_dtype;
    ops->linear_dgrad(&p, stream);
}

/* dw[N,M] += dy[S,N]^T x[S,M] in fp32; dy and x by columns. */
static inline void linear_wgrad_fp8(const Ops *ops, Linear z, float *dw, const Fp8Matrix *dy,
                                    const Fp8Matrix *x, Stream *stream) {
    int64_t S = round_up(z.S, FP8_UNIT);
    Matmul p = linear_product_fp8(z.N, z.M, S, dy->columns, dy, x->columns, x);
    p.c = p.d = dw, p.d_type = DT_F32;
    ops->linear_wgrad(&p, stream);
}

#endif
