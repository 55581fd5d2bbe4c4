/* cpu.h: the CPU backend, row "cpu" of the Ops table: contracts in ops.def, one file per op. fp32
 * activations, long sums in double. Threads (OpenMP) split independent outputs and never a sum, or
 * split a sum into chunks whose size does not depend on the number of threads: same inputs, same
 * bits, with any number of threads. */
#ifndef CRIA_CPU_CPU_H
#define CRIA_CPU_CPU_H

#include <math.h>
#include <string.h>

#include "ops/ops.h"

/* Inner loops are compiled twice, for AVX2 + FMA and for any x86-64, and chosen at load time: one
 * binary runs on every node of a mixed cluster and needs no -march=native to be fast. gcc only, and
 * not under sanitizers, whose runtime is not up yet when the loader resolves the choice. */
#if defined(__x86_64__) && defined(__gnu_linux__) && __GNUC__ >= 12 && !defined(__clang__) &&      \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CPU_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CPU_CLONES
#endif

/* Helpers of cloned functions must become part of each clone. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* cpu_rmsnorm_fwd and so on */
#define OP(result, name, class, parameters, arguments, cost) result cpu_##name parameters;
#define HOST_OP(result, name, parameters)                    result cpu_##name parameters;
#include "ops/ops.def"

/* n uninitialised floats that start on a cache line, for free() */
float *cpu_scratch(int64_t n);

ALWAYS_INLINE float float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

ALWAYS_INLINE int32_t int_from_float_bits(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Bits of a float as an integer of the same order; applied twice, the bits again. */
ALWAYS_INLINE int32_t ordered_bits(int32_t bits) {
    return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1);
}

/* The largest of x[n], -inf for none. By integers, as only their order of evaluation is free, so
 * that the loop vectorises. A NaN may count as larger than all. */
ALWAYS_INLINE float cpu_max(const float *x, int64_t n) {
    int32_t max = ordered_bits(int_from_float_bits(-INFINITY));
    for (int64_t i = 0; i < n; i++) {
        int32_t key = ordered_bits(int_from_float_bits(x[i]));
        max = key > max ? key : max;
    }
    return float_from_bits((uint32_t)ordered_bits(max));
}

/* e^x within 2 units in the last place, subnormal results included; overflow gives inf and NaN
 * stays NaN. It has no branches, so that loops over it vectorise, which libm's expf does not
 * without -ffast-math. x = n ln 2 + r, |r| <= ln 2 / 2, and the polynomial of Moshier's Cephes for
 * e^r. */
ALWAYS_INLINE float cpu_expf(float x) {
    x = x > 89.0f ? 89.0f : x; /* beyond these: inf and 0. A NaN fails both tests and stays. */
    x = x < -104.0f ? -104.0f : x;
    const float shift = 0x1.8p23f; /* adding it rounds to an integer, left in the low bits */
    float t = x * 1.44269504088896341f + shift, n = t - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* 2^n as two factors: neither 2^128 nor 2^-150 is a float, but results near them are */
    int32_t k = int_from_float_bits(t) - int_from_float_bits(shift), half = k >> 1;
    float low = float_from_bits((uint32_t)(half + 127) << 23);
    float high = float_from_bits((uint32_t)(k - half + 127) << 23);
    return p * low * high;
}

#endif
