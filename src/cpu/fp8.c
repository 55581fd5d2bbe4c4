/* fp8.c: absolute maxima, and tensors in FP8 with one scale each (current scaling): the reference
 * of cuda/fp8.cu, bit for bit. */
#include "cpu/cpu.h"
#include "ops/fp8.h"

/* Of the bits without their sign, which for floats have the order of the absolute values; a NaN is
 * above infinity. */
static CPU_CLONES uint32_t max_bits(const float *x, int64_t n) {
    uint32_t max = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)int_from_float_bits(x[i]) & 0x7fffffff;
        max = bits > max ? bits : max;
    }
    return max;
}

static void raise_to(float *out, uint32_t bits) {
    uint32_t old = (uint32_t)int_from_float_bits(*out);
    *out = float_from_bits(bits > old ? bits : old);
}

void cpu_absmax(float *out, const void *x, int64_t n, Stream *stream) {
    (void)stream;
    raise_to(out, max_bits(x, n));
}

void cpu_fp8_cast(const Fp8Cast *a, Stream *stream) {
    (void)stream;
    REQUIRE(dtype_is_fp8(a->type));
    const float *x = a->x;
    uint8_t *rows = a->rows, *columns = a->columns;
    float factor = fp8_scale(*a->absmax, a->type);
    int64_t ld = round_up(a->R, FP8_UNIT), zeros = 0, saturated = 0;
    *a->scale = 1 / factor;
#pragma omp parallel for schedule(static) reduction(+ : zeros, saturated)
    for (int64_t c = 0; c < a->C; c++) {
        for (int64_t r = 0; r < a->R; r++) {
            float value = x[r * a->C + c];
            uint8_t code = fp8_from_float(value * factor, a->type);
            zeros += (code & 0x7f) == 0 && value != 0;
            saturated += (code & 0x7f) == fp8_max_code(a->type);
            if (rows != NULL) rows[r * a->C + c] = code;
            if (columns != NULL) columns[c * ld + r] = code;
        }
        if (columns != NULL) memset(columns + c * ld + a->R, 0, (size_t)(ld - a->R));
    }
    if (a->counts == NULL) return;
    a->counts->elements += (uint64_t)(a->R * a->C);
    a->counts->zeros += (uint64_t)zeros;
    a->counts->saturated += (uint64_t)saturated;
    raise_to(&a->counts->absmax, (uint32_t)int_from_float_bits(*a->absmax));
}
