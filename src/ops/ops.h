/* ops.h: seam 1, the table of everything that touches device memory. Two tables exist: "cpu" (fp32,
 * src/cpu/, the reference) and "cuda" (bf16, cuda/). Model, optimizer and context-parallel runtimes
 * are written once against it. ops.def lists what is in it, with the contract of each function.
 *
 * Conventions
 *   Arguments: outputs, inputs, sizes, stream. All pointers are device memory unless said.
 *   `void *` tensors hold the backend's activation type (`act_bytes` each: fp32 4, bf16 2);
 *   `float *` tensors are fp32 on every backend. Row-major, no padding between rows.
 *   Shape letters: S local tokens, C hidden, H query heads, K kv heads, D head dim, F ffn,
 *   V vocab (Vp padded), N and M plain matrix sides.
 *   Numeric ops return nothing: work is queued on `stream`, and a failure there surfaces in the
 * next stream_sync(). CPU streams are synchronous: the work is done when the call returns. Of a
 * table that is `deterministic` every op gives the same bits for the same inputs, in every run and
 * with any number of host threads. A copy of a table with other fields is a table, too. */
#ifndef CRIA_OPS_OPS_H
#define CRIA_OPS_OPS_H

#include "attn/tiles.h"
#include "base/base.h"
#include "ops/limits.h"

typedef struct Ops Ops;
typedef struct Event Event;       /* a point in a stream */
typedef struct AttnWork AttnWork; /* bands prepared for one attention call */

/* An in-order queue of device work. The CPU runs ops at once and takes NULL as well. */
typedef struct {
    const Ops *ops;        /* the table whose ops it is given to; may change between two of them */
    struct CUstream_st *s; /* a cudaStream_t; NULL on the CPU */
    void *workspace;       /* of the matrix products on it (cuda/gemm.cu) */
    struct Phases *phases; /* times what it does (ops/phases.h); NULL: not timed */
} Stream;

/* ---- arguments ---------------------------------------------------------------------------- */

/* One input of a matrix product. */
typedef struct {
    const void *data;
    Dtype type;
    const float *scale; /* device memory: every element counts times this. Only FP8 has one; NULL
                         * otherwise. */
} MatmulInput;

/* d[m,n] = op(a) op(b) + c, op(a)[m,k], op(b)[k,n], row-major. a and b are of the activation type,
 * or of FP8 types (not both F8_E5M2): then each lies with its k contiguous (transpose_a false,
 * transpose_b true), k is a multiple of FP8_UNIT and n of 8, and the scales enter after the sum. A
 * backend stops (REQUIRE) at types that it does not know. */
typedef struct {
    int64_t m, n, k;
    MatmulInput a, b;
    bool transpose_a, transpose_b; /* a lies as [k,m], b as [n,k] */
    const void *c; /* as d; NULL: nothing is added; may be d, at the price of one more rounding of
                    * the product when d is bf16 */
    void *d;
    Dtype d_type;
} Matmul;

/* Rows of FP8 matrices are padded to a multiple of this many elements, as cuBLASLt asks. */
enum { FP8_UNIT = 16 };

/* How the elements of a tensor fared in FP8. In device memory; added to. */
typedef struct {
    uint64_t elements;
    uint64_t zeros;     /* became 0 and were not */
    uint64_t saturated; /* became the format's largest value */
    float absmax;       /* the largest absolute value of all, before scaling */
} Fp8Counts;

/* x[R,C] in FP8, with one scale for all of it: x * (largest value / absmax), rounded to nearest. */
typedef struct {
    Dtype type;
    void *rows;          /* [R,C]; NULL: not wanted */
    void *columns;       /* [C,round_up(R,FP8_UNIT)]: transposed, padded with zeros; NULL */
    float *scale;        /* written: what an element of the result counts (1 / the factor) */
    Fp8Counts *counts;   /* NULL: nothing is counted */
    const void *x;       /* [R,C] of the activation type */
    const float *absmax; /* of x */
    int64_t R, C;
} Fp8Cast;

typedef struct {
    void *dx;          /* [S,C] */
    float *absmax;     /* of dx; NULL: not wanted */
    float *dw;         /* [C], added to */
    void *y;           /* [S,C]: the normalised output written again, so that it need not be kept;
                        * NULL: it is not */
    const void *dy;    /* [S,C] */
    const void *x, *w; /* [S,C], [C] */
    const float *rstd; /* [S] */
    const void *dres;  /* [S,C], added to dx; NULL: nothing; may be dx */
    int64_t S;
    int C;
} RmsnormBwd;

typedef struct {
    const int32_t *positions; /* [S] */
    const float *inv_freq;    /* [D/2] */
    int64_t S;
    int H, K, D;
} Rope;

typedef struct {
    int64_t Sq, Sk; /* rows of q and of kv that the buffers hold */
    int H, K, D;    /* H % K == 0: query head h reads kv head h / (H / K) */
    float scale;    /* of the scores, 1 / sqrt(D) */
} AttnShape;

typedef struct {
    void *o; /* [Sq,H,D], unless NULL gets the result rounded to the activation type */
    /* [Sq,H,D]. May be NULL on a call that is first and last (resume false, o not NULL) without
     * remote KV; with it, it is working memory, and o is not NULL. */
    float *o_acc;
    float *lse;         /* [H,Sq], natural */
    const void *q, *kv; /* [Sq,H,D], [Sk,2,K,D] */
    const AttnWork *work;
    /* false: o_acc and lse are fully written; rows that no band touches get o = 0, lse = -inf.
     * true: they hold an earlier stage's result and are continued. */
    bool resume;
} AttnFwd;

typedef struct {
    float *dq, *dkv;          /* [Sq,H,D], [Sk,2,K,D] */
    const void *d_o, *q, *kv; /* [Sq,H,D], [Sq,H,D], [Sk,2,K,D] */
    const float *lse, *delta; /* [H,Sq], the final ones */
    const AttnWork *work;
    /* false: fully written, zero where no band touches; true: added to. */
    bool accumulate_dq, accumulate_dkv;
} AttnBwd;

/* Cross entropy of logits[S,Vp], whose columns from V on take no part, and z-loss (PaLM; Chowdhery
 * et al., 2022), which keeps the logarithm lse of a row's sum of exponentials near 0. */
typedef struct {
    float *loss;           /* [S]: weights * cross entropy */
    float *z_loss;         /* [S]: weights * z_coef * lse^2; NULL: there is none. Only with grad */
    void *logits;          /* [S,Vp] */
    const int32_t *labels; /* [S] */
    const float *weights;  /* [S]; a row of weight 0 gives 0 and is not read, nor is its label */
    float z_coef;
    bool grad; /* logits become the gradient of loss + z_loss, 0 in the padding */
    int64_t S;
    int V, Vp;
} CrossEntropy;

typedef struct {
    float lr, beta1, beta2, eps, weight_decay;
    float bias1, bias2; /* 1 - beta1^t, 1 - beta2^t for update t >= 1 */
    float grad_scale;   /* multiplies the gradient: clipping and 1 / token count */
} AdamwStep;

/* ---- the table ---------------------------------------------------------------------------- */

struct FIELDS_BY_NAME Ops {
    const char *name;        /* "cpu", "cuda" */
    const char *device_name; /* of the GPU, as its driver calls it; "cpu" on the CPU */
    int act_bytes;
    Dtype act_dtype;
    bool host_memory;         /* device pointers can be read and written by the host directly */
    const GpuProperties *gpu; /* what limits the models it can run; NULL: nothing does */
    /* false: the fastest kernels, some of which add in any order; true: the same inputs give the
     * same bits in every run, as always on the CPU */
    bool deterministic;
    struct Meter *meter; /* of a table that passes every call on to another one, timed (bench/) */
#define OP(result, name, class, parameters, arguments, cost) result(*name) parameters;
#define HOST_OP(result, name, parameters)                    result(*name) parameters;
#include "ops/ops.def"
};

/* One to one for every i. (The finisher of splitmix64; Steele et al., 2014) */
#ifdef __CUDACC__
__host__ __device__
#endif
    static inline uint64_t
    checksum_mix(uint64_t word, int64_t i) {
    uint64_t x = word + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

const Ops *cpu_ops(void);

/* The GPU backend on the local_rank-th visible GPU. ERR_ENV with a message when this binary holds
 * none or no usable GPU is there, ERR_USER when the GPU is too old. */
Status cuda_ops_open(const Ops **ops, int local_rank, bool deterministic);
extern const bool cuda_built;      /* does this binary hold the GPU backend? */
extern const int cuda_toolkit;     /* the CUDA that built it, such as 12040 for 12.4; 0: none */
extern const char cuda_replaced[]; /* what stands in for what that CUDA lacks; "": nothing */

#endif
