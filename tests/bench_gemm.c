/* bench_gemm.c: GFLOP/s of the three linear ops on one thread or more (OMP_NUM_THREADS), next to
 * OpenBLAS when built with -DWITH_OPENBLAS -lopenblas (set OPENBLAS_NUM_THREADS likewise). */
#include <stdio.h>
#include <stdlib.h>

#ifdef WITH_OPENBLAS
#include <cblas.h>
#endif

#include "cpu/cpu.h"
#include "ops/linear.h"
#include "base/rng.h"

typedef enum { FWD, DGRAD, WGRAD, N_FORMS } Form;

typedef struct {
    float *x, *w, *y; /* [S,M], [N,M], [S,N] */
    int64_t S, N, M;
} Problem;

static void run_ours(Form form, const Problem *p) {
    Linear z = {p->S, p->N, p->M};
    if (form == FWD) linear_fwd(cpu_ops(), z, p->y, p->x, p->w, NULL, NULL);
    if (form == DGRAD) linear_dgrad(cpu_ops(), z, p->x, p->y, p->w, NULL);
    if (form == WGRAD) linear_wgrad(cpu_ops(), z, p->w, p->y, p->x, NULL);
}

#ifdef WITH_OPENBLAS
static void run_blas(Form form, const Problem *p) {
    int S = (int)p->S, N = (int)p->N, M = (int)p->M;
    if (form == FWD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, S, N, M, 1, p->x, M, p->w, M, 0, p->y,
                    N);
    if (form == DGRAD)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, S, M, N, 1, p->y, N, p->w, M, 0,
                    p->x, M);
    if (form == WGRAD)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, N, M, S, 1, p->y, N, p->x, M, 1, p->w,
                    M);
}
#endif

static void fill(float *x, int64_t n, uint64_t which) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = 1e-3f * (float)rng_normal(1, rng_stream(RNG_TEST, which), (uint64_t)i);
    }
}

/* The best of several runs: other processes can only slow one down. */
static double best_gflops(void (*op)(Form, const Problem *), Form form, const Problem *p) {
    double best = 1e30, flops = 2.0 * (double)(p->S * p->N * p->M);
    int runs = 3 + (int)(1e9 / flops);
    for (int i = 0; i < runs; i++) {
        double start = time_now();
        op(form, p);
        double seconds = time_now() - start;
        if (seconds < best) best = seconds;
    }
    return flops / best / 1e9;
}

int main(void) {
    static const int sides[][2] = {{512, 256}, {256, 256}, {1536, 256}, {256, 768}, {4096, 256}};
    static const char *const names[N_FORMS] = {"fwd", "dgrad", "wgrad"};
    printf("    S     N     M  form   GFLOP/s  OpenBLAS  ratio\n");
    for (int64_t S = 512; S <= 1024; S *= 2) {
        for (int i = 0; i < 5; i++) {
            Problem p = {.S = S, .N = sides[i][0], .M = sides[i][1]};
            p.x = cpu_scratch(S * p.M);
            p.w = cpu_scratch(p.N * p.M);
            p.y = cpu_scratch(S * p.N);
            fill(p.x, S * p.M, 1);
            fill(p.w, p.N * p.M, 2);
            fill(p.y, S * p.N, 3);
            for (Form f = FWD; f < N_FORMS; f++) {
                double ours = best_gflops(run_ours, f, &p);
                printf("%5d %5d %5d  %-5s  %7.1f", (int)S, (int)p.N, (int)p.M, names[f], ours);
#ifdef WITH_OPENBLAS
                double blas = best_gflops(run_blas, f, &p);
                printf("   %7.1f  %5.2f", blas, ours / blas);
#endif
                printf("\n");
            }
            free(p.x);
            free(p.w);
            free(p.y);
        }
    }
    return 0;
}
