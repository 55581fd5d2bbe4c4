/* none: one rank holds the whole stream. */
#include "cp/runtime.h"

static Status forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    rt->ops->attention_fwd(&(AttnFwd){.o = o, .lse = lse, .q = q, .kv = kv, .work = rt->work[0]},
                           stream);
    return OK;
}

static Status backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream) {
    rt->ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    rt->ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = dkv,
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = kv,
                                      .lse = lse,
                                      .delta = rt->delta,
                                      .work = rt->work[0]},
                           stream);
    return OK;
}

const CpTable cp_none = {
    .state_bytes = sizeof(CpRuntime), .forward = forward, .backward = backward};
