/* fp8.cu: absolute maxima, and tensors in FP8 with one scale each: src/cpu/fp8.c bit for bit.
 *
 * absmax reads 2 n bytes. fp8_cast reads x once (2 bytes an element) and writes one byte an element
 * for each copy that is asked for. A block takes a tile of ROWS x COLS, a warp 32 x 32 of it and a
 * thread 4 rows of 8 columns. It converts pairs of rows, so that a register holds the codes of four
 * rows of a column: those go to shared memory as they are, for the transposed copy, and are turned
 * round in registers for the other. */
#include "common.cuh"

#include <cuda_fp8.h>

#include "ops/fp8.h"

enum {
    THREADS = 256,
    ROWS = 128,
    COLS = 64,
    WORDS =
        ROWS / 4 + 1, /* of a column in shared memory: odd, so that columns begin in other banks */
    BLOCKS_A_SM = 8
};

/* ---- absolute maximum ------------------------------------------------------------------------ */

template <bool WIDE>
static __global__ void absmax_kernel(float *out, const uint16_t *x, int64_t n) {
    unsigned max = 0;
    int64_t stride = (int64_t)gridDim.x * THREADS * 8;
#pragma unroll 4
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8; i < n; i += stride) {
        if (WIDE && i + 8 <= n) {
            uint4 v = *reinterpret_cast<const uint4 *>(x + i);
            max = absmax_word(absmax_word(max, v.x), v.y);
            max = absmax_word(absmax_word(max, v.z), v.w);
        } else {
            for (int64_t j = i; j < n && j < i + 8; j++) max = absmax_word(max, x[j]);
        }
    }
    raise_absmax(out, max);
}

void cuda_absmax(float *out, const void *x, int64_t n, Stream *stream) {
    if (n == 0) return;
    int64_t blocks = i64_min(ceil_div(n, THREADS * 8), (int64_t)cuda_sm_count() * BLOCKS_A_SM);
    auto kernel = aligned16({x}) ? absmax_kernel<true> : absmax_kernel<false>;
    kernel<<<(unsigned)blocks, THREADS, 0, stream->s>>>(out, (const uint16_t *)x, n);
    CUDA_CHECK_LAUNCH("absmax");
}

/* ---- cast ------------------------------------------------------------------------------------ */

/* 8 elements of a row; zeros past its end */
template <bool WIDE>
static __device__ __forceinline__ uint4 load_row(const uint16_t *row, int64_t column, int64_t C) {
    if (WIDE && column + 8 <= C) return *reinterpret_cast<const uint4 *>(row + column);
    unsigned word[4] = {};
    for (int i = 0; i < 8 && column + i < C; i++)
        word[i / 2] |= (unsigned)row[column + i] << i % 2 * 16;
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* element `half` of a pair of bf16 */
static __device__ __forceinline__ float widen(unsigned pair, int half) {
    return __uint_as_float(half ? pair & 0xffff0000 : pair << 16);
}

/* Codes of a and b in the lower half of a word, a in the lower byte. */
template <Dtype TYPE> static __device__ __forceinline__ unsigned convert(float a, float b) {
    constexpr auto FORMAT = TYPE == DT_F8_E4M3 ? __NV_E4M3 : __NV_E5M2;
    return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, FORMAT);
}

/* sum + 128 for each byte of x that is not zero; the upper bits of x are. */
static __device__ __forceinline__ unsigned count_bytes(unsigned sum, unsigned x) {
    return __dp4a((x + 0x7f7f7f7f) & 0x80808080, 0x01010101u, sum);
}

/* sum + 128 for each of the two bf16 that is not zero, of either sign. */
static __device__ __forceinline__ unsigned count_halves(unsigned sum, unsigned pair) {
    return __dp4a(((pair & 0x7fff7fff) + 0x7fff7fff) & 0x80008000, 0x01010101u, sum);
}

/* A block a tile, `stripes` of them side by side: 2^31 - 1 hold more than the memory of a GPU. */
template <bool WIDE, Dtype TYPE>
static __global__ void __launch_bounds__(THREADS)
    fp8_cast_kernel(Fp8Cast a, int64_t ld, int stripes) {
    __shared__ unsigned tile[COLS * WORDS];
    int64_t row0 = (int64_t)(blockIdx.x / stripes) * ROWS,
            column0 = (int64_t)(blockIdx.x % stripes) * COLS;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int c = warp % 2 * 32 + lane % 4 * 8, r = warp / 2 * 32 + lane / 4 * 4;
    int64_t row = row0 + r, column = column0 + c;
    float absmax = *a.absmax, factor = fp8_scale(absmax, TYPE);
    uint4 x[4] = {};
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (row + k < a.R && column < a.C)
            x[k] = load_row<WIDE>((const uint16_t *)a.x + (row + k) * a.C, column, a.C);
    unsigned code[8];         /* of a column each: byte k is that of row + k */
    int64_t left = a.R - row; /* rows; those past the end are zeros, also when the factor is NaN */
    unsigned kept = left >= 4 ? 0xffffffffu : left <= 0 ? 0 : (1u << 8 * left) - 1;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float v[4];
#pragma unroll
        for (int k = 0; k < 4; k++) v[k] = __fmul_rn(widen((&x[k].x)[i / 2], i % 2), factor);
        code[i] = (convert<TYPE>(v[0], v[1]) | convert<TYPE>(v[2], v[3]) << 16) & kept;
    }
    if (a.columns != NULL) {
#pragma unroll
        for (int i = 0; i < 8; i++) tile[(c + i) * WORDS + r / 4] = code[i];
    }
    if (a.rows != NULL) {
        uint2 line[4]; /* of a row each */
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const unsigned *from = code + 4 * half;
            unsigned low01 = __byte_perm(from[0], from[1], 0x5140), /* rows 0 and 1 */
                high01 = __byte_perm(from[0], from[1], 0x7362),     /* rows 2 and 3 */
                low23 = __byte_perm(from[2], from[3], 0x5140),
                     high23 = __byte_perm(from[2], from[3], 0x7362);
            (&line[0].x)[half] = __byte_perm(low01, low23, 0x5410);
            (&line[1].x)[half] = __byte_perm(low01, low23, 0x7632);
            (&line[2].x)[half] = __byte_perm(high01, high23, 0x5410);
            (&line[3].x)[half] = __byte_perm(high01, high23, 0x7632);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (row + k >= a.R || column >= a.C) continue;
            uint8_t *to = (uint8_t *)a.rows + (row + k) * a.C + column;
            if (WIDE && column + 8 <= a.C) {
                *reinterpret_cast<uint2 *>(to) = line[k];
            } else {
                for (int i = 0; i < 8 && column + i < a.C; i++)
                    to[i] = (uint8_t)((&line[k].x)[i / 4] >> i % 4 * 8);
            }
        }
    }
    if (a.columns != NULL) {
        __syncthreads();
        constexpr int THREADS_A_COLUMN = ROWS / 16;
        int part = threadIdx.x % THREADS_A_COLUMN;
        int64_t first = row0 + part * 16;
#pragma unroll
        for (int i = threadIdx.x / THREADS_A_COLUMN; i < COLS; i += THREADS / THREADS_A_COLUMN) {
            if (column0 + i >= a.C || first >= ld) continue; /* ld is a multiple of 16 */
            const unsigned *from = tile + i * WORDS + part * 4;
            uint8_t *to = (uint8_t *)a.columns + (column0 + i) * ld + first;
            *reinterpret_cast<uint4 *>(to) = make_uint4(from[0], from[1], from[2], from[3]);
        }
    }
    bool first = blockIdx.x == 0 && threadIdx.x == 0;
    if (first) *a.scale = __fdiv_rn(1.0f, factor);
    if (a.counts == NULL) return;
    /* What lies past the ends is zero, and so no number that became zero. */
    unsigned codes = 0, numbers = 0,
             below = 0; /* 128 for each that is not zero, or not saturated */
#pragma unroll
    for (int i = 0; i < 8; i++) {
        unsigned size = code[i] & 0x7f7f7f7f;
        codes = count_bytes(codes, size);
        below = count_bytes(below, size ^ 0x01010101u * fp8_max_code(TYPE));
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) numbers = count_halves(numbers, (&x[k].x)[i]);
    int zeros = __reduce_add_sync(0xffffffffu, (int)(numbers - codes) / 128);
    int saturated = __reduce_add_sync(0xffffffffu, 32 - (int)(below / 128));
    if (lane == 0) {
        if (zeros > 0) atomicAdd((unsigned long long *)&a.counts->zeros, zeros);
        if (saturated > 0) atomicAdd((unsigned long long *)&a.counts->saturated, saturated);
    }
    if (first) {
        a.counts->elements += (uint64_t)(a.R * a.C);
        atomicMax((unsigned *)&a.counts->absmax, __float_as_uint(absmax));
    }
}

void cuda_fp8_cast(const Fp8Cast *a, Stream *stream) {
    REQUIRE(dtype_is_fp8(a->type) && aligned16({a->columns}));
    if (a->R == 0 || a->C == 0) return;
    int64_t ld = round_up(a->R, FP8_UNIT);
    int64_t stripes = ceil_div(a->C, COLS), blocks = stripes * ceil_div(ld, ROWS);
    bool wide = a->C % 8 == 0 && aligned16({a->x}) && (uintptr_t)a->rows % 8 == 0;
    auto kernel = wide ? fp8_cast_kernel<true, DT_F8_E4M3> : fp8_cast_kernel<false, DT_F8_E4M3>;
    if (a->type == DT_F8_E5M2)
        kernel = wide ? fp8_cast_kernel<true, DT_F8_E5M2> : fp8_cast_kernel<false, DT_F8_E5M2>;
    kernel<<<(unsigned)blocks, THREADS, 0, stream->s>>>(*a, ld, (int)stripes);
    CUDA_CHECK_LAUNCH("fp8_cast");
}
