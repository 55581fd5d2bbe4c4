#include "cp/runtime.h"

AttnShape cp_shape(const CpRuntime *rt, int64_t keys) {
    return (AttnShape){.Sq = rt->plan->q_rows,
                       .Sk = keys,
                       .H = rt->heads,
                       .K = rt->kv_heads,
                       .D = rt->opt.D,
                       .scale = 1.0f / __builtin_sqrtf((float)rt->opt.D)};
}

Status cp_plan_stages(CpRuntime *rt, Stream *stream) {
    rt->work = NEW(AttnWork *, rt->plan->n_stages);
    for (; rt->n_work < rt->plan->n_stages; rt->n_work++) {
        const PlanStage *stage = &rt->plan->stages[rt->n_work];
        CHECK(rt->ops->attn_work_create(&rt->work[rt->n_work], stage->bands, stage->n_bands,
                                        cp_shape(rt, stage->kv_rows), NULL, stream));
    }
    return OK;
}

void cp_reserve_kv(CpRuntime *rt, Arena *a, const char *name, int64_t rows, void **slot) {
    arena_reserve(a, "cp", name, rows * cp_kv_width(rt) * rt->ops->act_bytes, slot);
}

void cp_reserve_dkv(CpRuntime *rt, Arena *a, const char *name, int64_t rows, float **slot) {
    arena_reserve(a, "cp", name, rows * cp_kv_width(rt) * (int64_t)sizeof(float), (void **)slot);
}

void cp_reserve_o_acc(CpRuntime *rt, Arena *a) {
    arena_reserve(a, "cp", "o accumulator", rt->S * rt->heads * rt->opt.D * (int64_t)sizeof(float),
                  (void **)&rt->o_acc);
}

void cp_stage_forward(CpRuntime *rt, int stage, AttnFwd call, Stream *stream) {
    int n = rt->plan->n_stages;
    if (stage + 1 < n) call.o = NULL;
    call.o_acc = n > 1 ? rt->o_acc : NULL;
    call.work = rt->work[stage];
    call.resume = stage > 0;
    rt->ops->attention_fwd(&call, stream);
}

void cp_delta(CpRuntime *rt, const void *d_o, const void *o, Stream *stream) {
    rt->ops->attention_delta(rt->delta, d_o, o, rt->plan->q_rows, rt->heads, rt->opt.D, stream);
}

void cp_stage_backward(CpRuntime *rt, int stage, AttnBwd call, Stream *stream) {
    call.work = rt->work[stage];
    rt->ops->attention_bwd(&call, stream);
}
