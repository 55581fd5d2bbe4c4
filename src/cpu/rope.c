#include <math.h>
#include <stdlib.h>

#include "cpu/cpu.h"

/* to = from rotated, pair (i, i + half) by the angle with this cosine and sine */
static CPU_CLONES void rotate(float *to, const float *from, const float *cosine, const float *sine,
                              int half) {
    for (int i = 0; i < half; i++) {
        float a = from[i], b = from[i + half];
        to[i] = a * cosine[i] - b * sine[i];
        to[i + half] = b * cosine[i] + a * sine[i];
    }
}

/* The angles of one row, turned back when direction is -1 */
static void fill_angles(float *cosine, float *sine, int32_t position, const float *inv_freq,
                        int half, float direction) {
    for (int i = 0; i < half; i++) {
        float angle = (float)position * inv_freq[i];
        cosine[i] = cosf(angle);
        sine[i] = direction * sinf(angle);
    }
}

void cpu_rope_split_fwd(void *q, void *kv, const void *qkv, const Rope *rope, Stream *stream) {
    (void)stream;
    int D = rope->D, half = D / 2;
    int64_t q_row = (int64_t)rope->H * D, k_row = (int64_t)rope->K * D;
#pragma omp parallel
    {
        float *cosine = NEW(float, D), *sine = cosine + half;
#pragma omp for schedule(static)
        for (int64_t s = 0; s < rope->S; s++) {
            const float *from = (const float *)qkv + s * (q_row + 2 * k_row);
            float *to_q = (float *)q + s * q_row, *to_kv = (float *)kv + s * 2 * k_row;
            fill_angles(cosine, sine, rope->positions[s], rope->inv_freq, half, 1);
            for (int64_t i = 0; i < q_row; i += D) rotate(to_q + i, from + i, cosine, sine, half);
            from += q_row;
            for (int64_t i = 0; i < k_row; i += D) rotate(to_kv + i, from + i, cosine, sine, half);
            memcpy(to_kv + k_row, from + k_row, (size_t)k_row * sizeof(float));
        }
        free(cosine);
    }
}

void cpu_rope_split_bwd(void *dqkv, float *absmax, const float *dq, const float *dkv,
                        const Rope *rope, Stream *stream) {
    int D = rope->D, half = D / 2;
    int64_t q_row = (int64_t)rope->H * D, k_row = (int64_t)rope->K * D;
#pragma omp parallel
    {
        float *cosine = NEW(float, D), *sine = cosine + half;
#pragma omp for schedule(static)
        for (int64_t s = 0; s < rope->S; s++) {
            const float *from_q = dq + s * q_row, *from_kv = dkv + s * 2 * k_row;
            float *to = (float *)dqkv + s * (q_row + 2 * k_row);
            fill_angles(cosine, sine, rope->positions[s], rope->inv_freq, half, -1);
            for (int64_t i = 0; i < q_row; i += D) rotate(to + i, from_q + i, cosine, sine, half);
            to += q_row;
            for (int64_t i = 0; i < k_row; i += D) rotate(to + i, from_kv + i, cosine, sine, half);
            memcpy(to + k_row, from_kv + k_row, (size_t)k_row * sizeof(float));
        }
        free(cosine);
    }
    if (absmax != NULL) cpu_absmax(absmax, dqkv, rope->S * (q_row + 2 * k_row), stream);
}
