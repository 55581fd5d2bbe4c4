/* magi_fused: magi as one fused attention call per direction, where ranks read each other's memory
 * (comm->has_flags). The call starts at once on local keys; remote KV arrives while it runs, that
 * of rank r + 1 first, and the kernel waits at the first tile that needs it. In the backward the
 * partial dKV of a remote range leaves as soon as its last tile is written, while the kernel goes
 * on, and half of the work on local keys comes last to hide the rest. Nothing is split, merged or
 * carried between calls, and each transfer has the links to itself.
 *
 * Rows: [local | padding | rows of rank r + 1 | padding | rows of rank r + 2 | ...], see RemoteKv.
 * Local keys stay where they are; the remote ranges lie in kv[0]. */
#include <stdlib.h>

#include "cp/magi.h"
#include "ops/phases.h"

/* When remote ranges are ready, measured between two H200s (NVLink 4, one copy at a time; 776ee89):
 * READY_US after the call starts, then RANGE_US for each range and its bytes at this rate. */
static const double READY_US = 8, RANGE_US = 12, BYTES_PER_US = 340e3;

/* A remote rank's rows are split into several ranges where a shard has at most SHORT_KERNEL_ROWS
 * rows and a range at least RANGE_BYTES (H200 pair; b8fe6fa). tests/cp_dense.h has shards large
 * enough. */
enum { SHORT_KERNEL_ROWS = 4096, RANGE_BYTES = 4 << 20, RANGES_PER_RANK_MAX = 4 };

int64_t magi_fused_keys(const Magi *m) {
    return m->rt.opt.size * m->rt.S + ATTN_REMOTE_RANGES * ATTN_PAD_ROWS;
}

static void *remote_row(const Magi *m, int64_t row) {
    return cp_kv_row(&m->rt, m->kv, row - m->remote.rows[0].begin);
}

bool magi_fused_wanted(const Magi *m) {
    return m->rt.comm->has_flags && m->rt.opt.overlap_degree < 0 &&
           m->rt.opt.size <= 1 + ATTN_REMOTE_RANGES;
}

/* Each remote rank's rows are split into this many ranges, so that a large transfer can overlap a
 * short kernel. They arrive in one group, which costs 15 us however many bytes it moves, and sets a
 * flag for each. The same on all ranks. */
static int ranges_per_rank(const Magi *m) {
    int64_t others = m->rt.opt.size - 1,
            most = i64_min(RANGES_PER_RANK_MAX, ATTN_REMOTE_RANGES / others);
    int64_t bytes = m->rt.plan->most_rows / others * cp_kv_width(&m->rt) * m->rt.ops->act_bytes;
    return m->rt.S > SHORT_KERNEL_ROWS ? 1 : (int)i64_max(1, i64_min(most, bytes / RANGE_BYTES));
}

/* source_rank(i): owner of remote range i. target_rank(i): the rank for which our keys are range i.
 */
static int source_rank(const Magi *m, int i) {
    return (m->rt.opt.rank + 1 + i / ranges_per_rank(m)) % m->rt.opt.size;
}
static int target_rank(const Magi *m, int i) {
    return (m->rt.opt.rank + m->rt.opt.size - 1 - i / ranges_per_rank(m)) % m->rt.opt.size;
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* The rows of range number `index` of those between this rank and a peer. They count all rows that
 * pass between the two, stage after stage of the plan. */
static Range range_rows(const Magi *m, int peer, bool sent, int index) {
    int32_t rows = 0;
    for (int s = 0; s < m->rt.plan->n_stages; s++) {
        const PlanStage *stage = &m->rt.plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++)
            if (segments[i].peer == peer) rows += segments[i].rows;
    }
    int n = ranges_per_rank(m);
    int32_t begin = rows / ATTN_TILE * index / n * ATTN_TILE,
            end = rows / ATTN_TILE * (index + 1) / n * ATTN_TILE;
    return (Range){begin, index + 1 == n ? rows : end};
}

/* Adds the segments that a range's rows consist of; `at` is their first row in their buffer. */
static void add_segments(Magi *m, int range, bool sent, int peer, Range rows, int32_t at) {
    int32_t row = 0; /* of those that pass between the two */
    for (int s = 0; s < m->rt.plan->n_stages; s++) {
        const PlanStage *stage = &m->rt.plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++) {
            if (segments[i].peer != peer) continue;
            int32_t begin = (int32_t)i64_max(rows.begin, row), next = row + segments[i].rows;
            int32_t end = (int32_t)i64_min(rows.end, next);
            if (begin < end) {
                GROW(m->segments, m->n_segments, m->segments_capacity);
                m->segments[m->n_segments++] = (FusedSegment){.range = range,
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

static void place_ranges(Magi *m, Stream *stream) {
    RemoteKv *remote = &m->remote;
    int n = ranges_per_rank(m);
    remote->n = (m->rt.opt.size - 1) * n;
    remote->kv_ready = m->flags;
    remote->dkv_done = m->flags + ATTN_REMOTE_RANGES;
    remote->kv = m->kv;
    m->n_segments = 0;
    int32_t row = (int32_t)m->rt.S, received = 0; /* rows of dkv_in so far */
    double us = READY_US;
    for (int i = 0; i < remote->n; i++) {
        Range in = range_rows(m, source_rank(m, i), false, i % n);
        Range out = range_rows(m, target_rank(m, i), true, i % n);
        row += ATTN_PAD_ROWS;
        remote->rows[i] = (Range){row, row + in.end - in.begin};
        if (i > 0)
            m->rt.ops->mem_zero(remote_row(m, row - ATTN_PAD_ROWS),
                                ATTN_PAD_ROWS * cp_kv_width(&m->rt) * m->rt.ops->act_bytes, stream);
        add_segments(m, i, false, source_rank(m, i), in, row);
        add_segments(m, i, true, target_rank(m, i), out, received);
        m->dkv_recv_rows[i] = (Range){received, received + out.end - out.begin};
        us +=
            RANGE_US + (double)((in.end - in.begin) * cp_kv_width(&m->rt) * m->rt.ops->act_bytes) /
                           BYTES_PER_US;
        remote->est_ready_us[i] = (float)us;
        row = remote->rows[i].end;
        received = m->dkv_recv_rows[i].end;
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
static Bands place_bands(const Magi *m) {
    Bands bands = {0};
    for (int s = 0; s < m->rt.plan->n_stages; s++) {
        REQUIRE(m->rt.plan->stages[s].own_row <= 0);
        if (m->rt.plan->stages[s].own_row == 0)
            add_bands(&bands, &m->rt.plan->stages[s], (Range){0, (int32_t)m->rt.S}, 0);
    }
    for (int64_t i = 0; i < m->n_segments; i++) {
        const FusedSegment *segment = &m->segments[i];
        if (!segment->sent)
            add_bands(&bands, &m->rt.plan->stages[segment->stage],
                      (Range){segment->row, segment->row + segment->rows}, segment->at);
    }
    return bands;
}

static void plan_reduce(Magi *m, Stream *stream) {
    DkvSegment *segments = NEW(DkvSegment, m->n_segments + 1);
    int64_t n = 0;
    for (int64_t i = 0; i < m->n_segments; i++)
        if (m->segments[i].sent)
            segments[n++] =
                (DkvSegment){m->segments[i].row, m->segments[i].at, m->segments[i].rows};
    dkv_reduce_plan(&m->reduce, &m->rt, segments, n, stream);
    free(segments);
}

Status magi_fused_plan(Magi *m, Stream *stream) {
    place_ranges(m, stream);
    plan_reduce(m, stream);
    Bands bands = place_bands(m);
    AttnShape shape = cp_shape(&m->rt, m->remote.rows[m->remote.n - 1].end);
    m->rt.work = NEW(AttnWork *, 1);
    Status st =
        m->rt.ops->attn_work_create(&m->rt.work[0], bands.list, bands.n, shape, &m->remote, stream);
    m->rt.n_work = st == OK;
    free(bands.list);
    return st;
}

/* ---- transfers ------------------------------------------------------------------------------- */

static Status send_range(Magi *m, int i, const void *kv) {
    int64_t width = cp_kv_width(&m->rt);
    for (int64_t j = 0; j < m->n_segments; j++) {
        const FusedSegment *segment = &m->segments[j];
        if (segment->range != i) continue;
        CHECK(segment->sent
                  ? comm_send(m->rt.comm, cp_kv_row(&m->rt, kv, segment->row),
                              segment->rows * width, m->rt.ops->act_dtype, target_rank(m, i),
                              COMM_KIND_KV)
                  : comm_recv(m->rt.comm, remote_row(m, segment->at), segment->rows * width,
                              m->rt.ops->act_dtype, source_rank(m, i)));
    }
    return OK;
}

Status magi_fused_fetch(Magi *m, const void *kv, Stream *stream) {
    m->rt.ops->mem_zero(m->remote.kv_ready, ATTN_REMOTE_RANGES * 4, stream);
    for (int i = 0, n = ranges_per_rank(m); i < m->remote.n; i += n) {
        CHECK(comm_group_begin(m->rt.comm));
        for (int j = i; j < i + n; j++) {
            CHECK(send_range(m, j, kv));
            CHECK(comm_group_set_flag_on_recv(m->rt.comm, &m->remote.kv_ready[j]));
        }
        CHECK(comm_group_end(m->rt.comm, stream, &m->kv_tickets[i]));
    }
    return OK;
}

/* Sends the dKV of range i, which is contiguous here and in its owner's dkv_in. */
static Status send_dkv(Magi *m, int i, Stream *stream, CommTicket *ticket) {
    int64_t width = cp_kv_width(&m->rt);
    Range out = m->remote.rows[i], in = m->dkv_recv_rows[i];
    CHECK(comm_group_begin(m->rt.comm));
    CHECK(comm_send(m->rt.comm, m->dkv + out.begin * width, (out.end - out.begin) * width, DT_F32,
                    source_rank(m, i), COMM_KIND_DKV));
    CHECK(comm_recv(m->rt.comm, m->reduce.in + in.begin * width, (in.end - in.begin) * width,
                    DT_F32, target_rank(m, i)));
    CHECK(comm_group_wait_value(m->rt.comm, &m->remote.dkv_done[i], ++m->dkv_done_target[i]));
    return comm_group_end(m->rt.comm, stream, ticket);
}

/* ---- calls ----------------------------------------------------------------------------------- */

Status magi_fused_forward(Magi *m, AttnFwd call, Stream *stream) {
    CHECK(magi_fused_fetch(m, call.kv, stream));
    call.o_acc = m->rt.o_acc;
    call.work = m->rt.work[0];
    m->rt.ops->attention_fwd(&call, stream);
    Phase before = phase_enter(stream, PHASE_CP_EXPOSED);
    for (int i = 0; i < m->remote.n; i += ranges_per_rank(m))
        CHECK(comm_wait(m->rt.comm, m->kv_tickets[i], stream));
    phase_enter(stream, before);
    return OK;
}

Status magi_fused_backward(Magi *m, AttnBwd call, const void *o, Stream *stream) {
    CommTicket reduced[ATTN_REMOTE_RANGES];
    float *dkv = call.dkv;
    cp_delta(&m->rt, call.d_o, o, stream);
    call.dkv = m->dkv;
    cp_stage_backward(&m->rt, 0, call, stream);
    for (int i = 0; i < m->remote.n; i++) CHECK(send_dkv(m, i, stream, &reduced[i]));
    /* The last range of a rank is empty only if all are, and its transfer follows the others; a
     * rank whose gradients have arrived had received its keys. */
    Phase before = phase_enter(stream, PHASE_CP_EXPOSED);
    for (int n = ranges_per_rank(m), i = n - 1; i < m->remote.n; i += n)
        CHECK(comm_wait(m->rt.comm, reduced[i], stream));
    phase_enter(stream, before);
    dkv_reduce(&m->reduce, &m->rt, dkv, m->dkv, stream);
    return OK;
}
