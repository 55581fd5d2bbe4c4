/* runtime.h: what the runtimes share: a row for each backend of CP_BACKEND_LIST, and the state that
 * every CpRuntime begins with. Private to src/cp. */
#ifndef CRIA_CP_RUNTIME_H
#define CRIA_CP_RUNTIME_H

#include "cp/cp.h"

typedef struct FIELDS_BY_NAME {
    size_t state_bytes; /* of the runtime's own struct, which begins with CpRuntime */
    Status (*create)(CpRuntime *rt, Arena *arena); /* reserve buffers; may be NULL */
    /* As cp_forward() and cp_backward(), with call.delta set, which cp_delta() fills. */
    Status (*forward)(CpRuntime *rt, AttnFwd call, Stream *stream);
    Status (*backward)(CpRuntime *rt, AttnBwd call, const void *o, Stream *stream);
    Status (*prefetch)(CpRuntime *rt, const void *kv, Stream *stream); /* may be NULL */
    void (*start)(CpRuntime *rt, Stream *stream);  /* once, before the first batch; may be NULL */
    Status (*plan)(CpRuntime *rt, Stream *stream); /* at a new plan; NULL: cp_plan_stages() */
    void (*free)(CpRuntime *rt);                   /* what create and plan allocated; may be NULL */
} CpTable;
#define X(id, name, properties) extern const CpTable cp_##name;
CP_BACKEND_LIST(X)
#undef X

struct CpRuntime {
    const CpTable *table;
    CpOptions opt;
    const Ops *ops;
    Comm *comm;
    int64_t S;            /* local rows */
    int heads, kv_heads;  /* in one attention call: H and K, for ulysses a P-th of them */
    const RankPlan *plan; /* of the current batch */
    AttnWork **work;      /* [n_work] one per attention call of a direction */
    int n_work;
    uint64_t work_hash; /* of the plan they were made for */
    float *delta;       /* [H, S] */
    float *o_acc;       /* of a forward in several calls: o in fp32; reserved by who needs it */
    bool started;
    bool prefetched; /* the first transfer of the backward is under way */
};

static inline int64_t cp_kv_width(const CpRuntime *rt) { /* elements of a row of kv */
    return 2 * (int64_t)rt->kv_heads * rt->opt.D;
}
static inline void *cp_kv_row(const CpRuntime *rt, const void *kv, int64_t row) {
    return (char *)(uintptr_t)kv + row * cp_kv_width(rt) * rt->ops->act_bytes;
}
/* Reserves rows of kv in the activation type, or as fp32 gradients. */
void cp_reserve_kv(CpRuntime *rt, Arena *a, const char *name, int64_t rows, void **slot);
void cp_reserve_dkv(CpRuntime *rt, Arena *a, const char *name, int64_t rows, float **slot);
void cp_reserve_o_acc(CpRuntime *rt, Arena *a);

/* What most runtimes do at a new plan: a work list for each stage, into rt->work. */
Status cp_plan_stages(CpRuntime *rt, Stream *stream);
AttnShape cp_shape(const CpRuntime *rt, int64_t keys); /* of a call on so many rows of kv */

/* One attention call of the forward, on call.q and call.kv. With several stages o_acc carries the
 * result from the first to the last, which rounds it into call.o. */
void cp_stage_forward(CpRuntime *rt, int stage, AttnFwd call, Stream *stream);
void cp_delta(CpRuntime *rt, const void *d_o, const void *o, Stream *stream);
/* One of the backward: all of `call` but the work. */
void cp_stage_backward(CpRuntime *rt, int stage, AttnBwd call, Stream *stream);

#endif
