/* magi: MagiAttention's scheme. The plan says which remote KV rows this rank's bands touch;
 * GroupCast moves those and no others, in stages: stage i + 1's rows travel while stage i computes,
 * and stage 0 is the local part. In the backward GroupReduce returns partial dKV rows to their
 * owner under the next stage, the local part comes last to hide the tail, and the owner adds what
 * it received in fixed order (stage, rank, position), so the result is the same bits every time.
 * Degree 0 is one call over [own | remote] rows.
 *
 * Where transfers need no kernel (comm->signals) and the degree is left to choose, the forward is
 * one call over [own | gap | remote] rows that starts at once: it walks own keys first and waits
 * for the remote ones when it gets to them. Nothing is split, merged or carried between stages. Not
 * so where the cost model has cut the remote part: own keys are then too few to wait under for all
 * the others (8k tokens, D = 128, 4 H200s: 0.249 ms in three stages, 0.291 in one call; with two
 * ranks, and under documents, the one call is 0 to 24 % ahead). */
#include "cp/runtime.h"

#include <stdlib.h>

enum { MAX_STAGES = 16 };

/* All remote rows of a layer are distinct rows of the other P - 1 shards, and so are the rows that
 * others send back for the own shard counted per sender: one buffer of that size holds every stage.
 */
static Status create(CpRuntime *rt, Arena *arena) {
    int64_t remote = (rt->opt.size - 1) * rt->S;
    arena_reserve(arena, "cp", "o accumulator",
                  rt->S * rt->heads * rt->opt.D * (int64_t)sizeof(float), (void **)&rt->o_acc);
    cp_reserve_kv(rt, arena, "kv gathered", rt->S + ATTN_GAP + remote, &rt->kv[0]);
    cp_reserve_dkv(rt, arena, "dkv partial", rt->S + remote, &rt->dkv_part[0]);
    cp_reserve_dkv(rt, arena, "dkv received", remote, &rt->dkv_in);
    arena_reserve(arena, "cp", "arrival flag", sizeof *rt->arrived, (void **)&rt->arrived);
    return OK;
}

static int first_remote(const CpRuntime *rt) {
    return rt->plan->stages[0].own_row >= 0 && rt->plan->n_stages > 1 ? 1 : 0;
}

/* Where a stage's rows begin: stages share the gathered buffers one after another. */
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

/* Adds a stage's rows to the open group; its buffer begins at row `base` of the gathered one. */
static Status add_cast(CpRuntime *rt, int stage, const void *kv, int64_t base) {
    const PlanStage *s = &rt->plan->stages[stage];
    int64_t width = cp_kv_width(rt);
    for (int i = 0; i < s->n_send; i++)
        CHECK(comm_send(rt->comm, cp_kv_row(rt, kv, s->send[i].row), s->send[i].rows * width,
                        rt->ops->act_dtype, s->send[i].peer, COMM_KIND_KV));
    for (int i = 0; i < s->n_recv; i++)
        CHECK(comm_recv(rt->comm, cp_kv_row(rt, rt->kv[0], base + s->recv[i].row),
                        s->recv[i].rows * width, rt->ops->act_dtype, s->recv[i].peer));
    return OK;
}

static Status group_cast(CpRuntime *rt, int stage, const void *kv, Stream *stream,
                         CommTicket *ticket) {
    CHECK(comm_group_begin(rt->comm));
    CHECK(add_cast(rt, stage, kv, kv_base(rt, stage)));
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

/* The owner's sum, in the order of the plan. */
static void add_received(CpRuntime *rt, float *dkv, Stream *stream) {
    int64_t width = cp_kv_width(rt);
    for (int stage = first_remote(rt); stage < rt->plan->n_stages; stage++) {
        const PlanStage *s = &rt->plan->stages[stage];
        int64_t in = in_base(rt, stage);
        for (int i = 0; i < s->n_send; i++)
            rt->ops->add_f32(dkv_row(rt, dkv, s->send[i].row),
                             dkv_row(rt, rt->dkv_in, in + s->send[i].packed),
                             s->send[i].rows * width, stream);
    }
}

/* Degree 0 computes on one buffer that starts with the own shard. */
static void copy_own(CpRuntime *rt, const void *kv, Stream *stream) {
    rt->ops->mem_copy(rt->kv[0], kv, rt->S * cp_kv_width(rt) * rt->ops->act_bytes, stream);
}

/* Where the rows of a stage's remote keys lie in the one call's buffer, less where they lie in the
 * stage's own. */
static int64_t whole_base(const CpRuntime *rt, int stage) {
    return ATTN_GAP + (first_remote(rt) == 0 ? 0 : rt->S + kv_base(rt, stage));
}

static Status plan_whole(CpRuntime *rt, Stream *stream) {
    const RankPlan *plan = rt->plan;
    bool cut = rt->opt.overlap_degree >= 0 || plan->n_stages > 2;
    if (!rt->comm->signals || cut) return OK;
    int64_t n = 0, keys = rt->S + ATTN_GAP;
    int32_t S = (int32_t)rt->S;
    for (int i = 0; i < plan->n_stages; i++) n += plan->stages[i].n_bands;
    Band *bands = NEW(Band, 2 * n);
    n = 0;
    for (int i = 0; i < plan->n_stages; i++) {
        const PlanStage *s = &plan->stages[i];
        int32_t own = s->own_row >= 0 ? S : 0, base = (int32_t)whole_base(rt, i);
        for (int j = 0; j < s->n_bands; j++) { /* a band of degree 0 may reach from own to remote */
            Band near = band_cut_k(s->bands[j], (Range){0, own});
            Band far = band_cut_k(s->bands[j], (Range){own, s->kv_rows});
            if (!band_is_empty(near)) bands[n++] = near;
            if (!band_is_empty(far)) bands[n++] = band_shift(far, 0, base);
        }
        if (i >= first_remote(rt)) keys = base + s->kv_rows;
    }
    AttnShape shape = {.Sq = plan->q_rows,
                       .Sk = keys,
                       .H = rt->heads,
                       .K = rt->kv_heads,
                       .D = rt->opt.D,
                       .scale = 1.0f / __builtin_sqrtf((float)rt->opt.D)};
    AttnArrival arrival = {.first = rt->S + ATTN_GAP, .flag = rt->arrived};
    rt->ops->mem_zero(cp_kv_row(rt, rt->kv[0], rt->S),
                      ATTN_GAP * cp_kv_width(rt) * rt->ops->act_bytes, stream);
    Status st = rt->ops->attn_work_create(&rt->whole, bands, n, shape, &arrival, stream);
    free(bands);
    return st;
}

static Status forward_whole(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                            Stream *stream) {
    CommTicket ticket;
    rt->ops->mem_zero(rt->arrived, sizeof *rt->arrived, stream);
    CHECK(comm_group_begin(rt->comm));
    for (int i = first_remote(rt); i < rt->plan->n_stages; i++)
        CHECK(add_cast(rt, i, kv, whole_base(rt, i)));
    CHECK(comm_group_signal(rt->comm, rt->arrived));
    CHECK(comm_group_end(rt->comm, stream, &ticket));
    copy_own(rt, kv, stream);
    rt->ops->attention_fwd(o, NULL, lse, q, rt->kv[0], rt->whole, false, stream);
    return comm_wait(rt->comm, ticket, stream);
}

static Status forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                      Stream *stream) {
    if (rt->whole != NULL) return forward_whole(rt, o, lse, q, kv, stream);
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
    return group_cast(rt, first_remote(rt), kv, stream, &rt->ticket);
}

static Status backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                       const float *lse, const void *q, const void *kv, Stream *stream) {
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
        ops->attention_bwd(dq, dkv_row(rt, rt->dkv_part[0], base), d_o, q,
                           cp_kv_row(rt, rt->kv[0], base), lse, rt->delta, rt->work[i], i > first,
                           false, stream);
        CHECK(group_reduce(rt, i, stream, &reduce[i]));
    }
    if (first == 0)
        ops->mem_copy(dkv, rt->dkv_part[0], rt->S * cp_kv_width(rt) * (int64_t)sizeof(float),
                      stream);
    else
        ops->attention_bwd(dq, dkv, d_o, q, kv, lse, rt->delta, rt->work[0], true, false, stream);
    for (int i = first; i < n; i++) CHECK(comm_wait(rt->comm, reduce[i], stream));
    add_received(rt, dkv, stream);
    return OK;
}

const CpTable cp_magi = {.create = create,
                         .forward = forward,
                         .backward = backward,
                         .prefetch = prefetch,
                         .plan = plan_whole};
