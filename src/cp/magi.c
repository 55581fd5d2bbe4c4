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

static Status forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_forward(m, o, lse, q, kv, stream);
    CommTicket ticket = {0};
    int remote = first_remote(m);
    if (remote == 0) {
        CHECK(group_cast(m, 0, kv, stream, &ticket));
        copy_own(m, kv, stream);
        CHECK(comm_wait(m->rt.comm, ticket, stream));
        cp_stage_forward(&m->rt, 0, o, lse, q, m->kv, stream);
        return OK;
    }
    for (int i = 0; i < m->rt.plan->n_stages; i++) {
        CHECK(comm_wait(m->rt.comm, ticket, stream));
        ticket = (CommTicket){0};
        if (i + 1 < m->rt.plan->n_stages) CHECK(group_cast(m, i + 1, kv, stream, &ticket));
        cp_stage_forward(&m->rt, i, o, lse, q,
                         i == 0 ? kv : cp_kv_row(&m->rt, m->kv, kv_base(m, i)), stream);
    }
    return OK;
}

static Status prefetch(CpRuntime *rt, const void *kv, Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_fetch(m, kv, stream);
    return group_cast(m, first_remote(m), kv, stream, &m->prefetch);
}

static Status backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream) {
    Magi *m = (Magi *)rt;
    if (m->fused) return magi_fused_backward(m, dq, dkv, d_o, o, lse, q, kv, stream);
    const Ops *ops = m->rt.ops;
    int first = first_remote(m), n = m->rt.plan->n_stages;
    CommTicket cast = m->prefetch, reduce[MAX_STAGES];
    REQUIRE(n <= MAX_STAGES);
    ops->attention_delta(m->rt.delta, d_o, o, m->rt.S, m->rt.heads, m->rt.opt.D, stream);
    if (first == 0) copy_own(m, kv, stream);
    for (int i = first; i < n; i++) {
        int64_t base = kv_base(m, i);
        CHECK(comm_wait(m->rt.comm, cast, stream));
        if (i + 1 < n) CHECK(group_cast(m, i + 1, kv, stream, &cast));
        ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = dkv_row(m, m->dkv, base),
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = cp_kv_row(&m->rt, m->kv, base),
                                      .lse = lse,
                                      .delta = m->rt.delta,
                                      .work = m->rt.work[i],
                                      .accumulate_dq = i > first},
                           stream);
        CHECK(group_reduce(m, i, stream, &reduce[i]));
    }
    if (first == 1)
        ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = dkv,
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = kv,
                                      .lse = lse,
                                      .delta = m->rt.delta,
                                      .work = m->rt.work[0],
                                      .accumulate_dq = true},
                           stream);
    for (int i = first; i < n; i++) CHECK(comm_wait(m->rt.comm, reduce[i], stream));
    dkv_reduce(&m->reduce, &m->rt, dkv, first == 0 ? m->dkv : dkv, stream);
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
