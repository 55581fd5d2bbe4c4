/* fp8.h: the two 8-bit floating-point formats of FP8 training, converted on the host.
 *
 *              exponent bits, bias   mantissa bits   largest   smallest above 0   infinity
 *   F8_E4M3    4, 7                  3               448       2^-9               none
 *   F8_E5M2    5, 15                 2               57344     2^-16              yes
 *
 * (Micikevicius et al., "FP8 formats for deep learning", 2022.) */
#ifndef CRIA_OPS_FP8_H
#define CRIA_OPS_FP8_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/base.h"

enum { FP8_NAN = 0x7f }; /* of either format, as NVIDIA GPUs write it */

#ifdef __CUDACC__
#define FP8_DEVICE __host__ __device__
#else
#define FP8_DEVICE
#endif

static inline bool dtype_is_fp8(Dtype type) {
    return type == DT_F8_E4M3 || type == DT_F8_E5M2;
}

/* The largest finite value. */
FP8_DEVICE static inline float fp8_max(Dtype type) {
    return type == DT_F8_E4M3 ? 448.0f : 57344.0f;
}
FP8_DEVICE static inline uint8_t fp8_max_code(Dtype type) {
    return type == DT_F8_E4M3 ? 0x7e : 0x7b;
}

/* Rounds to the nearest value, ties to the even code. What is larger than the largest value, and an
 * infinity, becomes the largest value; a NaN stays one. */
static inline uint8_t fp8_from_float(float x, Dtype type) {
    int mantissa = type == DT_F8_E4M3 ? 3 : 2, bias = type == DT_F8_E4M3 ? 7 : 15;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    bits &= 0x7fffffff;
    float size = fabsf(x);
    if (bits > 0x7f800000) return FP8_NAN;
    if (size >= fp8_max(type)) return sign | fp8_max_code(type);
    /* Codes below the smallest normal number are multiples of 2^(1 - bias - mantissa). */
    if (size < ldexpf(1, 1 - bias))
        return sign | (uint8_t)nearbyintf(ldexpf(size, bias - 1 + mantissa));
    int shift = 23 - mantissa;
    bits += ((1u << (shift - 1)) - 1) + (bits >> shift & 1);
    return sign | (uint8_t)((bits >> shift) - ((127u - (unsigned)bias) << mantissa));
}

static inline float fp8_to_float(uint8_t code, Dtype type) {
    int mantissa = type == DT_F8_E4M3 ? 3 : 2, bias = type == DT_F8_E4M3 ? 7 : 15;
    int size = code & 0x7f, exponent = size >> mantissa, fraction = size & ((1 << mantissa) - 1);
    float x;
    if (type == DT_F8_E5M2 && exponent == 31)
        x = fraction == 0 ? INFINITY : NAN;
    else if (type == DT_F8_E4M3 && size == FP8_NAN)
        x = NAN;
    else if (exponent == 0)
        x = ldexpf((float)fraction, 1 - bias - mantissa);
    else
        x = ldexpf((float)(fraction | 1 << mantissa), exponent - bias - mantissa);
    return code & 0x80 ? -x : x;
}

/* What a tensor of this largest absolute value is multiplied by before it is rounded, so that this
 * value becomes the format's largest. 1 for zeros. NaN where it is not finite: an infinity must
 * not disappear in a saturated number. */
FP8_DEVICE static inline float fp8_scale(float absmax, Dtype type) {
    if (absmax == 0) return 1;
    if (!(absmax <= FLT_MAX)) return NAN;
    return fminf(fp8_max(type) / absmax, FLT_MAX);
}

#endif
