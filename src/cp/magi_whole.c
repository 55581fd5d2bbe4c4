/* magi_whole: magi in one attention call per direction, where ranks read each other's memory
 * (comm->signals). The call begins at once with own keys; those of the other ranks arrive while it
 * runs, rank r + 1's first, and the kernel waits at the first tile that needs them. In the backward
 * the partial dKV of a source's keys leaves as soon as its last tile is written, under what the
 * kernel does next, and half of the work on own keys comes last to hide what remains. Nothing is
 * split, merged or carried between calls, and each transfer has the links to itself.
 *
 * Rows: [own | gap | rows of rank r + 1 | gap | rows of rank r + 2 | ...], see AttnSources; of keys
 * the own ones stay where they are, and the others lie in kv[0]. */
#include "cp/magi_whole.h"

#include <stdlib.h>

#include "cp/magi_sum.h"

/* How rows arrive, measured between two H200s (NVLink 4, one copy at a time): so long after the
 * call begins, then so long for each piece, at this rate. */
static const double FIRST_US = 8, PIECE_US = 12, BYTES_PER_US = 340e3;

/* tests/cp_dense.h has shards large enough for pieces */
enum { FEW_ROWS = 4096, PIECE_BYTES = 4 << 20, MOST_PIECES = 4, TILE = 128 };

int64_t magi_whole_keys(const CpRuntime *rt) {
    return rt->opt.size * rt->S + ATTN_SOURCES * ATTN_GAP;
}

static void *source_row(const CpRuntime *rt, int64_t row) {
    return cp_kv_row(rt, rt->kv[0], row - rt->sources.rows[0].begin);
}

bool magi_whole_wanted(const CpRuntime *rt) {
    return rt->comm->signals && rt->opt.overlap_degree < 0 && rt->opt.size <= 1 + ATTN_SOURCES;
}

/* Another rank's rows are so many sources, one behind the other: where there is little to compute,
 * what is large comes and leaves in pieces. They come in one group, which takes 15 us, whatever it
 * moves, and raises a flag for each. The same on all ranks. */
static int pieces(const CpRuntime *rt) {
    int64_t others = rt->opt.size - 1, most = i64_min(MOST_PIECES, ATTN_SOURCES / others);
    int64_t bytes = rt->plan->most_rows / others * cp_kv_width(rt) * rt->ops->act_bytes;
    return rt->S > FEW_ROWS ? 1 : (int)i64_max(1, i64_min(most, bytes / PIECE_BYTES));
}

/* Whose keys the i-th source is, and the rank whose i-th source are own keys. */
static int source_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + 1 + i / pieces(rt)) % rt->opt.size;
}
static int target_rank(const CpRuntime *rt, int i) {
    return (rt->opt.rank + rt->opt.size - 1 - i / pieces(rt)) % rt->opt.size;
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* Of the rows that pass between this rank and a peer, in all stages of the plan, those of a piece.
 */
static Range piece_rows(const CpRuntime *rt, int peer, bool sent, int piece) {
    int32_t rows = 0;
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++)
            if (segments[i].peer == peer) rows += segments[i].rows;
    }
    int n = pieces(rt);
    int32_t begin = rows / TILE * piece / n * TILE, end = rows / TILE * (piece + 1) / n * TILE;
    return (Range){begin, piece + 1 == n ? rows : end};
}

/* The parts of segments that a source's rows (from `at` on in its buffer) consist of. */
static void add_parts(CpRuntime *rt, int source, bool sent, int peer, Range rows, int32_t at) {
    int32_t row = 0; /* of those that pass between the two */
    for (int s = 0; s < rt->plan->n_stages; s++) {
        const PlanStage *stage = &rt->plan->stages[s];
        const PlanSegment *segments = sent ? stage->send : stage->recv;
        for (int i = 0; i < (sent ? stage->n_send : stage->n_recv); i++) {
            if (segments[i].peer != peer) continue;
            int32_t begin = (int32_t)i64_max(rows.begin, row), next = row + segments[i].rows;
            int32_t end = (int32_t)i64_min(rows.end, next);
            if (begin < end) {
                rt->parts = mem_grow(rt->parts, rt->n_parts + 1, sizeof *rt->parts);
                rt->parts[rt->n_parts++] = (MagiPart){.source = source,
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

static void place_sources(CpRuntime *rt, Stream *stream) {
    AttnSources *sources = &rt->sources;
    int n = pieces(rt);
    sources->n = (rt->opt.size - 1) * n;
    sources->arrived = rt->flags;
    sources->departed = rt->flags + ATTN_SOURCES;
    sources->kv = rt->kv[0];
    rt->n_parts = 0;
    int32_t row = (int32_t)rt->S, lent = 0;
    double us = FIRST_US;
    for (int i = 0; i < sources->n; i++) {
        Range in = piece_rows(rt, source_rank(rt, i), false, i % n);
        Range out = piece_rows(rt, target_rank(rt, i), true, i % n);
        row += ATTN_GAP;
        sources->rows[i] = (Range){row, row + in.end - in.begin};
        if (i > 0)
            rt->ops->mem_zero(source_row(rt, row - ATTN_GAP),
                              ATTN_GAP * cp_kv_width(rt) * rt->ops->act_bytes, stream);
        add_parts(rt, i, false, source_rank(rt, i), in, row);
        add_parts(rt, i, true, target_rank(rt, i), out, lent);
        rt->lent[i] = (Range){lent, lent + out.end - out.begin};
        us += PIECE_US +
              (double)((in.end - in.begin) * cp_kv_width(rt) * rt->ops->act_bytes) / BYTES_PER_US;
        sources->arrival_us[i] = (float)us;
        row = sources->rows[i].end;
        lent = rt->lent[i].end;
    }
}

typedef struct {
    Band *list;
    int64_t n, room;
} Bands;

static void add_bands(Bands *bands, const PlanStage *stage, Range rows, int32_t at) {
    for (int j = 0; j < stage->n_bands; j++) {
        Band band = band_cut_k(stage->bands[j], rows);
        if (band_is_empty(band)) continue;
        if (bands->n == bands->room) {
            bands->room = 2 * bands->room + 64;
            bands->list = mem_grow(bands->list, bands->room, sizeof *bands->list);
        }
        bands->list[bands->n++] = band_shift(band, 0, at - rows.begin);
    }
}

/* Every band of every stage, cut where the rows of its buffer lie apart in the one call's. */
static Bands place_bands(const CpRuntime *rt) {
    Bands bands = {0};
    for (int s = 0; s < rt->plan->n_stages; s++) {
        REQUIRE(rt->plan->stages[s].own_row <= 0);
        if (rt->plan->stages[s].own_row == 0)
            add_bands(&bands, &rt->plan->stages[s], (Range){0, (int32_t)rt->S}, 0);
    }
    for (int64_t i = 0; i < rt->n_parts; i++) {
        const MagiPart *part = &rt->parts[i];
        if (!part->sent)
            add_bands(&bands, &rt->plan->stages[part->stage],
                      (Range){part->row, part->row + part->rows}, part->at);
    }
    return bands;
}

static void plan_sum(CpRuntime *rt, Stream *stream) {
    MagiShare *shares = NEW(MagiShare, rt->n_parts + 1);
    int64_t n = 0;
    for (int64_t i = 0; i < rt->n_parts; i++)
        if (rt->parts[i].sent)
            shares[n++] = (MagiShare){rt->parts[i].row, rt->parts[i].at, rt->parts[i].rows};
    magi_sum_plan(rt, shares, n, stream);
    free(shares);
}

Status magi_whole_plan(CpRuntime *rt, Stream *stream) {
    place_sources(rt, stream);
    plan_sum(rt, stream);
    Bands bands = place_bands(rt);
    AttnShape shape = cp_shape(rt, rt->sources.rows[rt->sources.n - 1].end);
    Status st =
        rt->ops->attn_work_create(&rt->whole, bands.list, bands.n, shape, &rt->sources, stream);
    free(bands.list);
    return st;
}

/* ---- transfers ------------------------------------------------------------------------------- */

static Status cast(CpRuntime *rt, int i, const void *kv) {
    int64_t width = cp_kv_width(rt);
    for (int64_t j = 0; j < rt->n_parts; j++) {
        const MagiPart *part = &rt->parts[j];
        if (part->source != i) continue;
        CHECK(part->sent ? comm_send(rt->comm, cp_kv_row(rt, kv, part->row), part->rows * width,
                                     rt->ops->act_dtype, target_rank(rt, i), COMM_KIND_KV)
                         : comm_recv(rt->comm, source_row(rt, part->at), part->rows * width,
                                     rt->ops->act_dtype, source_rank(rt, i)));
    }
    return OK;
}

Status magi_whole_fetch(CpRuntime *rt, const void *kv, Stream *stream) {
    rt->ops->mem_zero(rt->sources.arrived, ATTN_SOURCES * 4, stream);
    for (int i = 0, n = pieces(rt); i < rt->sources.n; i += n) {
        CHECK(comm_group_begin(rt->comm));
        for (int j = i; j < i + n; j++) {
            CHECK(cast(rt, j, kv));
            CHECK(comm_group_signal(rt->comm, &rt->sources.arrived[j]));
        }
        CHECK(comm_group_end(rt->comm, stream, &rt->fetched[i]));
    }
    return OK;
}

/* A source's rows lie in one piece here, and at their owner in dkv_in. */
static Status reduce(CpRuntime *rt, int i, Stream *stream, CommTicket *ticket) {
    int64_t width = cp_kv_width(rt);
    Range out = rt->sources.rows[i], in = rt->lent[i];
    CHECK(comm_group_begin(rt->comm));
    CHECK(comm_send(rt->comm, rt->dkv_part[0] + out.begin * width, (out.end - out.begin) * width,
                    DT_F32, source_rank(rt, i), COMM_KIND_DKV));
    CHECK(comm_recv(rt->comm, rt->dkv_in + in.begin * width, (in.end - in.begin) * width, DT_F32,
                    target_rank(rt, i)));
    CHECK(comm_group_after(rt->comm, &rt->sources.departed[i], ++rt->departures[i]));
    return comm_group_end(rt->comm, stream, ticket);
}

/* ---- calls ----------------------------------------------------------------------------------- */

Status magi_whole_forward(CpRuntime *rt, void *o, float *lse, const void *q, const void *kv,
                          Stream *stream) {
    CHECK(magi_whole_fetch(rt, kv, stream));
    rt->ops->attention_fwd(o, rt->o_acc, lse, q, kv, rt->whole, false, stream);
    for (int i = 0; i < rt->sources.n; i += pieces(rt))
        CHECK(comm_wait(rt->comm, rt->fetched[i], stream));
    return OK;
}

Status magi_whole_backward(CpRuntime *rt, float *dq, float *dkv, const void *d_o, const void *o,
                           const float *lse, const void *q, const void *kv, Stream *stream) {
    CommTicket reduced[ATTN_SOURCES];
    rt->ops->attention_delta(rt->delta, d_o, o, rt->S, rt->heads, rt->opt.D, stream);
    rt->ops->attention_bwd(dq, rt->dkv_part[0], d_o, q, kv, lse, rt->delta, rt->whole, false, false,
                           stream);
    for (int i = 0; i < rt->sources.n; i++) CHECK(reduce(rt, i, stream, &reduced[i]));
    /* A rank's last piece, which is empty only when all are, comes and goes behind the others; and
     * a rank whose gradients have come had the keys. */
    for (int n = pieces(rt), i = n - 1; i < rt->sources.n; i += n)
        CHECK(comm_wait(rt->comm, reduced[i], stream));
    magi_sum(rt, dkv, rt->dkv_part[0], stream);
    return OK;
}
