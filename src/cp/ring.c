/* ring: TransformerEngine's p2p scheme. Each rank holds two chunks of the zigzag; KV shards travel
 * r -> r + 1, stage i works on the shard of rank r - i, and the transfer of stage i + 1 overlaps
 * the attention of stage i (double buffered). The backward goes round the other way, r -> r - 1,
 * starting with the shard of rank r + 1 and ending with the own one; each shard's dKV follows it
 * one step behind and comes home complete. Under masks other than causal the same ring runs with
 * each sub-block clipped to the mask. O, dQ and dKV accumulate in fp32, or, with
 * parallel.ring_accum bf16, are rounded to the activation type after every step, and dKV travels
 * so: what TransformerEngine does. */
#include "cp/runtime.h"

typedef struct {
    CpRuntime rt;
    void *kv[2];   /* shards of other ranks, double buffered */
    float *dkv[2]; /* what this rank adds to the dKV of a shard */
    void *dkv_hop; /* dKV received, in fp32; bf16: received, then sent */
    void *rounded; /* bf16: o or dq as the activation type holds it */
    CommTicket prefetch;
} Ring;

static bool rounds(const CpRuntime *rt) {
    return rt->opt.ring_accum == ACCUM_BF16;
}

static Status create(CpRuntime *rt, Arena *arena) {
    Ring *x = (Ring *)rt;
    cp_reserve_o_acc(rt, arena);
    cp_reserve_kv(rt, arena, "kv 0", rt->S, &x->kv[0]);
    cp_reserve_kv(rt, arena, "kv 1", rt->S, &x->kv[1]);
    cp_reserve_dkv(rt, arena, "dkv partial 0", rt->S, &x->dkv[0]);
    cp_reserve_dkv(rt, arena, "dkv partial 1", rt->S, &x->dkv[1]);
    if (!rounds(rt)) {
        cp_reserve_dkv(rt, arena, "dkv received", rt->S, (float **)&x->dkv_hop);
        return OK;
    }
    cp_reserve_kv(rt, arena, "dkv received and sent", 2 * rt->S, &x->dkv_hop);
    arena_reserve(arena, "cp", "rounded", rt->S * rt->heads * rt->opt.D * rt->ops->act_bytes,
                  &x->rounded);
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

/* acc as the activation type holds it. */
static void round_acc(CpRuntime *rt, float *acc, int64_t n, Stream *stream) {
    if (!rounds(rt)) return;
    rt->ops->cast_f32(((Ring *)rt)->rounded, acc, n, stream);
    rt->ops->widen(acc, ((Ring *)rt)->rounded, false, n, stream);
}

static Status forward(CpRuntime *rt, AttnFwd call, Stream *stream) {
    Ring *x = (Ring *)rt;
    CommTicket ticket = {0};
    for (int i = 0; i < rt->opt.size; i++) {
        if (i > 0) call.kv = x->kv[i % 2];
        CHECK(comm_wait(rt->comm, ticket, stream));
        ticket = (CommTicket){0};
        if (i + 1 < rt->opt.size)
            CHECK(hop(rt, 1, call.kv, x->kv[(i + 1) % 2], rt->ops->act_dtype, COMM_KIND_KV, stream,
                      &ticket));
        cp_stage_forward(rt, i, call, stream);
        if (i + 1 < rt->opt.size) round_acc(rt, rt->o_acc, rt->S * rt->heads * rt->opt.D, stream);
    }
    return OK;
}

/* The shard of rank r + 1 is where the backward starts. */
static Status prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    Ring *x = (Ring *)rt;
    return hop(rt, -1, kv, x->kv[0], rt->ops->act_dtype, COMM_KIND_KV, stream, &x->prefetch);
}

/* Adds what the ranks before this one found for the shard, and passes the sum on. */
static Status pass_dkv(CpRuntime *rt, float *part, bool first, bool last, CommTicket *ticket,
                       Stream *stream) {
    int64_t n = rt->S * cp_kv_width(rt);
    void *in = ((Ring *)rt)->dkv_hop, *rounded = cp_kv_row(rt, in, rt->S);
    CHECK(comm_wait(rt->comm, *ticket, stream));
    if (!rounds(rt)) {
        if (!first) rt->ops->add_f32(part, in, n, stream);
        return last ? OK : hop(rt, -1, part, in, DT_F32, COMM_KIND_DKV, stream, ticket);
    }
    if (!first) rt->ops->widen(part, in, true, n, stream);
    rt->ops->cast_f32(rounded, part, n, stream);
    if (!last) return hop(rt, -1, rounded, in, rt->ops->act_dtype, COMM_KIND_DKV, stream, ticket);
    rt->ops->widen(part, rounded, false, n, stream);
    return OK;
}

static Status backward(CpRuntime *rt, AttnBwd call, const void *o, Stream *stream) {
    Ring *x = (Ring *)rt;
    int P = rt->opt.size;
    AttnBwd own = call;
    CommTicket kv_ticket = x->prefetch, dkv_ticket = {0};
    cp_delta(rt, call.d_o, o, stream);
    for (int j = 0; j < P; j++) {
        int stage = P - 1 - j; /* the shard of rank r + 1 + j */
        call.kv = stage == 0 ? own.kv : x->kv[j % 2];
        call.dkv = stage == 0 ? own.dkv : x->dkv[j % 2];
        call.accumulate_dq = j > 0;
        CHECK(comm_wait(rt->comm, kv_ticket, stream));
        kv_ticket = (CommTicket){0};
        if (stage > 1)
            CHECK(hop(rt, -1, call.kv, x->kv[(j + 1) % 2], rt->ops->act_dtype, COMM_KIND_KV, stream,
                      &kv_ticket));
        cp_stage_backward(rt, stage, call, stream);
        round_acc(rt, call.dq, rt->S * rt->heads * rt->opt.D, stream);
        CHECK(pass_dkv(rt, call.dkv, j == 0, stage == 0, &dkv_ticket, stream));
    }
    return OK;
}

const CpTable cp_ring = {.state_bytes = sizeof(Ring),
                         .create = create,
                         .forward = forward,
                         .backward = backward,
                         .prefetch = prefetch};
