/* magi_whole.h: magi as one attention call per direction. Private to src/cp. */
#ifndef CRIA_CP_MAGI_WHOLE_H
#define CRIA_CP_MAGI_WHOLE_H

#include "cp/runtime.h"

/* How many rows dkv_part[0] takes at most. */
int64_t magi_whole_keys(const CpRuntime *rt);
bool magi_whole_wanted(const CpRuntime *rt);
Status magi_whole_plan(CpRuntime *rt, Stream *stream);
Status magi_whole_fetch(CpRuntime *rt, const void *kv, Stream *stream);
Status magi_whole_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream);
/* After magi_whole_fetch(). */
Status magi_whole_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, const void *kv, Stream *stream);

#endif
