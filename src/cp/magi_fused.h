/* magi_fused.h: magi as one fused attention call per direction. Private to src/cp. */
#ifndef CRIA_CP_MAGI_FUSED_H
#define CRIA_CP_MAGI_FUSED_H

#include "cp/runtime.h"

/* The most rows that dkv_part[0] holds. */
int64_t magi_fused_keys(const CpRuntime *rt);
bool magi_fused_wanted(const CpRuntime *rt);
Status magi_fused_plan(CpRuntime *rt, Stream *stream);
Status magi_fused_fetch(CpRuntime *rt, const void *kv, Stream *stream);
Status magi_fused_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream);
/* After magi_fused_fetch(). */
Status magi_fused_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, const void *kv, Stream *stream);

#endif
