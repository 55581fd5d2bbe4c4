#include <math.h>

#include "cpu/cpu.h"

/* -log softmax(x)[label], the maximum taken out first, and lse(x); x becomes
 * weight (softmax (1 + 2 z_coef lse) - onehot) if grad */
static CPU_CLONES float one_row(float *x, int32_t label, float weight, float z_coef, bool grad,
                                int V, double *lse) {
    float max = cpu_max(x, V);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < V; i++) sum += (double)cpu_expf(x[i] - max);
    float loss = (float)(log(sum) + (double)max - (double)x[label]);
    *lse = log(sum) + (double)max;
    if (grad) {
        double softmax_weight = (double)weight * (1 + 2 * (double)z_coef * *lse);
        float scale = (float)(softmax_weight / sum);
        for (int i = 0; i < V; i++) x[i] = cpu_expf(x[i] - max) * scale;
        x[label] -= weight;
    }
    return loss;
}

void cpu_cross_entropy(const CrossEntropy *a, Stream *stream) {
    (void)stream;
    REQUIRE(a->z_loss == NULL || a->grad);
    float z_coef = a->z_loss != NULL ? a->z_coef : 0;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < a->S; s++) {
        float *x = (float *)a->logits + s * a->Vp, w = a->weights[s];
        double lse = 0;
        bool used = w != 0; /* an unused row may hold anything, as may its label */
        a->loss[s] = used ? w * one_row(x, a->labels[s], w, z_coef, a->grad, a->V, &lse) : 0;
        if (a->z_loss != NULL) a->z_loss[s] = (float)((double)w * (double)z_coef * lse * lse);
        int kept = used ? a->V : 0;
        if (a->grad) memset(x + kept, 0, (size_t)(a->Vp - kept) * sizeof(float));
    }
}
