/* ring: TransformerEngine's p2p scheme. Each rank holds two chunks of the zigzag; KV shards travel
 * r -> r + 1, stage i works on the shard of rank r - i, and the transfer of stage i + 1 overlaps the
 * attention of stage i (double buffered). The backward goes round the other way, r -> r - 1, starting
 * with the shard of rank r + 1 and ending with the own one; each shard's dKV follows it one step
 * behind and comes home complete. Under masks other than causal the same ring runs with each
 * sub-block clipped to the mask. O, dQ and dKV accumulate in fp32. */
#include "cp/runtime.h"

static Status create(CpRuntime *rt, Arena *arena) {
    arena_reserve(arena, "cp", "o accumulator",
                  rt->S * rt->heads * rt->opt.D * (int64_t)sizeof(float), (void **)&rt->o_acc);
    cp_reserve_kv(rt, arena, "kv 0", rt->S, &rt->kv[0]);
    cp_reserve_kv(rt, arena, "kv 1", rt->S, &rt->kv[1]);
    cp_reserve_dkv(rt, arena, "dkv partial 0", rt->S, &rt->dkv_part[0]);
    cp_reserve_dkv(rt, arena, "dkv partial 1", rt->S, &rt->dkv_part[1]);
    cp_reserve_dkv(rt, arena, "dkv received", rt->S, &rt->dkv_in);
    return OK;
}

static int neighbour(const CpRuntime *rt, int step) {
    return (rt->opt.rank + step + rt->opt.size) % rt->opt.size;
}

/* One hop in direction `step` (+1 forward, -1 backward) of a whole shard. */
static Status hop(CpRuntime *rt, int step, const void *send, void *recv, Dtype t, CommKind kind,
                  Stream *stream, CommTicket *ticket) {
    int64_t n = rt->S * cp_kv_width(rt);
    CHECK(comm_group_begin(rt->comm));
    CHECK(comm_send(rt->comm, send, n, t, neighbour(rt, step), kind));
    CHECK(comm_recv(rt->comm, recv, n, t, neighbour(rt, -step)));
    return comm_group_end(rt->comm, stream, ticket);
}

static Status forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    CommTicket ticket = {0};
    for (int i = 0; i < rt->opt.size; i++) {
        const void *now = i == 0 ? kv : rt->kv[i % 2];
        CHECK(comm_wait(rt->comm, ticket, stream));
        ticket = (CommTicket){0};
        if (i + 1 < rt->opt.size)
            CHECK(hop(rt, 1, now, rt->kv[(i + 1) % 2], rt->ops->act_dtype, COMM_KIND_KV, stream,
                      &ticket));
        cp_stage_forward(rt, i, o, lse, q, now, stream);
    }
    return OK;
}

/* The shard of rank r + 1 is where the backward starts. */
static Status prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    return hop(rt, -1, kv, rt->kv[0], rt->ops->act_dtype, COMM_KIND_KV, stream, &rt->ticket);
}

static Status backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream) {
    int P = rt->opt.size;
    int64_t n = rt->S * cp_kv_width(rt);
    CommTicket kv_ticket = rt->ticket, dkv_ticket = {0};
    rt->ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    for (int j = 0; j < P; j++) {
        int stage = P - 1 - j; /* the shard of rank r + 1 + j */
        bool own = stage == 0;
        const void *now = own ? kv : rt->kv[j % 2];
        float *part = own ? dkv : rt->dkv_part[j % 2];
        CHECK(comm_wait(rt->comm, kv_ticket, stream));
        kv_ticket = (CommTicket){0};
        if (stage > 1)
            CHECK(hop(rt, -1, now, rt->kv[(j + 1) % 2], rt->ops->act_dtype, COMM_KIND_KV, stream,
                      &kv_ticket));
        rt->ops->attention_bwd(dq, part, d_o, q, now, lse, rt->delta, rt->work[stage], j > 0, false,
                               stream);
        /* What the ranks before this one found for the same shard. */
        CHECK(comm_wait(rt->comm, dkv_ticket, stream));
        if (j > 0) rt->ops->add_f32(part, rt->dkv_in, n, stream);
        if (!own)
            CHECK(hop(rt, -1, part, rt->dkv_in, DT_F32, COMM_KIND_DKV, stream, &dkv_ticket));
    }
    return OK;
}

const CpTable cp_ring = {
    .create = create, .forward = forward, .backward = backward, .prefetch = prefetch};
