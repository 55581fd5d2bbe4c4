/* op_test.h: what the test_op_*.c programs share: random tensors with sentinels around them,
 * comparison against an fp64 reference, derivatives by finite differences of such a reference, and
 * one run of a case under several numbers of threads. */
#ifndef CRIA_OP_TEST_H
#define CRIA_OP_TEST_H

#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "cpu/cpu.h"
#include "base/rng.h"

/* ---- tensors: free with tensor_free(), which fails if anything wrote outside them -------------
 */
enum { TENSOR_GUARD = 64 };

static inline void *tensor_bytes(int64_t bytes) {
    int64_t head[2] = {bytes, 0};
    unsigned char *base = malloc((size_t)bytes + 3 * TENSOR_GUARD);
    memset(base, 0xA5, (size_t)bytes + 3 * TENSOR_GUARD);
    memcpy(base, head, sizeof head);
    return base + 2 * TENSOR_GUARD;
}

static inline void tensor_free(void *tensor) {
    unsigned char *data = tensor, *base = data - 2 * TENSOR_GUARD;
    int64_t bytes;
    memcpy(&bytes, base, sizeof bytes);
    for (int64_t i = 0; i < TENSOR_GUARD; i++) {
        if (data[-1 - i] != 0xA5)
            fail_msg("byte %lld before a tensor was written", (long long)i + 1);
        if (data[bytes + i] != 0xA5) fail_msg("byte %lld past a tensor was written", (long long)i);
    }
    free(base);
}

/* n floats that are NaN until written */
static inline float *tensor_new(int64_t n) {
    float *x = tensor_bytes(n * (int64_t)sizeof(float));
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}

static inline float *tensor_random(int64_t n, uint64_t which, double scale) {
    float *x = tensor_new(n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(scale * rng_normal(7, rng_stream(RNG_TEST, which), (uint64_t)i));
    }
    return x;
}

static inline float *tensor_copy(const float *from, int64_t n) {
    float *x = tensor_new(n);
    if (n > 0) memcpy(x, from, (size_t)n * sizeof(float));
    return x;
}

static inline int32_t *tensor_random_int(int64_t n, uint64_t which, int32_t below) {
    int32_t *x = tensor_bytes(n * (int64_t)sizeof(int32_t));
    for (int64_t i = 0; i < n; i++) {
        x[i] = (int32_t)(rng_u64(7, rng_stream(RNG_TEST, which), (uint64_t)i) % (uint64_t)below);
    }
    return x;
}

static inline int64_t random_in(uint64_t which, uint64_t index, int64_t begin, int64_t end) {
    return begin +
           (int64_t)(rng_u64(8, rng_stream(RNG_TEST, which), index) % (uint64_t)(end - begin));
}

static inline double *to_double(const float *x, int64_t n) {
    double *d = NEW(double, n);
    for (int64_t i = 0; i < n; i++) d[i] = (double)x[i];
    return d;
}

/* ---- comparison --------------------------------------------------------------------------------
 */
/* |got - want| <= tolerance * (scale + |want|), elementwise, where scale is the size of the terms
 * that were summed; equal infinities are equal, and a NaN never is. */
static inline void assert_within(const char *what, const float *got, const double *want, int64_t n,
                                 double tolerance, double scale) {
    for (int64_t i = 0; i < n; i++) {
        if (isinf(want[i]) && (double)got[i] == want[i]) continue;
        double error = fabs((double)got[i] - want[i]);
        if (!(error <= tolerance * (scale + fabs(want[i])))) {
            fail_msg("%s[%lld of %lld]: %.9g, expected %.9g (error %.3g)", what, (long long)i,
                     (long long)n, (double)got[i], want[i], error);
        }
    }
}

/* The same with the root mean square of what is wanted for the scale */
static inline void assert_close(const char *what, const float *got, const double *want, int64_t n,
                                double tolerance) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += isfinite(want[i]) ? want[i] * want[i] : 0;
    double rms = n > 0 ? sqrt(squares / (double)n) : 0;
    assert_within(what, got, want, n, tolerance, rms + 1e-15);
}

static inline void assert_bits(const char *what, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], sizeof(float)) != 0) {
            fail_msg("%s[%lld of %lld]: %.9g has other bits than %.9g", what, (long long)i,
                     (long long)n, (double)got[i], (double)want[i]);
        }
    }
}

/* ---- derivatives -------------------------------------------------------------------------------
 */
/* grad[i] = d loss / d x[i] by central differences of order 4; x comes back unchanged. */
static inline void numeric_grad(double (*loss)(void *), void *context, double *x, int64_t n,
                                double *grad) {
    for (int64_t i = 0; i < n; i++) {
        double at = x[i], step = 1e-3, value[4];
        static const double offset[4] = {-2, -1, 1, 2};
        for (int j = 0; j < 4; j++) {
            x[i] = at + offset[j] * step;
            value[j] = loss(context);
        }
        x[i] = at;
        grad[i] = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * step);
    }
}

static inline double dot_float(const double *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * (double)b[i];
    return sum;
}

/* ---- threads -----------------------------------------------------------------------------------
 */
static inline void set_threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

/* Runs the case, which returns a tensor of *n floats with everything it computed, with 1, 2 and 3
 * threads and then with 1 again, and requires the same bits. */
static inline void assert_same_for_any_threads(float *(*run)(int64_t *n)) {
    static const int threads[] = {1, 2, 3, 1};
    float *first = NULL;
    int64_t n = 0;
    for (int i = 0; i < 4; i++) {
        set_threads(threads[i]);
        float *now = run(&n);
        if (first == NULL) {
            first = now;
            continue;
        }
        assert_bits("result with another number of threads", now, first, n);
        tensor_free(now);
    }
    tensor_free(first);
    set_threads(2);
}

#endif
