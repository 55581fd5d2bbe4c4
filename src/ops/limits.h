/* limits.h: which models the CUDA row of Ops can run on which GPU: a pure function of sizes and
 * of the GPU's properties, so that a plan or a dry run without a GPU refuses what training on one
 * would. cuda/ takes its limits from here. tests/test_ops_limits.c holds them against every
 * kernel's launch. */
#ifndef CRIA_OPS_LIMITS_H
#define CRIA_OPS_LIMITS_H

#include "base/base.h"

typedef struct {
    const char *name;     /* as the driver calls it */
    int capability;       /* compute capability, 10 * major + minor */
    int64_t shared_bytes; /* most shared memory of a block (opt-in, static and dynamic) */
    char pci_bus_id[16];  /* "0000:1a:00.0"; empty: not known */
} GpuProperties;

/* What an H100 or H200 has; no GPU has more shared memory. Stands in where there is no GPU to ask.
 */
extern const GpuProperties gpu_h100;

typedef struct {
    int64_t rows; /* tokens of a micro-batch on one rank */
    int hidden, heads, kv_heads, head_dim, ffn;
    bool fp8; /* precision: fp8 */
} ModelSizes;

enum {
    GPU_CAPABILITY_MIN = 80,        /* bf16 mma, cp.async: Ampere */
    GPU_FP8_CAPABILITY = 89,        /* FP8 products: Ada, Hopper */
    GPU_HEAD_DIM_UNIT = 16,         /* attention: the depth of one mma */
    GPU_HEAD_DIM_MAX = 128,         /* attention: shared memory, registers */
    GPU_RMSNORM_STATIC_BYTES = 128, /* shared memory of rmsnorm_bwd beside 4 bytes a column */
    GPU_SWIGLU_THREADS = 256        /* columns of a block of swiglu, or 8 times as many */
};

/* The kernels of Hopper, or else the portable ones? */
static inline bool gpu_hopper_attention(int capability, int head_dim) {
    return capability / 10 == 9 && (head_dim == 64 || head_dim == 128);
}

/* What some kernel cannot run. */
typedef struct {
    const char *key; /* "model.head_dim" */
    char text[240];  /* "found ..., expected ..." */
} GpuProblem;
enum { GPU_PROBLEMS_MAX = 4 };

/* Returns how many there are. Sizes are within the bounds of their keys and heads a multiple of
 * kv_heads. */
int gpu_model_problems(const GpuProperties *gpu, const ModelSizes *m,
                       GpuProblem out[GPU_PROBLEMS_MAX]);
/* ERR_USER lists all of them. */
Status gpu_check_model(const GpuProperties *gpu, const ModelSizes *m);
/* Of one attention call: ERR_USER. */
Status gpu_check_head_dim(int head_dim);

#endif
