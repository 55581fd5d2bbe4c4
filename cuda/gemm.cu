/* gemm.cu: matrix products (Matmul in ops.h) by cuBLASLt.
 *
 * 2 m n k FLOPs each, bf16 or FP8 inputs, fp32 sums. cuBLASLt is column-major: a row-major [r,c]
 * matrix is its [c,r] matrix of leading dimension c, so each product is asked for transposed: its A
 * is our b, its B our a. c enters as beta C, in the same pass over the output.
 *
 * A plan, descriptors and algorithm, is made once for each shape. Where the table is deterministic
 * the algorithm is cuBLASLt's first suggestion, the same in every run. Elsewhere the
 * suggestions are timed when a shape is first met, and another one is taken if it is more than 3 %
 * faster. Of FP8 products only the forward sums with the tensor cores' fast accumulation, which
 * keeps fewer bits: gradients lose more by it (as Transformer Engine and torchao choose). Every
 * algorithm admitted here sums in a fixed order and in fp32 (no splits that are joined in bf16). */
#include "common.cuh"
#include "ops/fp8.h"
#include "tuning.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

/* d[m,n] = op(a)[m,k] op(b)[k,n] + c, column-major; no padding, so comparable by bytes */
typedef struct {
    int64_t m, n, k;
    int32_t transpose_a, transpose_b;           /* how a and b lie: [k,m] and [n,k] when set */
    int32_t type_a, type_b, type_d;             /* Dtype; c has d's */
    int32_t align_a, align_b, align_c, align_d; /* bytes */
    int32_t add, in_place;                      /* c is there; c is d */
    int32_t tuned;                              /* the algorithm is chosen by timing */
    int32_t fast_sums;                          /* FP8: fast accumulation */
} Shape;

typedef struct {
    Shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d; /* c is laid out as d */
    cublasLtMatmulAlgo_t algorithm;
} Plan;

typedef struct {
    void *d;
    const void *a, *b, *c;
    const float *scale_a, *scale_b; /* of FP8 inputs, else NULL */
} Operands;

/* A cache for the process and its one GPU: a plan depends on its shape alone. Ops are called by one
 * thread. */
static struct {
    cublasLtHandle_t handle;
    Plan *plans;
    int64_t count, capacity;
} gemms;

static bool check_deferred(cublasStatus_t status, const char *op, int line) {
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    cuda_record_error(op, cublasLtGetStatusString(status), __FILE__, line);
    return false;
}
#define CUBLAS_CHECK_DEFERRED(op, call) check_deferred((call), (op), __LINE__)

Status cuda_gemm_open(void) {
    if (gemms.handle == NULL)
        CUBLAS_CHECK_DEFERRED("cublasLtCreate", cublasLtCreate(&gemms.handle));
    return cuda_deferred_error();
}

static cudaDataType_t cuda_type(int32_t type) {
    switch (type) {
    case DT_F32:
        return CUDA_R_32F;
    case DT_BF16:
        return CUDA_R_16BF;
    case DT_F8_E4M3:
        return CUDA_R_8F_E4M3;
    default:
        REQUIRE(type == DT_F8_E5M2);
        return CUDA_R_8F_E5M2;
    }
}

static void *workspace_of(Stream *stream) {
    if (stream->workspace == NULL)
        stream->workspace =
            cuda_scratch_new((int64_t)GEMM_WORKSPACE, "workspace for matrix products", stream->s);
    return stream->workspace;
}

static cublasStatus_t multiply(const Plan *p, const cublasLtMatmulAlgo_t *algorithm, Operands o,
                               Stream *stream) {
    float alpha = 1, beta = p->shape.add ? 1.0f : 0.0f;
    return cublasLtMatmul(gemms.handle, p->product, &alpha, o.a, p->a, o.b, p->b, &beta,
                          o.c != NULL ? o.c : o.d, p->d, o.d, p->d, algorithm, workspace_of(stream),
                          GEMM_WORKSPACE, stream->s);
}

/* ---- choosing an algorithm ------------------------------------------------------------------ */

/* Milliseconds of the fastest of a few runs; a huge number when it does not run. */
static float time_one(const Plan *p, const cublasLtMatmulAlgo_t *algorithm, Operands o,
                      Stream *stream, const cudaEvent_t event[2]) {
    const float never = 1e30f;
    float best = never;
    for (int i = 0; i <= GEMM_ROUNDS; i++) { /* the first run warms up */
        float ms = 0;
        cudaEventRecord(event[0], stream->s);
        if (multiply(p, algorithm, o, stream) != CUBLAS_STATUS_SUCCESS) return never;
        cudaEventRecord(event[1], stream->s);
        if (!CUDA_CHECK_DEFERRED(cudaEventSynchronize(event[1]))) return never;
        cudaEventElapsedTime(&ms, event[0], event[1]);
        if (i > 0 && ms < best) best = ms;
    }
    return best;
}

/* Where d is also an input, into scratch: timing must leave it as it is. Without memory for that
 * the first suggestion stands. */
static int fastest(const Plan *p, const cublasLtMatmulHeuristicResult_t *found, int n, Operands o,
                   Stream *stream) {
    int64_t bytes = p->shape.m * p->shape.n * dtype_bytes((Dtype)p->shape.type_d);
    void *scratch = NULL;
    cudaEvent_t event[2];
    if (p->shape.in_place) {
        if (cudaMalloc(&scratch, (size_t)bytes) != cudaSuccess) {
            cudaGetLastError();
            return 0;
        }
        CUDA_CHECK_DEFERRED(cudaMemsetAsync(scratch, 0, (size_t)bytes, stream->s));
        o.c = o.d = scratch;
    }
    CUDA_CHECK_DEFERRED(cudaEventCreate(&event[0]));
    CUDA_CHECK_DEFERRED(cudaEventCreate(&event[1]));
    int best = 0;
    float least = time_one(p, &found[0].algo, o, stream, event);
    for (int i = 1; i < n; i++) {
        float ms = time_one(p, &found[i].algo, o, stream, event);
        if (ms < (1 - GEMM_MIN_GAIN) * least) best = i, least = ms;
    }
    CUDA_CHECK_DEFERRED(cudaEventDestroy(event[0]));
    CUDA_CHECK_DEFERRED(cudaEventDestroy(event[1]));
    CUDA_CHECK_DEFERRED(cudaFree(scratch));
    return best;
}

template <class T>
static bool prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what,
                   T value, const char *op) {
    return CUBLAS_CHECK_DEFERRED(
        op, cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value));
}

static bool choose_algorithm(Plan *p, Operands o, const char *op, Stream *stream) {
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[GEMM_CANDIDATES];
    const Shape *s = &p->shape;
    int n = 0;
    if (!CUBLAS_CHECK_DEFERRED(op, cublasLtMatmulPreferenceCreate(&preference))) return false;
    bool valid =
        prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)GEMM_WORKSPACE,
               op) &&
        prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
               (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, op) &&
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)s->align_a, op) &&
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)s->align_b, op) &&
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)s->align_c, op) &&
        prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)s->align_d, op) &&
        CUBLAS_CHECK_DEFERRED(op, cublasLtMatmulAlgoGetHeuristic(gemms.handle, p->product, p->a,
                                                                 p->b, p->d, p->d, preference,
                                                                 GEMM_CANDIDATES, found, &n));
    cublasLtMatmulPreferenceDestroy(preference);
    if (!valid) return false;
    if (n == 0) {
        cuda_record_error(op, "cuBLASLt has no algorithm for this shape", __FILE__, __LINE__);
        return false;
    }
    bool tune = s->tuned && n > 1;
    p->algorithm = found[tune ? fastest(p, found, n, o, stream) : 0].algo;
    return true;
}

/* ---- plans ---------------------------------------------------------------------------------- */

static bool make_layout(cublasLtMatrixLayout_t *layout, cudaDataType_t type, int64_t rows,
                        int64_t columns, const char *op) {
    return CUBLAS_CHECK_DEFERRED(
        op, cublasLtMatrixLayoutCreate(layout, type, (uint64_t)rows, (uint64_t)columns, rows));
}

template <class T>
static bool set_attribute(const Plan *p, cublasLtMatmulDescAttributes_t what, T value,
                          const char *op) {
    return CUBLAS_CHECK_DEFERRED(
        op, cublasLtMatmulDescSetAttribute(p->product, what, &value, sizeof value));
}

static bool describe(Plan *p, const char *op) {
    const Shape *s = &p->shape;
    cublasOperation_t ta = s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t tb = s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    int64_t m = s->m, n = s->n, k = s->k;
    return CUBLAS_CHECK_DEFERRED(
               op, cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           set_attribute(p, CUBLASLT_MATMUL_DESC_TRANSA, ta, op) &&
           set_attribute(p, CUBLASLT_MATMUL_DESC_TRANSB, tb, op) &&
           make_layout(&p->a, cuda_type(s->type_a), s->transpose_a ? k : m, s->transpose_a ? m : k,
                       op) &&
           make_layout(&p->b, cuda_type(s->type_b), s->transpose_b ? n : k, s->transpose_b ? k : n,
                       op) &&
           make_layout(&p->d, cuda_type(s->type_d), m, n, op);
}

/* A plan serves products of one shape whose scales lie at different places. */
static bool set_scales(const Plan *p, Operands o, const char *op) {
    if (o.scale_a == NULL) return true;
    return set_attribute(p, CUBLASLT_MATMUL_DESC_FAST_ACCUM, (int8_t)p->shape.fast_sums, op) &&
           set_attribute(p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, o.scale_a, op) &&
           set_attribute(p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, o.scale_b, op);
}

static const Plan *plan_for(const Shape *shape, Operands o, const char *op, Stream *stream) {
    for (int64_t i = 0; i < gemms.count; i++)
        if (memcmp(&gemms.plans[i].shape, shape, sizeof *shape) == 0)
            return set_scales(&gemms.plans[i], o, op) ? &gemms.plans[i] : NULL;
    if (gemms.count == gemms.capacity) {
        gemms.capacity = i64_max(32, 2 * gemms.capacity);
        gemms.plans = (Plan *)mem_grow(gemms.plans, gemms.capacity, sizeof(Plan));
    }
    Plan *p = &gemms.plans[gemms.count];
    memset(p, 0, sizeof *p);
    p->shape = *shape;
    if (!describe(p, op) || !set_scales(p, o, op) || !choose_algorithm(p, o, op, stream))
        return NULL;
    gemms.count++;
    return p;
}

/* The largest power of two, at most 256, that the address is a multiple of. */
static int32_t alignment(const void *p) {
    uintptr_t bits = (uintptr_t)p | 256;
    return (int32_t)(bits & -bits);
}

/* fast_sums: of FP8 inputs */
static void matmul(const Matmul *x, bool fast_sums, const char *op, Stream *stream) {
    bool fp8 = dtype_is_fp8(x->a.type);
    REQUIRE(dtype_is_fp8(x->b.type) == fp8 && (x->a.scale != NULL) == fp8 &&
            (x->b.scale != NULL) == fp8);
    REQUIRE(!fp8 || (!x->transpose_a && x->transpose_b && x->k % FP8_UNIT == 0));
    if (x->m == 0 || x->n == 0 || x->k == 0) return;
    Operands o = {x->d, x->b.data, x->a.data, x->c, x->b.scale, x->a.scale};
    Shape shape = {};
    shape.m = x->n, shape.n = x->m, shape.k = x->k;
    shape.transpose_a = x->transpose_b;
    shape.transpose_b = x->transpose_a;
    shape.type_a = x->b.type;
    shape.type_b = x->a.type;
    shape.type_d = x->d_type;
    shape.align_a = alignment(o.a);
    shape.align_b = alignment(o.b);
    shape.align_d = alignment(o.d);
    shape.align_c = o.c != NULL ? alignment(o.c) : shape.align_d;
    shape.add = o.c != NULL;
    shape.in_place = o.c == o.d;
    shape.tuned = !stream->ops->deterministic;
    shape.fast_sums = fp8 && fast_sums;
    if (workspace_of(stream) == NULL) return;
    const Plan *p = plan_for(&shape, o, op, stream);
    if (p != NULL) CUBLAS_CHECK_DEFERRED(op, multiply(p, &p->algorithm, o, stream));
}

void cuda_linear_fwd(const Matmul *p, Stream *stream) {
    matmul(p, true, "linear_fwd", stream);
}

void cuda_linear_dgrad(const Matmul *p, Stream *stream) {
    matmul(p, false, "linear_dgrad", stream);
}

void cuda_linear_wgrad(const Matmul *p, Stream *stream) {
    matmul(p, false, "linear_wgrad", stream);
}
