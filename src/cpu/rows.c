#include "cpu/cpu.h"

void cpu_gather_rows(void *dst, const void *src, const int32_t *index, int64_t n, int64_t row_bytes,
                     Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        memcpy((char *)dst + i * row_bytes, (const char *)src + index[i] * row_bytes,
               (size_t)row_bytes);
    }
}

void cpu_scatter_rows(void *dst, const void *src, const int32_t *index, int64_t n,
                      int64_t row_bytes, Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        memcpy((char *)dst + index[i] * row_bytes, (const char *)src + i * row_bytes,
               (size_t)row_bytes);
    }
}

void cpu_sum_rows(float *dst, const float *base, const float *src, const int32_t *begin,
                  const int32_t *from, int64_t n, int64_t row_floats, Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float *to = dst + i * row_floats;
        if (dst != base) memcpy(to, base + i * row_floats, (size_t)row_floats * sizeof *to);
        for (int32_t j = begin[i]; j < begin[i + 1]; j++) {
            const float *add = src + from[j] * row_floats;
            for (int64_t c = 0; c < row_floats; c++) to[c] += add[c];
        }
    }
}
