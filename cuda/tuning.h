/* tuning.h: the constants of cuda/ and of src/attn/tiles.c that measurements chose: name, value,
 * GPU, how it was measured, and the commit that brought it ("figures": tests/results; "none kept":
 * no figures were kept). Sizes follow the device's L2 cache and counts its SMs. Tile shapes, stages
 * and registers stay in the kernels whose code depends on them, whose headers say what was
 * measured. */
#ifndef CRIA_CUDA_TUNING_H
#define CRIA_CUDA_TUNING_H

#include <stddef.h>
#include <stdint.h>

/* The L2 cache of the GPU on which the sizes below were measured, in MiB. */
constexpr int64_t TUNED_L2_MIB = 60;

/* So many MiB on the H200, and in proportion to its L2 cache on another GPU. */
static inline int64_t l2_share(int64_t mib, int64_t l2_cache_bytes) {
    return l2_cache_bytes * mib / TUNED_L2_MIB;
}

/* ---- attention: the order of items (attention_sm90.cuh) ----------------------------------------
 * Heads walked at the same time are as many as these sizes hold. */
constexpr int64_t FWD_L2_MIB = 32;        /* K and V; H200; none kept; 148048b */
constexpr int64_t BWD_L2_MIB = 64;        /* q, dO and dq; H200; none kept; 148048b */
constexpr int64_t BWD_REMOTE_L2_MIB = 48; /* with remote KV; H200; none kept; b8fe6fa */
constexpr int64_t BWD_ALL_L2_MIB = 100;   /* all heads, then walked at once; none kept; f5f62bd */
/* How long the splits of a head group wait for one another, in steps an item and link; H200; causal
 * 2k with every number of splits, figures in attention_sm90_bwd.cu; 6eac125. */
constexpr double BWD_SPLIT_WAIT_STEPS = 3.0;

/* ---- attention: the estimate of a forward (attn/tiles.c) ----------------------------------------
 */
/* A step of a tile, H200. D = 128: none kept; 776ee89. D = 64: causal 8k in the state "burst", 485
 * us for 344 steps a CTA; 149f5f4. */
constexpr double FWD_STEP_US_D128 = 1.5, FWD_STEP_US_D64 = 1.4;
/* What an item costs beside its steps, passing o and lse on, and the least gain, which is the error
 * of the estimate; two and four H200; bench cp, fused magi, 8k, split and not, figures; 776ee89. */
constexpr double FWD_ITEM_STEPS = 0.5, FWD_SPLIT_PASS_US = 2.2;
constexpr int FWD_MIN_SPLIT_STEPS = 4;
constexpr double FWD_MIN_GAIN = 0.05, FWD_MIN_GAIN_US = 8;

/* ---- matrix products (gemm.cu): algorithms timed for a shape, rounds of each, and the gain that
 * changes the choice; workspace of cuBLASLt; H200; none kept; 7b62d1a ---- */
constexpr int GEMM_CANDIDATES = 8, GEMM_ROUNDS = 5;
constexpr float GEMM_MIN_GAIN = 0.03f;
constexpr size_t GEMM_WORKSPACE = 64 << 20;

#endif
