#include <math.h>

#include "cpu/cpu.h"

enum { CHUNK = 4096 };

/* Decay is decoupled from the gradient. param may be master: `omp simd` says that this is safe. */
static CPU_CLONES void update(float *master, float *m, float *v, float *param, const float *grad,
                              AdamwStep a, int64_t n) {
    float inv_bias1 = 1 / a.bias1, inv_bias2 = 1 / a.bias2;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * a.grad_scale;
        m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
        v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
        float step = m[i] * inv_bias1 / (sqrtf(v[i] * inv_bias2) + a.eps);
        float x = master[i] - a.lr * (step + a.weight_decay * master[i]);
        master[i] = x;
        param[i] = x;
    }
}

void cpu_adamw(float *master, float *m, float *v, void *param, const float *grad,
               const AdamwStep *step, int64_t n, Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += CHUNK) {
        update(master + i, m + i, v + i, (float *)param + i, grad + i, *step,
               i64_min(n - i, CHUNK));
    }
}
