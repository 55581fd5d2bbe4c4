/* magi: MagiAttention's scheme. The plan says which remote KV rows this rank's bands touch;
 * GroupCast moves those and no others, in stages: stage i + 1's rows travel while stage i computes,
 * and stage 0 is the local part. In the backward GroupReduce returns partial dKV rows to their
 * owner under the next stage, the local part comes last to hide the tail, and the owner adds what
 * it received in fixed order (stage, rank, position), so the result is the same bits every time.
 * Degree 0 is one call over [own | remote] rows.
 *
 * Where transfers need no kernel and overlap_degree is automatic, all this is one fused call
 * instead (magi_fused.c). */
#include "cp/magi.h"

#include <stdlib.h>

enum { MAX_STAGES = 1 + OVERLAP_DEGREE_MAX }; /* the local part is one more */

/* All remote rows of a layer are distinct rows of the other P - 1 shards, and so are the rows that
 * others send back for the own shard counted per sender: one buffer of that size holds every stage.
 */
static Status create(CpRuntime *rt, Arena *arena) {
    Magi *m = (Magi *)rt;
    int64_t remote = (rt->opt.size - 1) * rt->S;
    int64_t beside =
        i64_max(rt->S, ATTN_REMOTE_RANGES * ATTN_PAD_ROWS); /* local rows in degree 0, or padding */
    cp_reserve_o_acc(rt, arena);
    cp_reserve_kv(rt, arena, "kv gathered", beside + remote, &m->kv);
    cp_reserve_dkv(rt, arena, "dkv partial", magi_fused_keys(m), &m->dkv);
    dkv_reduce_reserve(&m->reduce, rt, arena);
    arena_reserve(arena, "cp", "flags", 2 * ATTN_REMOTE_RANGES * 4, (void **)&m->flags);
    return OK;
}

static void free_segments(CpRuntime *rt) {
    free(((Magi *)rt)->segments);
}

static int first_remote(const Magi *m) {
    return m->rt.plan->stages[0].own_row >= 0 && m->rt.plan->n_stages > 1 ? 1 : 0;
}

/* Where a stage's rows begin in the gathered buffers, which hold one stage after another. */
static int64_t kv_base(const Magi *m, int stage) {
    int64_t base = 0;
    for (int i = first_remote(m); i < stage; i++) base += m->rt.plan->stages[i].kv_rows;
    return base;
}

static int64_t in_base(const Magi *m, int stage) {
    int64_t base = 0;
    for (int i = first_remote(m); i < stage; i++) base += m->rt.plan->stages[i].send_rows;
    return base;
}

static float *dkv_row(const Magi *m, float *dkv, int64_t row) {
    return dkv + row * cp_kv_width(&m->rt);
}

static Status group_cast(Magi *m, int stage, const void *kv, Stream *stream, CommTicket *ticket) {
    const PlanStage *s = &m->rt.plan->stages[stage];
    int64_t width = cp_kv_width(&m->rt), base = kv_base(m, stage);
    CHECK(comm_group_begin(m->rt.comm));
    for (int i = 0; i < s->n_send; i++)
        CHECK(comm_send(m->rt.comm, cp_kv_row(&m->rt, kv, s->send[i].row), s->send[i].rows * width,
                        m->rt.ops->act_dtype, s->send[i].peer, COMM_KIND_KV));
    for (int i = 0; i < s->n_recv; i++)
        CHECK(comm_recv(m->rt.comm, cp_kv_row(&m->rt, m->kv, base + s->recv[i].row),
                        s->recv[i].rows * width, m->rt.ops->act_dtype, s->recv[i].peer));
    return comm_group_end(m->rt.comm, stream, ticket);
}

static Status group_reduce(Magi *m, int stage, Stream *stream, CommTicket *ticket) {
    const PlanStage *s = &m->rt.plan->stages[stage];
    int64_t width = cp_kv_width(&m->rt), base = kv_base(m, stage), in = in_base(m, stage);
    CHECK(comm_group_begin(m->rt.comm));
    for (int i = 0; i < s->n_recv; i++)
        CHECK(comm_send(m->rt.comm, dkv_row(m, m->dkv, base + s->recv[i].row),
                        s->recv[i].rows * width, DT_F32, s->recv[i].peer, COMM_KIND_DKV));
    for (int i = 0; i < s->n_send; i++)
        CHECK(comm_recv(m->rt.comm, dkv_row(m, m->reduce.in, in + s->send[i].packed),
                        s->send[i].rows * width, DT_F32, s->send[i].peer));
    return comm_group_end(m->rt.comm, stream, ticket);
}

/* ---- plans ------------------------------------------------------------------------------------
 */

/* In the order of the plan. */
static void plan_reduce(Magi *m, Stream *stream) {
    int64_t n = 0;
    for (int i = 0; i < m->rt.plan->n_stages; i++) n += m->rt.plan->stages[i].n_send;
    DkvSegment *segments = NEW(DkvSegment, n + 1);
    n = 0;
    for (int stage = first_remote(m); stage < m->rt.plan->n_stages; stage++) {
        const PlanStage *s = &m->rt.plan->stages[stage];
        for (int i = 0; i < s->n_send; i++)
            segments[n++] = (DkvSegment){
                s->send[i].row, (int32_t)in_base(m, stage) + s->send[i].packed, s->send[i].rows};
    }
    dkv_reduce_plan(&m->reduce, &m->rt, segments, n, stream);
    free(segments);
}

static void start(CpRuntime *rt, Stream *stream) {
    Magi *m = (Magi *)rt;
    m->rt.ops->mem_zero(m->flags, 2 * ATTN_REMOTE_RANGES * 4, stream);
}

static Status plan(CpRuntime *rt, Stream *stream) {
    Magi *m = (Magi *)rt;
    m->fused = magi_fused_wanted(m);
    if (m->fused) return magi_fused_plan(m, stream);
    plan_reduce(m, stream);
    return cp_plan_stages(&m->rt, stream);
}

/* ---- stages ---------------------------------------------------------------------------------- */

/* Degree 0 computes on one buffer that starts with the own shard. */
static void copy_own(Magi *m, const void *kv, Stream *stream) {
    m->rt.ops->mem_copy(m->kv, kv, m->rt.S * cp_kv_width(&m->rt) * m->rt.ops->act_bytes, stream);
}

static Status forward(CpRuntime *rt, AttnFwd call, Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_forward(m, call, stream);
    CommTicket ticket = {0};
    const void *own = call.kv;
    int n = rt->plan->n_stages;
    if (first_remote(m) == 0) {
        CHECK(group_cast(m, 0, own, stream, &ticket));
        copy_own(m, own, stream);
        call.kv = m->kv;
    }
    for (int i = 0; i < n; i++) {
        CHECK(comm_wait(rt->comm, ticket, stream));
        ticket = (CommTicket){0};
        if (i + 1 < n) CHECK(group_cast(m, i + 1, own, stream, &ticket));
        if (i > 0) call.kv = cp_kv_row(rt, m->kv, kv_base(m, i));
        cp_stage_forward(rt, i, call, stream);
    }
    return OK;
}

static Status prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_fetch(m, kv, stream);
    return group_cast(m, first_remote(m), kv, stream, &m->prefetch);
}

static Status backward(CpRuntime *rt, AttnBwd call, const void *o, Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_backward(m, call, o, stream);
    int first = first_remote(m), n = rt->plan->n_stages;
    AttnBwd own = call;
    CommTicket cast = m->prefetch, reduce[MAX_STAGES];
    REQUIRE(n <= MAX_STAGES);
    cp_delta(rt, call.d_o, o, stream);
    if (first == 0) copy_own(m, own.kv, stream);
    for (int i = first; i < n; i++) {
        CHECK(comm_wait(rt->comm, cast, stream));
        if (i + 1 < n) CHECK(group_cast(m, i + 1, own.kv, stream, &cast));
        call.kv = cp_kv_row(rt, m->kv, kv_base(m, i));
        call.dkv = dkv_row(m, m->dkv, kv_base(m, i));
        call.accumulate_dq = i > first;
        cp_stage_backward(rt, i, call, stream);
        CHECK(group_reduce(m, i, stream, &reduce[i]));
    }
    own.accumulate_dq = true;
    if (first == 1) cp_stage_backward(rt, 0, own, stream);
    for (int i = first; i < n; i++) CHECK(comm_wait(rt->comm, reduce[i], stream));
    dkv_reduce(&m->reduce, rt, own.dkv, first == 0 ? m->dkv : own.dkv, stream);
    return OK;
}

const CpTable cp_magi = {.state_bytes = sizeof(Magi),
                         .create = create,
                         .forward = forward,
                         .backward = backward,
                         .prefetch = prefetch,
                         .start = start,
                         .plan = plan,
                         .free = free_segments};
