/* gpu.h: what the gpu_*.c programs share. They need a GPU; `make bundle` carries them to one. */
#ifndef CRIA_TESTS_GPU_H
#define CRIA_TESTS_GPU_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_open.h"
#include "check.h"
#include "ops/ops.h"
#include "base/rng.h"

static inline float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

static inline uint16_t to_bf16(float x) { /* round to nearest even */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float random_normal(uint64_t which, int64_t i) {
    return (float)rng_normal(7, rng_stream(RNG_TEST, which), (uint64_t)i);
}

#endif
