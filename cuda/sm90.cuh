/* sm90.cuh: the Hopper instructions that the attention kernels use, one inline function each:
 * mbarriers, the bulk tensor copy engine (TMA), warpgroup matrix multiply (wgmma), and their memory
 * orderings.
 *
 * Tiles in shared memory: R rows of D bf16 lie as D/64 panels of R rows of 128 bytes; a panel
 * starts at a multiple of 1024 bytes and the 16-byte chunk c of row r lies at chunk c ^ (r & 7)
 * (the 128-byte swizzle, which the TMA applies and wgmma expects). The same bytes serve as a
 * K-major operand (row = the M or N index) and as an MN-major one (row = the K index). */
#ifndef CRIA_CUDA_SM90_CUH
#define CRIA_CUDA_SM90_CUH

#include <cuda.h>
#include <cuda_bf16.h>

#include "ptx.cuh"

/* ---- barriers -------------------------------------------------------------------------------- */

/* The kernel's dynamic shared memory as a T at a multiple of 1024 bytes; launch with
 * shared_bytes<T>(). (The offset is added to the array, not computed as an address, so that the
 * compiler still knows the result to be shared memory.) */
template <class T> __device__ __forceinline__ T &shared_as(uint8_t *raw) {
    return *(T *)(raw + (-smem_addr(raw) & 1023));
}
template <class T> constexpr int shared_bytes() {
    return (int)sizeof(T) + 1024;
}

static __device__ __forceinline__ void mbar_init(uint64_t *bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_addr(bar)), "r"(count));
}
static __device__ __forceinline__ void mbar_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
static __device__ __forceinline__ void mbar_arrive(uint64_t *bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_addr(bar)) : "memory");
}
static __device__ __forceinline__ void mbar_arrive_expect(uint64_t *bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_addr(bar)),
                 "r"(bytes)
                 : "memory");
}
/* Arrives once for the whole warp, after its earlier accesses to shared memory. */
static __device__ __forceinline__ void warp_arrive(uint64_t *bar, int lane) {
    __syncwarp();
    if (lane == 0) mbar_arrive(bar);
}
static __device__ __forceinline__ void warp_arrive(uint64_t *bar) {
    warp_arrive(bar, threadIdx.x % 32);
}
/* Returns once the phase of that parity is over; a fresh barrier passes parity 1. */
static __device__ __forceinline__ void mbar_wait(uint64_t *bar, int parity) {
    asm volatile("{\n.reg .pred p;\n"
                 "wait_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done_%=;\n"
                 "bra wait_%=;\n"
                 "done_%=:\n}\n" ::"r"(smem_addr(bar)),
                 "r"(parity)
                 : "memory");
}
static __device__ __forceinline__ void named_barrier(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/* An int of shared memory, read where the program says so, not where the int is used. */
static __device__ __forceinline__ int load_now(const int *from) {
    int x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(smem_addr(from)) : "memory");
    return x;
}
/* Orders this thread's ordinary shared-memory accesses before later ones of wgmma and TMA. */
static __device__ __forceinline__ void fence_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* The n-th use of a ring of N buffers (a power of two): which buffer, and the parity of its round.
 */
template <int N> __device__ __forceinline__ int ring_index(uint32_t n) {
    return n % N;
}
template <int N> __device__ __forceinline__ int ring_parity(uint32_t n) {
    return n / N & 1;
}

/* ---- TMA ------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void tma_load(void *dst, const CUtensorMap *map, int c0, int c1,
                                                int c2, uint64_t *bar) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(smem_addr(dst)),
                 "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(smem_addr(bar))
                 : "memory");
}
/* global += shared in fp32; coordinates must not be negative */
static __device__ __forceinline__ void tma_reduce_add(const CUtensorMap *map, int c0, int c1,
                                                      int c2, const void *src) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group"
                 " [%0, {%1, %2, %3}], [%4];" ::"l"(map),
                 "r"(c0), "r"(c1), "r"(c2), "r"(smem_addr(src))
                 : "memory");
}
static __device__ __forceinline__ void bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
static __device__ __forceinline__ void bulk_wait_read() { /* shared memory may be overwritten */
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
static __device__ __forceinline__ void bulk_wait() { /* results are in global memory */
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
static __device__ __forceinline__ void prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* ---- semaphores in global memory that order the work of CTAs --------------------------------- */

static __device__ __forceinline__ int32_t semaphore_read(const int32_t *semaphore) {
    int32_t x;
    asm volatile("ld.acquire.gpu.b32 %0, [%1];" : "=r"(x) : "l"(semaphore) : "memory");
    return x;
}
static __device__ __forceinline__ void semaphore_write(int32_t *semaphore, int32_t x) {
    asm volatile("st.release.gpu.b32 [%0], %1;" ::"l"(semaphore), "r"(x) : "memory");
}
/* Orders the copy engine's accesses to global memory with those of this thread. */
static __device__ __forceinline__ void fence_async_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* ---- registers ------------------------------------------------------------------------------- */

template <int N> __device__ __forceinline__ void registers_grow() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_shrink() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* The accumulators of 16 columns (block b) as an A operand: rows stay, so no shuffle is needed. */
template <int R>
__device__ __forceinline__ void pack_block(uint32_t (&a)[4], const float (&d)[R], int b) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(d[8 * b + 2 * i], d[8 * b + 2 * i + 1]);
}

static __device__ __forceinline__ void stmatrix(uint32_t addr, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(addr),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
static __device__ __forceinline__ void stmatrix_trans(uint32_t addr, const uint32_t (&r)[4]) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(addr),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
}

/* ---- wgmma ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Keeps the compiler from moving accesses to registers that a wgmma uses across this point. */
template <int R> __device__ __forceinline__ void wgmma_pin(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* Shared-memory descriptors of the tiles above. `panel_rows` is R of an MN-major tile wider
 * than 64. */
static __device__ __forceinline__ uint64_t desc_tile(uint32_t addr, int panel_rows = 0) {
    uint32_t lo = ((addr & 0x3FFFF) >> 4) | (uint32_t)(panel_rows * 8) << 16;
    return (uint64_t)(64u | 1u << 30) << 32 | lo;
}

/* Of a K-major operand without a swizzle: columns 0 to 7 of `rows` rows lie one after the other, 16
 * bytes each, then columns 8 to 15. */
static __device__ __forceinline__ uint64_t desc_rows(uint32_t addr, int rows) {
    return 8ull << 32 | (uint32_t)rows << 16 | (addr & 0x3FFFF) >> 4;
}

/* The descriptor `by` 16-byte units further on, inside shared memory: no carry into the upper half.
 */
static __device__ __forceinline__ uint64_t desc_plus(uint64_t desc, uint32_t by) {
    return (desc >> 32) << 32 | ((uint32_t)desc + by);
}

/* d[64, N] = a b (+ d if keep), one k16 step. T = 1: the operand is MN-major. Thread (g = lane / 4,
 * t = lane % 4) of warp w holds rows 16w + g (d[4i], d[4i+1]) and 16w + g + 8 (d[4i+2], d[4i+3]) at
 * columns 8i + 2t, 8i + 2t + 1. */
#define ACC8(d, i)                                                                                 \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define ACC32(d) ACC8(d, 0), ACC8(d, 8), ACC8(d, 16), ACC8(d, 24)
#define ACC40(d) ACC32(d), ACC8(d, 32)
#define ACC64(d) ACC40(d), ACC8(d, 40), ACC8(d, 48), ACC8(d, 56)
template <int TA, int TB>
__device__ __forceinline__ void wgmma_ss(float (&d)[32], uint64_t a, uint64_t b, int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, p, 1, 1, %35, %36;\n}\n"
                 : ACC32(d)
                 : "l"(a), "l"(b), "r"(keep), "n"(TA), "n"(TB));
}
template <int TB>
__device__ __forceinline__ void wgmma_rs(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                         int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}\n"
                 : ACC32(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TB));
}
template <int TA, int TB>
__device__ __forceinline__ void wgmma_ss(float (&d)[40], uint64_t a, uint64_t b, int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %42, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39}, "
                 "%40, %41, p, 1, 1, %43, %44;\n}\n"
                 : ACC40(d)
                 : "l"(a), "l"(b), "r"(keep), "n"(TA), "n"(TB));
}
template <int TB>
__device__ __forceinline__ void wgmma_rs(float (&d)[40], const uint32_t (&a)[4], uint64_t b,
                                         int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %45, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39}, "
                 "{%40, %41, %42, %43}, %44, p, 1, 1, %46;\n}\n"
                 : ACC40(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TB));
}
template <int TA, int TB>
__device__ __forceinline__ void wgmma_ss(float (&d)[64], uint64_t a, uint64_t b, int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39, "
                 " %40, %41, %42, %43, %44, %45, %46, %47, "
                 " %48, %49, %50, %51, %52, %53, %54, %55, "
                 " %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, p, 1, 1, %67, %68;\n}\n"
                 : ACC64(d)
                 : "l"(a), "l"(b), "r"(keep), "n"(TA), "n"(TB));
}
template <int TB>
__device__ __forceinline__ void wgmma_rs(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                         int keep) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 " %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, "
                 " %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39, "
                 " %40, %41, %42, %43, %44, %45, %46, %47, "
                 " %48, %49, %50, %51, %52, %53, %54, %55, "
                 " %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}\n"
                 : ACC64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(TB));
}

#endif
