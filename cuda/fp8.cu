/* fp8.cu: absolute maxima, and tensors in FP8 with one scale each: src/cpu/fp8.c bit for bit.
 *
 * absmax reads 2 n bytes. A maximum of bits is the same in any order, so that atomics keep it
 * exact. fp8_cast reads x once (2 bytes an element) and writes one byte an element for each copy
 * that is asked for. A block takes a tile of ROWS x COLS: it converts 8 elements a thread, stores
 * them by rows, and turns them round in shared memory. No figures yet. */
#include "common.cuh"

#include <cuda_fp8.h>

#include "ops/fp8.h"

enum {
    THREADS = 256,
    ROWS = 64,
    COLS = 128,
    PITCH = ROWS + 4, /* bytes of a column in shared memory: its words begin in different banks */
    BLOCKS_A_SM = 8
};

/* ---- absolute maximum ------------------------------------------------------------------------ */

static __device__ __forceinline__ void raise_to(float *out, unsigned bits) {
    atomicMax((unsigned *)out, bits);
}

/* Pairs of bf16 without their signs; unsigned integers have the order of the absolute values. */
template <bool WIDE>
static __global__ void absmax_kernel(float *out, const uint16_t *x, int64_t n) {
    unsigned max = 0; /* of the even elements and of the odd ones */
    int64_t stride = (int64_t)gridDim.x * THREADS * 8;
#pragma unroll 4
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8; i < n; i += stride) {
        if (WIDE && i + 8 <= n) {
            uint4 v = *reinterpret_cast<const uint4 *>(x + i);
            max = __vmaxu2(__vmaxu2(max, v.x & 0x7fff7fff), v.y & 0x7fff7fff);
            max = __vmaxu2(__vmaxu2(max, v.z & 0x7fff7fff), v.w & 0x7fff7fff);
        } else {
            for (int64_t j = i; j < n && j < i + 8; j++) max = __vmaxu2(max, x[j] & 0x7fffu);
        }
    }
    unsigned bits = __reduce_max_sync(0xffffffffu, umax(max >> 16, max & 0xffff));
    __shared__ unsigned part[THREADS / 32];
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = bits;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < THREADS / 32; i++) bits = umax(bits, part[i]);
    raise_to(out, bits << 16);
}

void cuda_absmax(float *out, const void *x, int64_t n, Stream *stream) {
    if (n == 0) return;
    int64_t blocks = i64_min(ceil_div(n, THREADS * 8), (int64_t)cuda_sm_count() * BLOCKS_A_SM);
    auto kernel = aligned16({x}) ? absmax_kernel<true> : absmax_kernel<false>;
    kernel<<<(unsigned)blocks, THREADS, 0, stream->s>>>(out, (const uint16_t *)x, n);
    CUDA_CHECK_LAUNCH("absmax");
}

/* ---- cast ------------------------------------------------------------------------------------ */

template <bool WIDE>
static __device__ __forceinline__ void load_row(float (&x)[8], const bf16 *row, int64_t column,
                                                int64_t C) {
    if (WIDE && column + 8 <= C) {
        load(x, row + column);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = column + i < C ? __bfloat162float(row[column + i]) : 0.0f;
}

/* A block a tile, `stripes` of them side by side: 2^31 - 1 hold more than the memory of a GPU. */
template <bool WIDE, Dtype TYPE>
static __global__ void __launch_bounds__(THREADS)
    fp8_cast_kernel(Fp8Cast a, int64_t ld, int stripes) {
    constexpr auto FORMAT = TYPE == DT_F8_E4M3 ? __NV_E4M3 : __NV_E5M2;
    __shared__ __align__(16) uint8_t tile[COLS * PITCH];
    int64_t row0 = (int64_t)(blockIdx.x / stripes) * ROWS,
            column0 = (int64_t)(blockIdx.x % stripes) * COLS;
    float absmax = *a.absmax, factor = fp8_scale(absmax, TYPE);
    int zeros = 0, saturated = 0;
    constexpr int THREADS_A_ROW = COLS / 8, STEP = THREADS / THREADS_A_ROW;
    int c = threadIdx.x % THREADS_A_ROW * 8;
#pragma unroll
    for (int r = threadIdx.x / THREADS_A_ROW; r < ROWS; r += STEP) {
        float x[8] = {};
        uint8_t code[8];
        int64_t row = row0 + r, column = column0 + c;
        bool inside = row < a.R && column < a.C;
        if (inside) load_row<WIDE>(x, (const bf16 *)a.x + row * a.C, column, a.C);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            code[i] = __nv_cvt_float_to_fp8(__fmul_rn(x[i], factor), __NV_SATFINITE, FORMAT);
            zeros += (code[i] & 0x7f) == 0 && x[i] != 0;
            saturated += (code[i] & 0x7f) == fp8_max_code(TYPE);
        }
        if (inside && a.rows != NULL) {
            uint8_t *to = (uint8_t *)a.rows + row * a.C + column;
            if (WIDE && column + 8 <= a.C) {
                *reinterpret_cast<uint2 *>(to) = *reinterpret_cast<const uint2 *>(code);
            } else {
                for (int i = 0; i < 8 && column + i < a.C; i++) to[i] = code[i];
            }
        }
        if (a.columns != NULL) {
#pragma unroll
            for (int i = 0; i < 8; i++) tile[(c + i) * PITCH + r] = row < a.R ? code[i] : 0;
        }
    }
    if (a.columns != NULL) {
        __syncthreads();
        constexpr int THREADS_A_COLUMN = ROWS / 16;
        int64_t row = row0 + threadIdx.x % THREADS_A_COLUMN * 16;
        for (int i = threadIdx.x / THREADS_A_COLUMN; i < COLS; i += THREADS / THREADS_A_COLUMN) {
            if (column0 + i >= a.C || row >= ld) continue; /* ld is a multiple of 16 */
            const unsigned *from =
                reinterpret_cast<const unsigned *>(tile + i * PITCH + (row - row0));
            uint8_t *to = (uint8_t *)a.columns + (column0 + i) * ld + row;
            *reinterpret_cast<uint4 *>(to) = make_uint4(from[0], from[1], from[2], from[3]);
        }
    }
    bool first = blockIdx.x == 0 && threadIdx.x == 0;
    if (first) *a.scale = __fdiv_rn(1.0f, factor);
    if (a.counts == NULL) return;
    zeros = block_sum(zeros);
    saturated = block_sum(saturated);
    if (threadIdx.x == 0) {
        if (zeros > 0) atomicAdd((unsigned long long *)&a.counts->zeros, zeros);
        if (saturated > 0) atomicAdd((unsigned long long *)&a.counts->saturated, saturated);
    }
    if (first) {
        a.counts->elements += (uint64_t)(a.R * a.C);
        raise_to(&a.counts->absmax, __float_as_uint(absmax));
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
