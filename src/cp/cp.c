#include "cp/runtime.h"

#include <stdlib.h>

static const CpTable *const tables[] = {
#define X(id, name, properties) &cp_##name,
    CP_BACKEND_LIST(X)
#undef X
};

Status cp_create(CpRuntime **out, const CpOptions *o, const Ops *ops, Comm *comm, Arena *arena) {
    *out = NULL;
    int64_t S;
    CHECK(cp_tokens(o, &S));
    /* Every backend is the same thing on one rank. */
    const CpTable *table = tables[o->size > 1 ? o->backend : BACKEND_NONE];
    CpRuntime *rt = mem_new(1, table->state_bytes);
    *rt = (CpRuntime){.table = table,
                      .opt = *o,
                      .ops = ops,
                      .comm = comm,
                      .S = S,
                      .heads = o->H,
                      .kv_heads = o->K};
    arena_reserve(arena, "cp", "delta", S * o->H * (int64_t)sizeof(float), (void **)&rt->delta);
    Status st = table->create != NULL ? table->create(rt, arena) : OK;
    if (st == OK)
        *out = rt;
    else
        free(rt);
    return st;
}

static void free_work(CpRuntime *rt) {
    for (int i = 0; i < rt->n_work; i++) rt->ops->attn_work_free(rt->work[i]);
    free(rt->work);
    rt->work = NULL;
    rt->n_work = 0;
}

void cp_free(CpRuntime *rt) {
    if (rt == NULL) return;
    free_work(rt);
    if (rt->table->free != NULL) rt->table->free(rt);
    free(rt);
}

Status cp_begin(CpRuntime *rt, const CpBatch *batch, Stream *stream) {
    REQUIRE(batch->S == rt->S && !rt->prefetched);
    rt->plan = &batch->mine;
    if (rt->table->start != NULL && !rt->started) rt->table->start(rt, stream);
    rt->started = true;
    if (rt->n_work > 0 && rt->work_hash == batch->hash) return OK;
    free_work(rt);
    rt->work_hash = batch->hash;
    return rt->table->plan != NULL ? rt->table->plan(rt, stream) : cp_plan_stages(rt, stream);
}

int cp_stages(const CpRuntime *rt) {
    return rt->n_work;
}

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

Status cp_prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    if (rt->table->prefetch == NULL) return OK;
    CHECK(rt->table->prefetch(rt, kv, stream));
    rt->prefetched = true;
    return OK;
}

Status cp_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                  Stream *stream) {
    return rt->table->forward(rt, o, lse, q, kv, stream);
}

Status cp_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                   const float *lse, const void *q, const void *kv, Stream *stream) {
    if (rt->table->prefetch != NULL && !rt->prefetched) CHECK(rt->table->prefetch(rt, kv, stream));
    rt->prefetched = false;
    return rt->table->backward(rt, dq, dkv, d_o, o, lse, q, kv, stream);
}

/* ---- shared by the runtimes ------------------------------------------------------------------ */

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

void cp_stage_forward(CpRuntime *rt, int stage, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    bool last = stage + 1 == rt->plan->n_stages;
    float *o_acc = rt->plan->n_stages > 1 ? rt->o_acc : NULL;
    rt->ops->attention_fwd(&(AttnFwd){.o = last ? o : NULL,
                                      .o_acc = o_acc,
                                      .lse = lse,
                                      .q = q,
                                      .kv = kv,
                                      .work = rt->work[stage],
                                      .resume = stage > 0},
                           stream);
}
