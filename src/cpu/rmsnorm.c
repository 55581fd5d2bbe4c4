#include <math.h>

#include "cpu/cpu.h"

enum { COLUMNS = 64 }; /* of dw summed at a time, their fp64 sums in L1 */

/* Also what the backward writes again, hence one expression for both: the same bits. */
ALWAYS_INLINE void write_row(float *y, const float *x, const float *w, float rstd, int C) {
    for (int c = 0; c < C; c++) y[c] = x[c] * rstd * w[c];
}

static CPU_CLONES float forward_row(float *y, const float *x, const float *w, int C, float eps) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < C; c++) sum += (double)x[c] * (double)x[c];
    float rstd = (float)(1 / sqrt(sum / C + (double)eps));
    write_row(y, x, w, rstd, C);
    return rstd;
}

void cpu_rmsnorm_fwd(void *y, float *rstd, float *absmax, const void *x, const void *w, int64_t S,
                     int C, float eps, Stream *stream) {
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < S; s++) {
        float r = forward_row((float *)y + s * C, (const float *)x + s * C, w, C, eps);
        if (rstd != NULL) rstd[s] = r;
    }
    if (absmax != NULL) cpu_absmax(absmax, y, S * C, stream);
}

/* With n = x rstd: dx = dres + rstd (w dy - n mean(w dy n)). dres may be dx: each element is read
 * before it is written, which is all that `omp simd` needs to hold. */
static CPU_CLONES void backward_row(float *dx, const float *dy, const float *x, const float *w,
                                    float rstd, const float *dres, int C) {
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int c = 0; c < C; c++) dot += (double)(w[c] * dy[c]) * (double)x[c];
    float slope = (float)(dot * (double)rstd * (double)rstd / C);
    if (dres != NULL) {
#pragma omp simd
        for (int c = 0; c < C; c++) dx[c] = dres[c] + rstd * (w[c] * dy[c] - x[c] * slope);
    } else {
        for (int c = 0; c < C; c++) dx[c] = rstd * (w[c] * dy[c] - x[c] * slope);
    }
}

static CPU_CLONES void add_dw(float *dw, const float *dy, const float *x, const float *rstd,
                              int64_t S, int C, int columns) {
    double sum[COLUMNS] = {0};
    for (int64_t s = 0; s < S; s++) {
        for (int c = 0; c < columns; c++) {
            sum[c] += (double)(dy[s * C + c] * (x[s * C + c] * rstd[s]));
        }
    }
    for (int c = 0; c < columns; c++) dw[c] += (float)sum[c];
}

void cpu_rmsnorm_bwd(const RmsnormBwd *a, Stream *stream) {
    const float *dy = a->dy, *x = a->x, *dres = a->dres;
    int C = a->C;
#pragma omp parallel for schedule(static)
    for (int c = 0; c < C; c += COLUMNS) {
        add_dw(a->dw + c, dy + c, x + c, a->rstd, a->S, C, (int)i64_min(C - c, COLUMNS));
    }
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < a->S; s++) {
        int64_t at = s * C;
        backward_row((float *)a->dx + at, dy + at, x + at, a->w, a->rstd[s],
                     dres != NULL ? dres + at : NULL, C);
        if (a->y != NULL) write_row((float *)a->y + at, x + at, a->w, a->rstd[s], C);
    }
    if (a->absmax != NULL) cpu_absmax(a->absmax, a->dx, a->S * C, stream);
}
