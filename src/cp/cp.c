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

Status cp_prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    if (rt->table->prefetch == NULL) return OK;
    CHECK(rt->table->prefetch(rt, kv, stream));
    rt->prefetched = true;
    return OK;
}

Status cp_forward(CpRuntime *rt, const AttnFwd *call, Stream *stream) {
    return rt->table->forward(rt, *call, stream);
}

Status cp_backward(CpRuntime *rt, const AttnBwd *call, const void *o, Stream *stream) {
    AttnBwd with_delta = *call;
    with_delta.delta = rt->delta;
    if (rt->table->prefetch != NULL && !rt->prefetched)
        CHECK(rt->table->prefetch(rt, call->kv, stream));
    rt->prefetched = false;
    return rt->table->backward(rt, with_delta, o, stream);
}
