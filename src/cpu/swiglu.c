#include "cpu/cpu.h"

ALWAYS_INLINE float sigmoid(float x) {
    return 1 / (1 + cpu_expf(-x));
}

static CPU_CLONES void forward_row(float *h, const float *gate, const float *up, int F) {
    for (int i = 0; i < F; i++) h[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

/* dgate and dup may be gate and up: each element is read before it is written. */
static CPU_CLONES void backward_row(float *dgate, float *dup, const float *dh, const float *gate,
                                    const float *up, int F) {
#pragma omp simd
    for (int i = 0; i < F; i++) {
        float g = gate[i], u = up[i], s = sigmoid(g);
        dgate[i] = dh[i] * u * s * (1 + g * (1 - s));
        dup[i] = dh[i] * g * s;
    }
}

void cpu_swiglu_fwd(void *h, float *absmax, const void *gate_up, int64_t S, int F, Stream *stream) {
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const float *gate = (const float *)gate_up + s * 2 * F;
        forward_row((float *)h + s * F, gate, gate + F, F);
    }
    if (absmax != NULL) cpu_absmax(absmax, h, S * F, stream);
}

void cpu_swiglu_bwd(void *dgate_up, void *h, float *absmax, const void *dh, const void *gate_up,
                    int64_t S, int F, Stream *stream) {
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < S; s++) {
        const float *gate = (const float *)gate_up + s * 2 * F;
        float *dgate = (float *)dgate_up + s * 2 * F;
        if (h != NULL) forward_row((float *)h + s * F, gate, gate + F, F);
        backward_row(dgate, dgate + F, (const float *)dh + s * F, gate, gate + F, F);
    }
    if (absmax != NULL) cpu_absmax(absmax, dgate_up, 2 * S * F, stream);
}
