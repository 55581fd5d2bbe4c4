/* magi_whole: magi in one attention call per direction, where ranks read each other's memory
 * (comm->signals). The call begins at once with own keys; those of the other ranks arrive while it
 * runs, rank r + 1's first, and the kernel waits at the first tile that needs them. In the backward
 * the partial dKV of a rank's keys leaves as soon as its last tile is written, under what the
 * kernel does next, and half of the own keys come last to hide what remains. Nothing is split,
 * merged or carried between calls, and a source's transfer has the links to itself.
 *
 * Buffers: [own | gap | rows of rank r + 1 | gap | rows of rank r + 2 | ...], see AttnSources. */
#include <stdlib.h>

#include "cp/magi.h"

/* The i-th source, and the rank whose i-th source this one is. */
static int source_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + 1 + i) % rt->opt.size;
}
static int target_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + rt->opt.size - 1 - i) % rt->opt.size;
}

int64_t magi_whole_keys(const CpRuntime *rt) {
    return rt->S + (rt->opt.size - 1) * (rt->S + ATTN_GAP);
}

bool magi_whole_wanted(const CpRuntime *rt) {
    return rt->comm->signals && rt->opt.overlap_degree < 0 && rt->opt.size <= 1 + ATTN_SOURCES;
}

/* Rows that this rank receives from a peer, or sends to it, in all stages of the plan. */
static int32_t rows_of(const RankPlan *plan, int peer, bool sent) {
    int32_t rows = 0;
    for (int s = 0; s < plan->n_stages; s++) {
        const PlanStage *stage = &plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++)
            if (segments[i].peer == peer) rows += segments[i].rows;
    }
    return rows;
}

static void place_sources(CpRuntime *rt) {
    AttnSources *sources = &rt->sources;
    sources->n = rt->opt.size - 1;
    sources->arrived = rt->flags;
    sources->departed = rt->flags + ATTN_SOURCES;
    int32_t row = (int32_t)rt->S;
    for (int i = 0; i < sources->n; i++) {
        row += ATTN_GAP;
        sources->rows[i] = (Range){row, row + rows_of(rt->plan, source_rank(rt, i), false)};
        row = sources->rows[i].end;
    }
}

typedef struct {
    Band *list;
    int64_t n, room;
} Bands;

static void add_band(Bands *bands, Band band, int32_t shift) {
    if (band_is_empty(band)) return;
    if (bands->n == bands->room) {
        bands->room = 2 * bands->room + 64;
        bands->list = mem_grow(bands->list, bands->room, sizeof *bands->list);
    }
    bands->list[bands->n++] = band_shift(band, 0, shift);
}

/* Every band of every stage, cut where the rows of its buffer lie apart in the one call's. */
static Bands place_bands(const CpRuntime *rt) {
    Bands bands = {0};
    int32_t next[ATTN_SOURCES]; /* free row of each source */
    for (int i = 0; i < rt->sources.n; i++) next[i] = rt->sources.rows[i].begin;
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        REQUIRE(stage->own_row <= 0);
        for (int j = 0; stage->own_row == 0 && j < stage->n_bands; j++)
            add_band(&bands, band_cut_k(stage->bands[j], (Range){0, (int32_t)rt->S}), 0);
        for (int i = 0; i < stage->n_recv; i++) {
            const PlanSegment *segment = &stage->recv[i];
            Range rows = {segment->row, segment->row + segment->rows};
            int32_t *at = &next[(segment->peer + rt->opt.size - rt->opt.rank - 1) % rt->opt.size];
            for (int j = 0; j < stage->n_bands; j++)
                add_band(&bands, band_cut_k(stage->bands[j], rows), *at - segment->row);
            *at += segment->rows;
        }
    }
    return bands;
}

/* dkv_in: [rows that the first target sends back | the second | ...]. */
static void plan_sum(CpRuntime *rt, Stream *stream) {
    int64_t n = 0;
    int32_t in = 0;
    for (int s = 0; s < rt->plan->n_stages; s++) n += rt->plan->stages[s].n_send;
    MagiShare *shares = NEW(MagiShare, n + 1);
    n = 0;
    for (int t = 0; t < rt->sources.n; t++)
        for (int s = 0; s < rt->plan->n_stages; s++)
            for (int i = 0; i < rt->plan->stages[s].n_send; i++) {
                const PlanSegment *segment = &rt->plan->stages[s].send[i];
                if (segment->peer != target_rank(rt, t)) continue;
                shares[n++] = (MagiShare){segment->row, in, segment->rows};
                in += segment->rows;
            }
    magi_sum_plan(rt, shares, n, stream);
    free(shares);
}

Status magi_whole_plan(CpRuntime *rt, Stream *stream) {
    place_sources(rt);
    int32_t end = (int32_t)rt->S; /* of the rows before a gap */
    for (int i = 0; i < rt->sources.n; i++) {
        rt->ops->mem_zero(cp_kv_row(rt, rt->kv[0], end),
                          ATTN_GAP * cp_kv_width(rt) * rt->ops->act_bytes, stream);
        end = rt->sources.rows[i].end;
    }
    plan_sum(rt, stream);
    Bands bands = place_bands(rt);
    AttnShape shape = cp_shape(rt, end);
    Status st =
        rt->ops->attn_work_create(&rt->whole, bands.list, bands.n, shape, &rt->sources, stream);
    free(bands.list);
    return st;
}

/* ---- transfers: one group a source ----------------------------------------------------------- */

static Status cast(CpRuntime *rt, int i, const void *kv) {
    Comm *comm = rt->comm;
    Dtype type = rt->ops->act_dtype;
    int64_t width = cp_kv_width(rt), row = rt->sources.rows[i].begin;
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        for (int j = 0; j < stage->n_send; j++) {
            const PlanSegment *out = &stage->send[j];
            if (out->peer == target_rank(rt, i))
                CHECK(comm_send(comm, cp_kv_row(rt, kv, out->row), out->rows * width, type,
                                out->peer, COMM_KIND_KV));
        }
        for (int j = 0; j < stage->n_recv; j++) {
            const PlanSegment *in = &stage->recv[j];
            if (in->peer != source_rank(rt, i)) continue;
            CHECK(comm_recv(comm, cp_kv_row(rt, rt->kv[0], row), in->rows * width, type, in->peer));
            row += in->rows;
        }
    }
    return OK;
}

Status magi_whole_fetch(CpRuntime *rt, const void *kv, Stream *stream) {
    rt->ops->mem_zero(rt->sources.arrived, ATTN_SOURCES * 4, stream);
    for (int i = 0; i < rt->sources.n; i++) {
        CHECK(comm_group_begin(rt->comm));
        CHECK(cast(rt, i, kv));
        CHECK(comm_group_signal(rt->comm, &rt->sources.arrived[i]));
        CHECK(comm_group_end(rt->comm, stream, &rt->fetched[i]));
    }
    rt->ops->mem_copy(rt->kv[0], kv, rt->S * cp_kv_width(rt) * rt->ops->act_bytes, stream);
    return OK;
}

/* A source's rows lie in one piece here, and at their owner in dkv_in. */
static Status reduce(CpRuntime *rt, int i, int64_t *in, Stream *stream, CommTicket *ticket) {
    int64_t width = cp_kv_width(rt), rows = rows_of(rt->plan, target_rank(rt, i), true);
    Range out = rt->sources.rows[i];
    CHECK(comm_group_begin(rt->comm));
    CHECK(comm_send(rt->comm, rt->dkv_part[0] + out.begin * width, (out.end - out.begin) * width,
                    DT_F32, source_rank(rt, i), COMM_KIND_DKV));
    CHECK(comm_recv(rt->comm, rt->dkv_in + *in * width, rows * width, DT_F32, target_rank(rt, i)));
    CHECK(comm_group_after(rt->comm, &rt->sources.departed[i], rt->departures));
    *in += rows;
    return comm_group_end(rt->comm, stream, ticket);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static Status wait_for_all(CpRuntime *rt, const CommTicket *tickets, Stream *stream) {
    for (int i = 0; i < rt->sources.n; i++) CHECK(comm_wait(rt->comm, tickets[i], stream));
    return OK;
}

Status magi_whole_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream) {
    CHECK(magi_whole_fetch(rt, kv, stream));
    rt->ops->attention_fwd(o, NULL, lse, q, rt->kv[0], rt->whole, false, stream);
    return wait_for_all(rt, rt->fetched, stream);
}

Status magi_whole_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, Stream *stream) {
    CommTicket reduced[ATTN_SOURCES];
    int64_t in = 0;
    rt->ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    rt->ops->attention_bwd(dq, rt->dkv_part[0], d_o, q, rt->kv[0], lse, rt->delta, rt->whole, false,
                           false, stream);
    rt->departures++;
    for (int i = 0; i < rt->sources.n; i++) CHECK(reduce(rt, i, &in, stream, &reduced[i]));
    CHECK(wait_for_all(rt, rt->fetched, stream));
    CHECK(wait_for_all(rt, reduced, stream));
    magi_sum(rt, dkv, rt->dkv_part[0], stream);
    return OK;
}
