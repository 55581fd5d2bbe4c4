/* allgather: every rank gathers all KV, computes its rows in one call, and dKV is reduce-scattered
 * (Llama 3, section 3.3.2). No partial results to merge; nothing is hidden. */
#include "cp/runtime.h"

typedef struct {
    CpRuntime rt;
    void *kv;   /* of all ranks, in rank order */
    float *dkv; /* the same rows */
} Allgather;

static Status create(CpRuntime *rt, Arena *arena) {
    Allgather *x = (Allgather *)rt;
    int64_t all = rt->opt.size * rt->S;
    cp_reserve_kv(rt, arena, "kv gathered", all, &x->kv);
    cp_reserve_dkv(rt, arena, "dkv of all ranks", all, &x->dkv);
    return OK;
}

static Status gather(CpRuntime *rt, void *all, const void *kv, Stream *stream) {
    int64_t n = rt->S * cp_kv_width(rt);
    rt->ops->mem_copy(cp_kv_row(rt, all, rt->plan->stages[0].own_row), kv, n * rt->ops->act_bytes,
                      stream);
    return comm_all_gather(rt->comm, all, n, rt->ops->act_dtype, COMM_KIND_KV, stream);
}

static Status forward(CpRuntime *rt, AttnFwd call, Stream *stream) {
    Allgather *x = (Allgather *)rt;
    CHECK(gather(rt, x->kv, call.kv, stream));
    call.kv = x->kv;
    cp_stage_forward(rt, 0, call, stream);
    return OK;
}

static Status backward(CpRuntime *rt, AttnBwd call, const void *o, Stream *stream) {
    Allgather *x = (Allgather *)rt;
    int64_t n = rt->S * cp_kv_width(rt);
    float *dkv = call.dkv;
    CHECK(gather(rt, x->kv, call.kv, stream));
    cp_delta(rt, call.d_o, o, stream);
    call.kv = x->kv;
    call.dkv = x->dkv;
    cp_stage_backward(rt, 0, call, stream);
    CHECK(comm_reduce_scatter(rt->comm, x->dkv, n, DT_F32, COMM_KIND_DKV, stream));
    rt->ops->mem_copy(dkv, x->dkv + rt->opt.rank * n, n * (int64_t)sizeof(float), stream);
    return OK;
}

const CpTable cp_allgather = {
    .state_bytes = sizeof(Allgather), .create = create, .forward = forward, .backward = backward};
