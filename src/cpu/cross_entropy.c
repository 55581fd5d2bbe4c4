#include <math.h>

#include "cpu/cpu.h"

/* -log softmax(x)[label], the maximum taken out first; x becomes weight (softmax - onehot) if grad
 */
static CPU_CLONES float one_row(float *x, int32_t label, float weight, bool grad, int V) {
    float max = cpu_max(x, V);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < V; i++) sum += (double)cpu_expf(x[i] - max);
    float loss = (float)(log(sum) + (double)max - (double)x[label]);
    if (grad) {
        float scale = (float)((double)weight / sum);
        for (int i = 0; i < V; i++) x[i] = cpu_expf(x[i] - max) * scale;
        x[label] -= weight;
    }
    return loss;
}

void cpu_cross_entropy(float *loss, void *logits, const int32_t *labels, const float *weights,
                       bool grad, int64_t S, int V, int Vp, Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < S; s++) {
        float *x = (float *)logits + s * Vp;
        bool used = weights[s] != 0; /* an unused row may hold anything, as may its label */
        loss[s] = used ? weights[s] * one_row(x, labels[s], weights[s], grad, V) : 0;
        int kept = used ? V : 0;
        if (grad) memset(x + kept, 0, (size_t)(Vp - kept) * sizeof(float));
    }
}
