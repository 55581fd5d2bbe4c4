#include <stdlib.h>

#include "cpu/cpu.h"

enum { CHUNK = 8192 }; /* elements; fixed, so that the order of a sum is */

static CPU_CLONES double chunk_sum(const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    return sum;
}

static CPU_CLONES double chunk_sum_squares(const float *x, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

static void add_sum(double *out, const float *x, int64_t n,
                    double (*of_chunk)(const float *, int64_t)) {
    int64_t chunks = ceil_div(n, CHUNK);
    double *part = NEW(double, chunks), total = 0;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < chunks; i++) {
        part[i] = of_chunk(x + i * CHUNK, i64_min(n - i * CHUNK, CHUNK));
    }
    for (int64_t i = 0; i < chunks; i++) total += part[i];
    *out += total;
    free(part);
}

void cpu_sum_f32(double *out, const float *x, int64_t n, Stream *stream) {
    (void)stream;
    add_sum(out, x, n, chunk_sum);
}

void cpu_sum_squares(double *out, const float *x, int64_t n, Stream *stream) {
    (void)stream;
    add_sum(out, x, n, chunk_sum_squares);
}

void cpu_checksum(uint64_t *out, const void *x, int64_t bytes, Stream *stream) {
    (void)stream;
    const unsigned char *at = x;
    int64_t words = bytes / 8;
    uint64_t sum = 0, word;
#pragma omp parallel for schedule(static) reduction(+ : sum) private(word)
    for (int64_t i = 0; i < words; i++) {
        memcpy(&word, at + 8 * i, 8);
        sum += checksum_mix(word, i);
    }
    word = 0;
    memcpy(&word, at + 8 * words, (size_t)(bytes % 8));
    *out += sum + (bytes % 8 != 0 ? checksum_mix(word, words) : 0);
}

void cpu_add_f32(float *dst, const float *src, int64_t n, Stream *stream) {
    (void)stream;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) dst[i] += src[i];
}

void cpu_widen(float *dst, const void *src, bool add, int64_t n, Stream *stream) {
    if (add)
        cpu_add_f32(dst, src, n, stream);
    else
        cpu_cast_f32(dst, src, n, stream);
}

void cpu_cast_f32(void *dst, const float *src, int64_t n, Stream *stream) {
    (void)stream;
    if (n > 0 && dst != src) memcpy(dst, src, (size_t)n * sizeof(float)); /* fp32 is the type */
}
