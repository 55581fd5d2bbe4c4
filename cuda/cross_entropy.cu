/* cross_entropy.cu: loss = w (log sum exp(x) - x[label]) and, in place, its gradient
 * w (softmax(x) - onehot), over logits[S,Vp] whose columns from V on are padding. With z-loss, also
 * w z lse^2 where lse = log sum exp(x), and in place w (softmax(x) (1 + 2 z lse) - onehot).
 *
 * Two passes over a row: an online maximum and sum of exponentials (Milakov and Gimelshein, 2018),
 * then the gradient. Bytes of device memory: 2 S V forward, 4 S V with the gradient. One FMA and
 * one exponential per element and pass; at V = 128256 the exponentials of a row take half as long
 * as its bytes do, so they must go on while bytes move.
 *
 * The gradient of aligned rows of up to 131072 columns (kept_kernel): a block of 1024 threads per
 * SM keeps whole rows in shared memory, what does not fit of them in registers. While it writes a
 * row's gradient it reads a later row into the same place, so that memory is busy in either pass. A
 * thread reads in both passes what it has itself copied: no barrier beside those of the sums.
 *
 * Other rows, and the loss alone (cross_entropy_kernel): a block per row, whose second pass reads
 * the logits again. At V = 128256 the rows under way have 34 MB, and their gradients as much: more
 * than L2 holds. The same sums in the same order.
 *
 * Rate of the gradient on an H200, of a copy's: 78 % at V = 128256 (in the step of the example 1B
 * 80 %, with a block per row 68 %), 66 % at V = 50257, as with a block per row. */
#include "common.cuh"
#include "ptx.cuh"

#include <float.h>

enum { THREADS = 1024, IN_FLIGHT = 4 };

template <int W> static __device__ __forceinline__ void zero_row(bf16 *x, int Vp) {
    const float zero[W] = {};
    for (int c = threadIdx.x * W; c < Vp; c += THREADS * W) store(x + c, zero);
}

/* ---- W logits, from column `at` on -------------------------------------------------------------
 */

/* -inf where there are no logits */
template <int W> static __device__ __forceinline__ void cut(float (&v)[W], int at, int V) {
#pragma unroll
    for (int i = 0; i < W; i++)
        if (at + i >= V) v[i] = -INFINITY;
}

template <int W> static __device__ __forceinline__ float max_of(const float (&v)[W], float max) {
#pragma unroll
    for (int i = 0; i < W; i++) max = fmaxf(max, v[i]);
    return max;
}

/* shift: the maximum times LOG2E */
template <int W>
static __device__ __forceinline__ float add_exp(float sum, const float (&v)[W], float shift) {
#pragma unroll
    for (int i = 0; i < W; i++) sum += exp2_fast(fmaf(v[i], LOG2E, -shift));
    return sum;
}

/* What makes a logit its gradient: exp(logit - max) * scale, less weight at the label. */
struct RowGradient {
    float shift, scale, weight;
    int label;
};

template <int W>
static __device__ __forceinline__ void write(bf16 *x, float (&v)[W], int at, int Vp,
                                             const RowGradient &g) {
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = exp2_fast(fmaf(v[i], LOG2E, -g.shift)) * g.scale;
    if ((unsigned)(g.label - at) < W) {
#pragma unroll
        for (int i = 0; i < W; i++)
            if (at + i == g.label) v[i] -= g.weight;
    }
    if (at < Vp) store(x + at, v);
}

/* ---- a row -------------------------------------------------------------------------------------
 */

struct Losses {
    float *loss, *z_loss;
    float z_coef;
};

/* Of a thread; sum: of exp(logit - max) */
struct RowSum {
    float max = -FLT_MAX / 2; /* finite, so that -inf minus it is no NaN */
    float sum = 0;

    /* Before logits are added whose maximum with max is the new one. */
    __device__ __forceinline__ void raise(float to) {
        sum *= exp2_fast(fmaf(max, LOG2E, -(to * LOG2E)));
        max = to;
    }
};

/* A row of weight 0 may hold anything, as may its label. */
template <bool Z>
static __device__ __forceinline__ void write_no_loss(const Losses &out, int64_t row) {
    if (threadIdx.x != 0) return;
    out.loss[row] = 0;
    if (Z) out.z_loss[row] = 0;
}

/* From the threads' sums; picked: the logit of the label. */
template <bool Z>
static __device__ __forceinline__ RowGradient row_end(const Losses &out, int64_t row, RowSum own,
                                                      float picked, float weight, int label) {
    float row_max = block_max(own.max), shift = row_max * LOG2E;
    float sum = block_sum(own.sum * exp2_fast(own.max * LOG2E - shift));
    if (threadIdx.x == 0) out.loss[row] = weight * (logf(sum) + row_max - picked);
    float scale = weight / sum;
    if (Z) {
        float lse = logf(sum) + row_max;
        if (threadIdx.x == 0) out.z_loss[row] = weight * out.z_coef * lse * lse;
        scale *= 1 + 2 * out.z_coef * lse;
    }
    return {shift, scale, weight, label};
}

/* ---- a block per row ---------------------------------------------------------------------------
 */

/* IN_FLIGHT accesses, THREADS W columns apart. */
template <int W>
static __device__ __forceinline__ void load_some(float (&v)[IN_FLIGHT][W], const bf16 *x, int c,
                                                 int V) {
#pragma unroll
    for (int j = 0; j < IN_FLIGHT; j++) {
        int at = c + j * THREADS * W;
        if (at < V) load(v[j], x + at);
        cut(v[j], at, V);
    }
}

/* Z: with z-loss */
template <int W, bool GRAD, bool Z>
static __global__ void __launch_bounds__(THREADS)
    cross_entropy_kernel(Losses out, bf16 *logits, const int32_t *labels, const float *weights,
                         int V, int Vp) {
    int64_t row = blockIdx.x;
    bf16 *x = logits + row * Vp;
    float weight = weights[row];
    if (weight == 0) {
        write_no_loss<Z>(out, row);
        if (GRAD) zero_row<W>(x, Vp);
        return;
    }
    int label = labels[row];
    float picked = __bfloat162float(x[label]); /* read by all before any writes: barriers below */

    RowSum s;
    for (int c = threadIdx.x * W; c < V; c += IN_FLIGHT * THREADS * W) {
        float v[IN_FLIGHT][W], max = s.max;
        load_some(v, x, c, V);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) max = max_of(v[j], max);
        s.raise(max);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) s.sum = add_exp(s.sum, v[j], max * LOG2E);
    }
    RowGradient gradient = row_end<Z>(out, row, s, picked, weight, label);
    for (int c = threadIdx.x * W; GRAD && c < Vp; c += IN_FLIGHT * THREADS * W) {
        float v[IN_FLIGHT][W];
        load_some(v, x, c, V);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) write(x, v[j], c + j * THREADS * W, Vp, gradient);
    }
}

/* ---- rows that are kept ------------------------------------------------------------------------
 */

/* Rows of up to GROUPS times IN_FLIGHT accesses of 16 bytes a thread, AHEAD of them at a time, in
 * slots of shared memory: 14 slots for each thread are 224 KiB. */
template <int GROUPS, int AHEAD> struct Kept {
    enum {
        W = 8,
        COLUMNS = GROUPS * IN_FLIGHT * THREADS * W,
        ALL = GROUPS * IN_FLIGHT,
        SLOTS = ALL < 14 ? ALL : 14,
        REGISTERS = ALL - SLOTS, /* accesses that are kept in registers */
        SHARED_BYTES = AHEAD * SLOTS * THREADS * 16
    };
    static_assert(AHEAD * SLOTS <= 14 && (REGISTERS == 0 || AHEAD == 1), "");

    uint4 registers[REGISTERS > 0 ? REGISTERS : 1];

    static __device__ __forceinline__ uint4 *slot(int place, int i) {
        extern __shared__ uint4 slots[];
        return slots + (place * SLOTS + i) * THREADS + threadIdx.x;
    }

    /* Columns, x, V and Vp below are relative to the thread's first column, so that what is added
     * to them is known when compiled. */
    static __device__ __forceinline__ int column(int i) { return i * THREADS * W; }

    /* Begins to copy group g of row x to place `place`. Every call is one group of cp.async. */
    __device__ __forceinline__ void fetch(int place, int g, const bf16 *x, bool wanted, int V) {
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) {
            int i = g * IN_FLIGHT + j;
            if (!wanted || column(i) >= V) continue;
            if (i < SLOTS)
                asm volatile(
                    "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem_addr(slot(place, i))),
                    "l"(x + column(i))
                    : "memory");
            else
                registers[i - SLOTS] = *reinterpret_cast<const uint4 *>(x + column(i));
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    /* Access i of the row at `place`, whose copy has been waited for. */
    __device__ __forceinline__ uint4 take(int place, int i) const {
        if (i >= SLOTS) return registers[i - SLOTS];
        uint4 raw; /* volatile: read at every use, as registers are short */
        asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                     : "r"(smem_addr(slot(place, i)))
                     : "memory");
        return raw;
    }
    __device__ __forceinline__ void take(float (&v)[W], int place, int i, int V) const {
        uint4 raw = take(place, i);
        load(v, reinterpret_cast<const bf16 *>(&raw));
        if (column(i) + W > V) cut(v, column(i), V);
    }
    /* The larger of max and the logits of group g, in pairs while all of an access counts. */
    __device__ __forceinline__ float max_of_group(float max, int place, int g, int V) const {
        __nv_bfloat162 pair = __float2bfloat162_rn(-INFINITY);
#pragma unroll
        for (int j = 0; j < IN_FLIGHT; j++) {
            int i = g * IN_FLIGHT + j;
            if (column(i) + W > V) {
                float v[W];
                take(v, place, i, V);
                max = max_of(v, max);
            } else {
                uint4 raw = take(place, i);
                const __nv_bfloat162 *p = reinterpret_cast<const __nv_bfloat162 *>(&raw);
#pragma unroll
                for (int k = 0; k < 4; k++) pair = __hmax2(pair, p[k]);
            }
        }
        float2 both = __bfloat1622float2(pair);
        return fmaxf(max, fmaxf(both.x, both.y));
    }
};

/* Until all but the n groups of cp.async that began last are there; n is known when compiled. */
static __device__ __forceinline__ void wait_but(int n) {
    switch (n) {
    case 0:
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        break;
    case 1:
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        break;
    case 2:
        asm volatile("cp.async.wait_group 2;" ::: "memory");
        break;
    default:
        asm volatile("cp.async.wait_group 3;" ::: "memory");
    }
}

template <int GROUPS, int AHEAD, bool Z>
static __global__ void __launch_bounds__(THREADS, 1)
    kept_kernel(Losses out, bf16 *logits, const int32_t *labels, const float *weights, int S, int V,
                int Vp) {
    typedef Kept<GROUPS, AHEAD> K;
    K kept;
    const int stride = gridDim.x, first = threadIdx.x * K::W;
    float weight[AHEAD]; /* of the rows that are kept; 0: is not */
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        int row = blockIdx.x + k * stride;
        const bf16 *x = logits + (int64_t)row * Vp + first;
        weight[k] = row < S ? weights[row] : 0;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) kept.fetch(k, g, x, weight[k] != 0, V - first);
    }
    int place = 0;
    for (int row = blockIdx.x; row < S; row += stride) {
        bf16 *x = logits + (int64_t)row * Vp;
        const bf16 *later = x + (int64_t)AHEAD * stride * Vp + first;
        float later_weight = row + AHEAD * stride < S ? weights[row + AHEAD * stride] : 0;
        if (weight[0] == 0) {
            write_no_loss<Z>(out, row);
            zero_row<K::W>(x, Vp);
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
                kept.fetch(place, g, later, later_weight != 0, V - first);
        } else {
            int label = labels[row];
            float picked = __bfloat162float(x[label]); /* as above */
            RowSum s;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                wait_but(AHEAD * GROUPS - 1 - g);
                if (K::column(g * IN_FLIGHT) >= V - first) break;
                s.raise(kept.max_of_group(s.max, place, g, V - first));
#pragma unroll
                for (int j = 0; j < IN_FLIGHT; j++) {
                    float v[K::W];
                    kept.take(v, place, g * IN_FLIGHT + j, V - first);
                    s.sum = add_exp(s.sum, v, s.max * LOG2E);
                }
            }
            RowGradient gradient = row_end<Z>(out, row, s, picked, weight[0], label - first);
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
#pragma unroll
                for (int j = 0; j < IN_FLIGHT; j++) {
                    float v[K::W];
                    int i = g * IN_FLIGHT + j;
                    kept.take(v, place, i, V - first);
                    write(x + first, v, K::column(i), Vp - first, gradient);
                }
                /* The stores have the values: what comes may take their place. */
                kept.fetch(place, g, later, later_weight != 0, V - first);
            }
        }
#pragma unroll
        for (int k = 0; k + 1 < AHEAD; k++) weight[k] = weight[k + 1];
        weight[AHEAD - 1] = later_weight;
        place = place + 1 < AHEAD ? place + 1 : 0;
    }
}

/* False: the rows do not fit. */
template <int GROUPS, int AHEAD>
static bool launch_kept(const CrossEntropy *a, const Losses &out, Stream *stream) {
    typedef Kept<GROUPS, AHEAD> K;
    int device, bytes;
    if (a->Vp > K::COLUMNS) return false;
    CUDA_CHECK_DEFERRED(cudaGetDevice(&device));
    CUDA_CHECK_DEFERRED(
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    if (bytes < K::SHARED_BYTES + 2 * 32 * (int)sizeof(float)) return false; /* and of the sums */
    auto kernel =
        out.z_loss != NULL ? kept_kernel<GROUPS, AHEAD, true> : kept_kernel<GROUPS, AHEAD, false>;
    CUDA_CHECK_DEFERRED(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, K::SHARED_BYTES));
    unsigned blocks = (unsigned)i64_min(a->S, cuda_sm_count());
    kernel<<<blocks, THREADS, K::SHARED_BYTES, stream->s>>>(out, (bf16 *)a->logits, a->labels,
                                                            a->weights, (int)a->S, a->V, a->Vp);
    return true;
}

void cuda_cross_entropy(const CrossEntropy *a, Stream *stream) {
    REQUIRE(a->z_loss == NULL || a->grad);
    if (a->S == 0) return;
    const Losses out = {a->loss, a->z_loss, a->z_coef};
    bool wide = a->Vp % 8 == 0 && aligned16({a->logits});
    bool done = wide && a->grad &&
                (launch_kept<1, 3>(a, out, stream) || launch_kept<2, 1>(a, out, stream) ||
                 launch_kept<3, 1>(a, out, stream) || launch_kept<4, 1>(a, out, stream));
    if (!done)
        with_width(wide, [&](auto width) {
            constexpr int W = decltype(width)::value;
            auto kernel = a->z_loss != NULL ? cross_entropy_kernel<W, true, true>
                          : a->grad         ? cross_entropy_kernel<W, true, false>
                                            : cross_entropy_kernel<W, false, false>;
            kernel<<<(unsigned)a->S, THREADS, 0, stream->s>>>(out, (bf16 *)a->logits, a->labels,
                                                              a->weights, a->V, a->Vp);
        });
    CUDA_CHECK_LAUNCH("cross_entropy");
}
