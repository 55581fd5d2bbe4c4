/* runtime.h: what the runtimes share: the state behind CpRuntime and the table they are rows of.
 * Private to src/cp. */
#ifndef CRIA_CP_RUNTIME_H
#define CRIA_CP_RUNTIME_H

#include "cp/cp.h"

typedef struct FIELDS_BY_NAME {
    Status (*create)(CpRuntime *rt, Arena *arena); /* reserve buffers */
    Status (*forward)(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream);
    Status (*backward)(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream);
    Status (*prefetch)(CpRuntime *rt, const void *kv, Stream *stream); /* may be NULL */
    void (*start)(CpRuntime *rt, Stream *stream);  /* once, before the first batch; may be NULL */
    Status (*plan)(CpRuntime *rt, Stream *stream); /* at a new plan; NULL: cp_plan_stages() */
} CpTable;

/* Fused magi: rows that are contiguous at both ends of a transfer. */
typedef struct {
    int range, stage; /* remote range; stage of the plan */
    bool sent;
    int32_t row, rows; /* sent: of the local shard. Else: of the stage's buffer */
    int32_t at; /* sent: row of dkv_in where their gradients return. Else: row of the fused call */
} FusedSegment;

extern const CpTable cp_none, cp_ring, cp_magi, cp_allgather, cp_ulysses;

struct CpRuntime {
    const CpTable *table;
    CpOptions opt;
    const Ops *ops;
    Comm *comm;
    int64_t S;            /* local rows */
    int heads, kv_heads;  /* in one attention call: H and K, for ulysses a P-th of them */
    const RankPlan *plan; /* of the current batch */
    AttnWork **work;      /* [n_work] one per stage */
    int n_work;
    AttnWork *fused_work; /* fused magi: all stages in one call; else NULL */
    uint64_t work_hash;   /* of the plan they were made for */

    /* Buffers; each runtime reserves those it needs. */
    float *delta, *o_acc;
    void *kv[2];        /* remote KV */
    float *dkv_part[2]; /* partial dKV of this rank */
    float *dkv_in;      /* partial dKV from others */
    void *pack;         /* ulysses: act or fp32, one tensor at a time */
    void *q_full, *o_full, *do_full;
    float *dq_full;
    int32_t *index_q, *index_kv;
    int32_t *reduce_begin,
        *reduce_from; /* magi: rows of dkv_in to add to each local row, see Ops.sum_rows */
    uint32_t *flags;  /* fused magi: kv_ready and dkv_done of `remote` */

    bool started;
    bool prefetched; /* the first transfer of the backward is under way */
    CommTicket ticket;
    /* fused magi only */
    RemoteKv remote;
    FusedSegment *fused_segments; /* by range */
    int64_t n_fused_segments;
    Range dkv_recv_rows[ATTN_REMOTE_RANGES]; /* rows of dkv_in where the gradients of a range return
                                              */
    CommTicket kv_tickets[ATTN_REMOTE_RANGES]; /* of the transfers of keys */
    /* the value dkv_done has after all transfers queued so far; counted by range, because plans
     * differ in the number of ranges */
    uint32_t dkv_done_target[ATTN_REMOTE_RANGES];
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

/* What most runtimes do at a new plan: a work list for each stage, into rt->work. */
Status cp_plan_stages(CpRuntime *rt, Stream *stream);
AttnShape cp_shape(const CpRuntime *rt, int64_t keys); /* of a call on so many rows of kv */

/* One attention call of the forward. With several stages o_acc carries the result from the first to
 * the last, which rounds it into o. */
void cp_stage_forward(CpRuntime *rt, int stage, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream);

#endif
