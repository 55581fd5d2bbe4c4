/* ptx.cuh: instructions of Ampere and later that C++ has no words for, and what goes with them.
 * Those of Hopper alone are in sm90.cuh.
 *
 * Fragments of mma: thread (g = lane / 4, t = lane % 4) holds rows g (elements 0, 1) and g + 8 (2,
 * 3) of d[16, 8] at columns 2t, 2t + 1. */
#ifndef CRIA_CUDA_PTX_CUH
#define CRIA_CUDA_PTX_CUH

#include <stdint.h>

constexpr float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

/* 2^x by the hardware; its relative error of 2^-22 is far below what bf16 keeps. */
static __device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Read again at every use, so that addresses made of it do not hold a register throughout a kernel.
 */
static __device__ __forceinline__ int lane_id() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

static __device__ __forceinline__ uint32_t smem_addr(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* volatile: it must not move above the wait for a wgmma that still reads the old value */
static __device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
    uint32_t r;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

static __device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}

/* d[16, 8] += a[16, 16] b[16, 8] of one warp. */
static __device__ __forceinline__ void mma_bf16(float *d, const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* dst (+)= row g + 8r of the fragments x[16, N], at columns below `columns`; dst: column 2t of the
 * row. */
template <int N>
__device__ __forceinline__ void store_row(float *dst, const float *x, int r, int columns,
                                          bool add) {
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        if (8 * i >= columns) continue;
        float2 *to = (float2 *)(dst + 8 * i);
        float2 old = add ? *to : make_float2(0, 0);
        *to = make_float2(x[4 * i + 2 * r] + old.x, x[4 * i + 2 * r + 1] + old.y);
    }
}

#endif
