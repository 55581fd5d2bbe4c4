/* magi_fused: magi as one fused attention call per direction, where ranks read each other's memory
 * (comm->has_flags). The call starts at once on local keys; remote KV arrives while it runs, that
 * of rank r + 1 first, and the kernel waits at the first tile that needs it. In the backward the
 * partial dKV of a remote range leaves as soon as its last tile is written, while the kernel goes
 * on, and half of the work on local keys comes last to hide the rest. Nothing is split, merged or
 * carried between calls, and each transfer has the links to itself.
 *
 * Rows: [local | padding | rows of rank r + 1 | padding | rows of rank r + 2 | ...], see RemoteKv.
 * Local keys stay where they are; the remote ranges lie in kv[0]. */
#include "cp/magi_fused.h"

#include <stdlib.h>

#include "cp/dkv_reduce.h"

/* When remote ranges are ready, measured between two H200s (NVLink 4, one copy at a time; 776ee89):
 * READY_US after the call starts, then RANGE_US for each range and its bytes at this rate. */
static const double READY_US = 8, RANGE_US = 12, BYTES_PER_US = 340e3;

/* A remote rank's rows are split into several ranges where a shard has at most SHORT_KERNEL_ROWS
 * rows and a range at least RANGE_BYTES (H200 pair; b8fe6fa). tests/cp_dense.h has shards large
 * enough. */
enum { SHORT_KERNEL_ROWS = 4096, RANGE_BYTES = 4 << 20, RANGES_PER_RANK_MAX = 4, TILE = 128 };

int64_t magi_fused_keys(const CpRuntime *rt) {
    return rt->opt.size * rt->S + ATTN_REMOTE_RANGES * ATTN_PAD_ROWS;
}

static void *remote_row(const CpRuntime *rt, int64_t row) {
    return cp_kv_row(rt, rt->kv[0], row - rt->remote.rows[0].begin);
}

bool magi_fused_wanted(const CpRuntime *rt) {
    return rt->comm->has_flags && rt->opt.overlap_degree < 0 &&
           rt->opt.size <= 1 + ATTN_REMOTE_RANGES;
}

/* Each remote rank's rows are split into this many ranges, so that a large transfer can overlap a
 * short kernel. They arrive in one group, which costs 15 us however many bytes it moves, and sets a
 * flag for each. The same on all ranks. */
static int ranges_per_rank(const CpRuntime *rt) {
    int64_t others = rt->opt.size - 1,
            most = i64_min(RANGES_PER_RANK_MAX, ATTN_REMOTE_RANGES / others);
    int64_t bytes = rt->plan->most_rows / others * cp_kv_width(rt) * rt->ops->act_bytes;
    return rt->S > SHORT_KERNEL_ROWS ? 1 : (int)i64_max(1, i64_min(most, bytes / RANGE_BYTES));
}

/* source_rank(i): owner of remote range i. target_rank(i): the rank for which our keys are range i.
 */
static int source_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + 1 + i / ranges_per_rank(rt)) % rt->opt.size;
}
static int target_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + rt->opt.size - 1 - i / ranges_per_rank(rt)) % rt->opt.size;
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* The rows of range number `index` of those between this rank and a peer. They count all rows that
 * pass between the two, stage after stage of the plan. */
static Range range_rows(const CpRuntime *rt, int peer, bool sent, int index) {
    int32_t rows = 0;
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++)
            if (segments[i].peer == peer) rows += segments[i].rows;
    }
    int n = ranges_per_rank(rt);
    int32_t begin = rows / TILE * index / n * TILE, end = rows / TILE * (index + 1) / n * TILE;
    return (Range){begin, index + 1 == n ? rows : end};
}

/* Adds the segments that a range's rows consist of; `at` is their first row in their buffer. */
static void add_segments(CpRuntime *rt, int range, bool sent, int peer, Range rows, int32_t at) {
    int32_t row = 0; /* of those that pass between the two */
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++) {
            if (segments[i].peer != peer) continue;
            int32_t begin = (int32_t)i64_max(rows.begin, row), next = row + segments[i].rows;
            int32_t end = (int32_t)i64_min(rows.end, next);
            if (begin < end) {
                rt->fused_segments = mem_grow(rt->fused_segments, rt->n_fused_segments + 1,
                                              sizeof *rt->fused_segments);
                rt->fused_segments[rt->n_fused_segments++] =
                    (FusedSegment){.range = range,
                                   .sent = sent,
                                   .stage = s,
                                   .row = segments[i].row + begin - row,
                                   .rows = end - begin,
                                   .at = at + begin - rows.begin};
            }
            row = next;
        }
    }
}

static void place_ranges(CpRuntime *rt, Stream *stream) {
    RemoteKv *remote = &rt->remote;
    int n = ranges_per_rank(rt);
    remote->n = (rt->opt.size - 1) * n;
    remote->kv_ready = rt->flags;
    remote->dkv_done = rt->flags + ATTN_REMOTE_RANGES;
    remote->kv = rt->kv[0];
    rt->n_fused_segments = 0;
    int32_t row = (int32_t)rt->S, received = 0; /* rows of dkv_in so far */
    double us = READY_US;
    for (int i = 0; i < remote->n; i++) {
        Range in = range_rows(rt, source_rank(rt, i), false, i % n);
        Range out = range_rows(rt, target_rank(rt, i), true, i % n);
        row += ATTN_PAD_ROWS;
        remote->rows[i] = (Range){row, row + in.end - in.begin};
        if (i > 0)
            rt->ops->mem_zero(remote_row(rt, row - ATTN_PAD_ROWS),
                              ATTN_PAD_ROWS * cp_kv_width(rt) * rt->ops->act_bytes, stream);
        add_segments(rt, i, false, source_rank(rt, i), in, row);
        add_segments(rt, i, true, target_rank(rt, i), out, received);
        rt->dkv_recv_rows[i] = (Range){received, received + out.end - out.begin};
        us += RANGE_US +
              (double)((in.end - in.begin) * cp_kv_width(rt) * rt->ops->act_bytes) / BYTES_PER_US;
        remote->est_ready_us[i] = (float)us;
        row = remote->rows[i].end;
        received = rt->dkv_recv_rows[i].end;
    }
}

typedef struct {
    Band *list;
    int64_t n, capacity;
} Bands;

static void add_bands(Bands *bands, const PlanStage *stage, Range rows, int32_t at) {
    for (int j = 0; j < stage->n_bands; j++) {
        Band band = band_cut_k(stage->bands[j], rows);
        if (band_is_empty(band)) continue;
        GROW(bands->list, bands->n, bands->capacity);
        bands->list[bands->n++] = band_shift(band, 0, at - rows.begin);
    }
}

/* Every band of every stage, cut where adjacent rows of its buffer are apart in the fused call. */
static Bands place_bands(const CpRuntime *rt) {
    Bands bands = {0};
    for (int s = 0; s < rt->plan->n_stages; s++) {
        REQUIRE(rt->plan->stages[s].own_row <= 0);
        if (rt->plan->stages[s].own_row == 0)
            add_bands(&bands, &rt->plan->stages[s], (Range){0, (int32_t)rt->S}, 0);
    }
    for (int64_t i = 0; i < rt->n_fused_segments; i++) {
        const FusedSegment *segment = &rt->fused_segments[i];
        if (!segment->sent)
            add_bands(&bands, &rt->plan->stages[segment->stage],
                      (Range){segment->row, segment->row + segment->rows}, segment->at);
    }
    return bands;
}

static void plan_reduce(CpRuntime *rt, Stream *stream) {
    DkvSegment *segments = NEW(DkvSegment, rt->n_fused_segments + 1);
    int64_t n = 0;
    for (int64_t i = 0; i < rt->n_fused_segments; i++)
        if (rt->fused_segments[i].sent)
            segments[n++] = (DkvSegment){rt->fused_segments[i].row, rt->fused_segments[i].at,
                                         rt->fused_segments[i].rows};
    dkv_reduce_plan(rt, segments, n, stream);
    free(segments);
}

Status magi_fused_plan(CpRuntime *rt, Stream *stream) {
    place_ranges(rt, stream);
    plan_reduce(rt, stream);
    Bands bands = place_bands(rt);
    AttnShape shape = cp_shape(rt, rt->remote.rows[rt->remote.n - 1].end);
    Status st =
        rt->ops->attn_work_create(&rt->fused_work, bands.list, bands.n, shape, &rt->remote, stream);
    free(bands.list);
    return st;
}

/* ---- transfers ------------------------------------------------------------------------------- */

static Status send_range(CpRuntime *rt, int i, const void *kv) {
    int64_t width = cp_kv_width(rt);
    for (int64_t j = 0; j < rt->n_fused_segments; j++) {
        const FusedSegment *segment = &rt->fused_segments[j];
        if (segment->range != i) continue;
        CHECK(segment->sent
                  ? comm_send(rt->comm, cp_kv_row(rt, kv, segment->row), segment->rows * width,
                              rt->ops->act_dtype, target_rank(rt, i), COMM_KIND_KV)
                  : comm_recv(rt->comm, remote_row(rt, segment->at), segment->rows * width,
                              rt->ops->act_dtype, source_rank(rt, i)));
    }
    return OK;
}

Status magi_fused_fetch(CpRuntime *rt, const void *kv, Stream *stream) {
    rt->ops->mem_zero(rt->remote.kv_ready, ATTN_REMOTE_RANGES * 4, stream);
    for (int i = 0, n = ranges_per_rank(rt); i < rt->remote.n; i += n) {
        CHECK(comm_group_begin(rt->comm));
        for (int j = i; j < i + n; j++) {
            CHECK(send_range(rt, j, kv));
            CHECK(comm_group_set_flag_on_recv(rt->comm, &rt->remote.kv_ready[j]));
        }
        CHECK(comm_group_end(rt->comm, stream, &rt->kv_tickets[i]));
    }
    return OK;
}

/* Sends the dKV of range i, which is contiguous here and in its owner's dkv_in. */
static Status send_dkv(CpRuntime *rt, int i, Stream *stream, CommTicket *ticket) {
    int64_t width = cp_kv_width(rt);
    Range out = rt->remote.rows[i], in = rt->dkv_recv_rows[i];
    CHECK(comm_group_begin(rt->comm));
    CHECK(comm_send(rt->comm, rt->dkv_part[0] + out.begin * width, (out.end - out.begin) * width,
                    DT_F32, source_rank(rt, i), COMM_KIND_DKV));
    CHECK(comm_recv(rt->comm, rt->dkv_in + in.begin * width, (in.end - in.begin) * width, DT_F32,
                    target_rank(rt, i)));
    CHECK(comm_group_wait_value(rt->comm, &rt->remote.dkv_done[i], ++rt->dkv_done_target[i]));
    return comm_group_end(rt->comm, stream, ticket);
}

/* ---- calls ----------------------------------------------------------------------------------- */

Status magi_fused_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream) {
    CHECK(magi_fused_fetch(rt, kv, stream));
    rt->ops->attention_fwd(
        &(AttnFwd){
            .o = o, .o_acc = rt->o_acc, .lse = lse, .q = q, .kv = kv, .work = rt->fused_work},
        stream);
    for (int i = 0; i < rt->remote.n; i += ranges_per_rank(rt))
        CHECK(comm_wait(rt->comm, rt->kv_tickets[i], stream));
    return OK;
}

Status magi_fused_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, const void *kv, Stream *stream) {
    CommTicket reduced[ATTN_REMOTE_RANGES];
    rt->ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    rt->ops->attention_bwd(&(AttnBwd){.dq = dq,
                                      .dkv = rt->dkv_part[0],
                                      .d_o = d_o,
                                      .q = q,
                                      .kv = kv,
                                      .lse = lse,
                                      .delta = rt->delta,
                                      .work = rt->fused_work},
                           stream);
    for (int i = 0; i < rt->remote.n; i++) CHECK(send_dkv(rt, i, stream, &reduced[i]));
    /* The last range of a rank is empty only if all are, and its transfer follows the others; a
     * rank whose gradients have arrived had received its keys. */
    for (int n = ranges_per_rank(rt), i = n - 1; i < rt->remote.n; i += n)
        CHECK(comm_wait(rt->comm, reduced[i], stream));
    dkv_reduce(rt, dkv, rt->dkv_part[0], stream);
    return OK;
}
