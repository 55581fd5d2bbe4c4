/* flops.h: how much arithmetic a token costs, counted the way the field quotes it. */
#ifndef CRIA_MODEL_FLOPS_H
#define CRIA_MODEL_FLOPS_H

#include "config/config.h"
#include "model/params.h"

/* FLOPs of forward and backward together for `tokens` tokens whose attention masks allow `area`
 * (query, key) pairs in all: 6 per matrix weight and token (the embedding lookup is free), and
 * 12 * area * H * D per layer for attention. Only allowed pairs count: MFU is "causal exact". */
double flops_train(const ModelConfig *m, const ParamTable *t, double tokens, double area);

/* Dense bf16 peak of a GPU by name (FLOP/s), 0 when unknown. From the vendor's data sheets. */
double flops_peak(const char *device_name);

#endif
