/* cases.h: what the attention benchmarks run on: masks, and the list of cases that settings ask
 * for. */
#ifndef CRIA_BENCH_CASES_H
#define CRIA_BENCH_CASES_H

#include "attn/mask.h"
#include "bench/arguments.h"
#include "ops/ops.h"

typedef struct {
    int H, K, D;
    int64_t B, T; /* B sequences of T tokens */
    MaskSpec mask;
    const char *mask_name;
    char heads[24], tokens[24]; /* "32/8", "4x2048" */
} BenchCase;

/* All sequences alike; documents of seed 0. */
Status bench_case_mask(Mask *out, const BenchCase *c);

/* The settings that bench_cases reads, at the start of an array. */
enum { CASE_HEAD_DIM, CASE_HEADS, CASE_TOKENS, CASE_MASK, CASE_WINDOW, CASE_PREFIX, CASE_SETTINGS };
void bench_case_settings(Setting *settings, const char *gpu_tokens, const char *cpu_tokens,
                         const char *masks);
/* ERR_USER when the backend's kernels cannot run a width of heads that was asked for. */
Status bench_check_cases(const Ops *ops, const Setting *settings);
/* Their product, after bench_settings_fill; returns the number, free(*out). */
int bench_cases(BenchCase **out, const Setting *settings, bool gpu);

#endif
