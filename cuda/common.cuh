/* common.cuh: what the op kernels share: access to W elements at a time, and sums in a fixed order.
 *
 * Kernels are written once for W elements per access: 8 (16 bytes of bf16) when row lengths and
 * addresses allow, which they do in real models, or 1, for any size and alignment. */
#ifndef CRIA_CUDA_COMMON_CUH
#define CRIA_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <initializer_list>
#include <type_traits>

#include "device.h"

typedef __nv_bfloat16 bf16;

/* ---- W elements as floats -------------------------------------------------------------------- */

static __device__ __forceinline__ uint4 load_raw(const bf16 *p) {
    return *reinterpret_cast<const uint4 *>(p);
}

/* of 8 bf16 */
static __device__ __forceinline__ void widen(float (&x)[8], uint4 raw) {
    const __nv_bfloat162 *pair = reinterpret_cast<const __nv_bfloat162 *>(&raw);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __bfloat1622float2(pair[i]);
        x[2 * i] = f.x;
        x[2 * i + 1] = f.y;
    }
}

template <int W> __device__ __forceinline__ void load(float (&x)[W], const bf16 *p) {
    if constexpr (W == 1) {
        x[0] = __bfloat162float(*p);
    } else {
        static_assert(W == 8, "16 bytes");
        widen(x, load_raw(p));
    }
}

template <int W> __device__ __forceinline__ void load(float (&x)[W], const float *p) {
    if constexpr (W == 1) {
        x[0] = *p;
    } else {
#pragma unroll
        for (int i = 0; i < W; i += 4) {
            float4 f = *reinterpret_cast<const float4 *>(p + i);
            x[i] = f.x;
            x[i + 1] = f.y;
            x[i + 2] = f.z;
            x[i + 3] = f.w;
        }
    }
}

template <int W> __device__ __forceinline__ void store(bf16 *p, const float (&x)[W]) {
    if constexpr (W == 1) {
        *p = __float2bfloat16_rn(x[0]);
    } else {
        static_assert(W == 8, "16 bytes");
        uint4 raw;
        __nv_bfloat162 *pair = reinterpret_cast<__nv_bfloat162 *>(&raw);
#pragma unroll
        for (int i = 0; i < 4; i++) pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
        *reinterpret_cast<uint4 *>(p) = raw;
    }
}

template <int W> __device__ __forceinline__ void store(float *p, const float (&x)[W]) {
    if constexpr (W == 1) {
        *p = x[0];
    } else {
#pragma unroll
        for (int i = 0; i < W; i += 4)
            *reinterpret_cast<float4 *>(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
    }
}

/* ---- absolute maxima of what is stored, as bits of bf16 without the sign ------------------------
 * Unsigned integers have the order of the absolute values, a NaN above all; a maximum is the same
 * in any order. The two halves of a word hold the maxima of the even and of the odd elements. */

static __device__ __forceinline__ unsigned absmax_word(unsigned max, unsigned pair) {
    return __vmaxu2(max, pair & 0x7fff7fff);
}

/* of x rounded to bf16 */
template <int W> __device__ __forceinline__ unsigned absmax_of(unsigned max, const float (&x)[W]) {
    if constexpr (W == 1) {
        return absmax_word(max, __bfloat16_as_ushort(__float2bfloat16_rn(x[0])));
    } else {
#pragma unroll
        for (int i = 0; i < W; i += 2) {
            __nv_bfloat162 pair = __floats2bfloat162_rn(x[i], x[i + 1]);
            max = absmax_word(max, *reinterpret_cast<const unsigned *>(&pair));
        }
        return max;
    }
}

/* *out = the larger of it and the warp's maxima. Every thread of the warp must call. A plain load
 * may find an older value, which is not larger: most warps need no atomic. */
static __device__ __forceinline__ void raise_absmax(float *out, unsigned max) {
    unsigned bits = __reduce_max_sync(0xffffffffu, umax(max >> 16, max & 0xffff)) << 16;
    if (threadIdx.x % 32 == 0 && bits > *(unsigned *)out) atomicMax((unsigned *)out, bits);
}

static inline bool aligned16(std::initializer_list<const void *> pointers) {
    uintptr_t bits = 0;
    for (const void *p : pointers) bits |= (uintptr_t)p;
    return bits % 16 == 0;
}

/* Calls f(width), with decltype(width)::value a constant: 8 when `wide`, else 1. */
template <class F> static inline void with_width(bool wide, F f) {
    if (wide)
        f(std::integral_constant<int, 8>());
    else
        f(std::integral_constant<int, 1>());
}

/* Threads of a block that serves one row in `items` accesses. */
static inline int row_threads(int64_t items) {
    return (int)i64_min(1024, round_up(i64_max(items, 1), 32));
}

/* ---- sums and maxima: every thread gets the same bits -----------------------------------------
 */

template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int m = 16; m > 0; m >>= 1) x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}

static __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int m = 16; m > 0; m >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, m));
    return x;
}

/* Over a block whose size is a multiple of 32. Every thread of it must call. */
template <class T> __device__ __forceinline__ T block_sum(T x) {
    __shared__ T part[32];
    int lane = threadIdx.x % 32;
    x = warp_sum(x);
    __syncthreads(); /* part may still be read, from the call before */
    if (lane == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? part[lane] : T(0));
}

static __device__ __forceinline__ float block_max(float x) {
    __shared__ float part[32];
    int lane = threadIdx.x % 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_max(part[lane < blockDim.x / 32 ? lane : 0]);
}

#endif
