/* cases.h: what the attention benchmarks run on: masks, and the list of cases that settings ask
 * for. */
#ifndef CRIA_BENCH_CASES_H
#define CRIA_BENCH_CASES_H

#include "attn/mask.h"
#include "bench/arguments.h"
#include "ops/ops.h"

typedef enum { BENCH_CAUSAL, BENCH_FULL, BENCH_DOCUMENT, BENCH_WINDOW, BENCH_MASKS } BenchMask;

/* Where the documents of T packed tokens begin (`begin` holds T entries); returns their number.
 * Lengths are log-uniform in [100, 4000], the last one cut: int(exp(log 100 + u (log 4000 - log
 * 100))), u drawn as PyTorch's CPU generator of this seed draws torch.rand(1), so that a script in
 * PyTorch can use the same documents. */
int64_t bench_documents(uint32_t seed, int64_t T, int32_t *begin);

typedef struct {
    int H, K, D;
    int64_t B, T; /* B sequences of T tokens */
    BenchMask mask;
    int64_t window;             /* of BENCH_WINDOW: previous tokens seen */
    char heads[24], tokens[24]; /* "32/8", "4x2048" */
} BenchCase;

const char *bench_mask_name(BenchMask mask);
/* All sequences alike; documents of seed 0. */
Status bench_case_mask(Mask *out, const BenchCase *c);

/* The settings that bench_cases reads, at the start of an array. */
enum { CASE_HEAD_DIM, CASE_HEADS, CASE_TOKENS, CASE_MASK, CASE_WINDOW, CASE_SETTINGS };
void bench_case_settings(Setting *settings, const char *gpu_tokens, const char *cpu_tokens,
                         const char *masks);
/* ERR_USER when the backend's kernels cannot run a width of heads that was asked for. */
Status bench_check_cases(const Ops *ops, const Setting *settings);
/* Their product, after bench_settings_fill; returns the number, free(*out). */
int bench_cases(BenchCase **out, const Setting *settings, bool gpu);

#endif
