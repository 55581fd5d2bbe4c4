/* magi: MagiAttention's scheme. The plan says which remote KV rows this rank's bands touch;
 * GroupCast moves those and no others, in stages: stage i + 1's rows travel while stage i computes,
 * and stage 0 is the local part. In the backward GroupReduce returns partial dKV rows to their
 * owner under the next stage, the local part comes last to hide the tail, and the owner adds what
 * it received in fixed order (stage, rank, position), so the result is the same bits every time.
 * Degree 0 is one call over [own | remote] rows.
 *
 * Where transfers need no kernel and overlap_degree is automatic, all this is one fused call
 * instead (magi_fused.c). */
#include <stdlib.h>

#include "cp/dkv_reduce.h"
#include "cp/magi_fused.h"

enum { MAX_STAGES = 1 + OVERLAP_DEGREE_MAX }; /* the local part is one more */

/* All remote rows of a layer are distinct rows of the other P - 1 shards, and so are the rows that
 * others send back for the own shard counted per sender: one buffer of that size holds every stage.
 */
static Status create(CpRuntime *rt, Arena *arena) {
    int64_t remote = (rt->opt.size - 1) * rt->S;
    arena_reserve(arena, "cp", "o accumulator",
                  rt->S * rt->heads * rt->opt.D * (int64_t)sizeof(float), (void **)&rt->o_acc);
    int64_t beside =
        i64_max(rt->S, ATTN_REMOTE_RANGES * ATTN_PAD_ROWS); /* local rows in degree 0, or padding */
    cp_reserve_kv(rt, arena, "kv gathered", beside + remote, &rt->kv[0]);
    cp_reserve_dkv(rt, arena, "dkv partial", magi_fused_keys(rt), &rt->dkv_part[0]);
    cp_reserve_dkv(rt, arena, "dkv received", remote, &rt->dkv_in);
    arena_reserve(arena, "cp", "sum order", 4 * (rt->S + 1), (void **)&rt->reduce_begin);
    arena_reserve(arena, "cp", "summed rows", 4 * remote, (void **)&rt->reduce_from);
    arena_reserve(arena, "cp", "flags", 2 * ATTN_REMOTE_RANGES * 4, (void **)&rt->flags);
    return OK;
}

static int first_remote(const CpRuntime *rt) {
    return rt->plan->stages[0].own_row >= 0 && rt->plan->n_stages > 1 ? 1 : 0;
}

/* Where a stage's rows begin in the gathered buffers, which hold one stage after another. */
static int64_t kv_base(const CpRuntime *rt, int stage) {
    int64_t base = 0;
    for (int i = first_remote(rt); i < stage; i++) base += rt->plan->stages[i].kv_rows;
    return base;
}

static int64_t in_base(const CpRuntime *rt, int stage) {
    int64_t base = 0;
    for (int i = first_remote(rt); i < stage; i++) base += rt->plan->stages[i].send_rows;
    return base;
}

static float *dkv_row(const CpRuntime *rt, float *dkv, int64_t row) {
    return dkv + row * cp_kv_width(rt);
}

static Status group_cast(CpRuntime *rt, int stage, const void *kv, Stream *stream,
                         CommTicket *ticket) {
    const PlanStage *s = &rt->plan->stages[stage];
    int64_t width = cp_kv_width(rt), base = kv_base(rt, stage);
    CHECK(comm_group_begin(rt->comm));
    for (int i = 0; i < s->n_send; i++)
        CHECK(comm_send(rt->comm, cp_kv_row(rt, kv, s->send[i].row), s->send[i].rows * width,
                        rt->ops->act_dtype, s->send[i].peer, COMM_KIND_KV));
    for (int i = 0; i < s->n_recv; i++)
        CHECK(comm_recv(rt->comm, cp_kv_row(rt, rt->kv[0], base + s->recv[i].row),
                        s->recv[i].rows * width, rt->ops->act_dtype, s->recv[i].peer));
    return comm_group_end(rt->comm, stream, ticket);
}

static Status group_reduce(CpRuntime *rt, int stage, Stream *stream, CommTicket *ticket) {
    const PlanStage *s = &rt->plan->stages[stage];
    int64_t width = cp_kv_width(rt), base = kv_base(rt, stage), in = in_base(rt, stage);
    CHECK(comm_group_begin(rt->comm));
    for (int i = 0; i < s->n_recv; i++)
        CHECK(comm_send(rt->comm, dkv_row(rt, rt->dkv_part[0], base + s->recv[i].row),
                        s->recv[i].rows * width, DT_F32, s->recv[i].peer, COMM_KIND_DKV));
    for (int i = 0; i < s->n_send; i++)
        CHECK(comm_recv(rt->comm, dkv_row(rt, rt->dkv_in, in + s->send[i].packed),
                        s->send[i].rows * width, DT_F32, s->send[i].peer));
    return comm_group_end(rt->comm, stream, ticket);
}

/* ---- plans ------------------------------------------------------------------------------------
 */

/* In the order of the plan. */
static void plan_reduce(CpRuntime *rt, Stream *stream) {
    int64_t n = 0;
    for (int i = 0; i < rt->plan->n_stages; i++) n += rt->plan->stages[i].n_send;
    DkvSegment *segments = NEW(DkvSegment, n + 1);
    n = 0;
    for (int stage = first_remote(rt); stage < rt->plan->n_stages; stage++) {
        const PlanStage *s = &rt->plan->stages[stage];
        for (int i = 0; i < s->n_send; i++)
            segments[n++] = (DkvSegment){
                s->send[i].row, (int32_t)in_base(rt, stage) + s->send[i].packed, s->send[i].rows};
    }
    dkv_reduce_plan(rt, segments, n, stream);
    free(segments);
}

static void start(CpRuntime *rt, Stream *stream) {
    rt->ops->mem_zero(rt->flags, 2 * ATTN_REMOTE_RANGES * 4, stream);
}

static Status plan(CpRuntime *rt, Stream *stream) {
    if (magi_fused_wanted(rt)) return magi_fused_plan(rt, stream);
    plan_reduce(rt, stream);
    return cp_plan_stages(rt, stream);
}

/* ---- stages ---------------------------------------------------------------------------------- */

/* Degree 0 computes on one buffer that starts with the own shard. */
static void copy_own(CpRuntime *rt, const void *kv, Stream *stream) {
    rt->ops->mem_copy(rt->kv[0], kv, rt->S * cp_kv_width(rt) * rt->ops->act_bytes, stream);
}

static Status forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    if (rt->fused_work != NULL) return magi_fused_forward(rt, o, lse, q, kv, stream);
    CommTicket ticket = {0};
    int remote = first_remote(rt);
    if (remote == 0) {
        CHECK(group_cast(rt, 0, kv, stream, &ticket));
        copy_own(rt, kv, stream);
        CHECK(comm_wait(rt->comm, ticket, stream));
        cp_stage_forward(rt, 0, o, lse, q, rt->kv[0], stream);
        return OK;
    }
    for (int i = 0; i < rt->plan->n_stages; i++) {
        CHECK(comm_wait(rt->comm, ticket, stream));
        ticket = (CommTicket){0};
        if (i + 1 < rt->plan->n_stages) CHECK(group_cast(rt, i + 1, kv, stream, &ticket));
        cp_stage_forward(rt, i, o, lse, q, i == 0 ? kv : cp_kv_row(rt, rt->kv[0], kv_base(rt, i)),
                         stream);
    }
    return OK;
}

static Status prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    if (rt->fused_work != NULL) return magi_fused_fetch(rt, kv, stream);
    return group_cast(rt, first_remote(rt), kv, stream, &rt->ticket);
}

static Status backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream) {
    if (rt->fused_work != NULL) return magi_fused_backward(rt, dq, dkv, d_o, o, lse, q, kv, stream);
    const Ops *ops = rt->ops;
    int first = first_remote(rt), n = rt->plan->n_stages;
    CommTicket cast = rt->ticket, reduce[MAX_STAGES];
    REQUIRE(n <= MAX_STAGES);
    ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    if (first == 0) copy_own(rt, kv, stream);
    for (int i = first; i < n; i++) {
        int64_t base = kv_base(rt, i);
        CHECK(comm_wait(rt->comm, cast, stream));
        if (i + 1 < n) CHECK(group_cast(rt, i + 1, kv, stream, &cast));
        ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = dkv_row(rt, rt->dkv_part[0], base),
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = cp_kv_row(rt, rt->kv[0], base),
                                      .lse = lse,
                                      .delta = rt->delta,
                                      .work = rt->work[i],
                                      .accumulate_dq = i > first},
                           stream);
        CHECK(group_reduce(rt, i, stream, &reduce[i]));
    }
    if (first == 1)
        ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = dkv,
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = kv,
                                      .lse = lse,
                                      .delta = rt->delta,
                                      .work = rt->work[0],
                                      .accumulate_dq = true},
                           stream);
    for (int i = first; i < n; i++) CHECK(comm_wait(rt->comm, reduce[i], stream));
    dkv_reduce(rt, dkv, first == 0 ? rt->dkv_part[0] : dkv, stream);
    return OK;
}

const CpTable cp_magi = {.create = create,
                         .forward = forward,
                         .backward = backward,
                         .prefetch = prefetch,
                         .start = start,
                         .plan = plan};
