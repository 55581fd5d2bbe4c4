/* plan_rank.c: the full tables of one rank. A stage's bands are the mask cut to (own rows) x (rows
 * of the stage's KV buffer), whatever the backend; only the map from buffer rows to tokens differs.
 * What this rank must send follows from what every other rank receives, computed here for each peer
 * by the same function: no table is ever exchanged. */
#include "attn/plan.h"

#include <stdlib.h>
#include <string.h>

#define TILE 128 /* stages are cut at multiples of it where chunks are */

/* Tokens that lie one after another both in the stream and in a buffer. */
typedef struct {
    Range tokens;
    int32_t row; /* of the first token in the buffer */
} MapPiece;

typedef struct {
    MapPiece *pieces; /* sorted by token */
    int64_t n, cap;
} Map;

static void map_add(Map *map, Range tokens, int32_t row) {
    MapPiece *last = map->n > 0 ? &map->pieces[map->n - 1] : NULL;
    if (last && last->tokens.end == tokens.begin &&
        last->row + (tokens.begin - last->tokens.begin) == row) {
        last->tokens.end = tokens.end;
        return;
    }
    GROW(map->pieces, map->n, map->cap);
    map->pieces[map->n++] = (MapPiece){tokens, row};
}

static int compare_tokens(const void *a, const void *b) {
    int32_t x = ((const MapPiece *)a)->tokens.begin, y = ((const MapPiece *)b)->tokens.begin;
    return (x > y) - (x < y);
}

static void map_sort(Map *map) {
    if (map->n > 1) qsort(map->pieces, (size_t)map->n, sizeof(MapPiece), compare_tokens);
}

static void map_shard(Map *map, const Dispatch *d, int rank, int32_t row) {
    RangeList runs = {0};
    dispatch_runs(d, rank, &runs);
    for (int64_t i = 0; i < runs.n; i++) {
        map_add(map, runs.ranges[i], row);
        row += runs.ranges[i].end - runs.ranges[i].begin;
    }
    range_list_free(&runs);
}

static void map_all_shards(Map *map, const Dispatch *d) {
    for (int32_t i = 0; i < d->n_chunks; i++)
        map_add(map, (Range){i * d->chunk, (i + 1) * d->chunk},
                d->owner[i] * d->rows + d->slot[i] * d->chunk);
}

static int64_t map_find(const Map *map, int32_t token) {
    int64_t low = 0, high = map->n;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (map->pieces[mid].tokens.end <= token)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* ---- what a rank receives ------------------------------------------------------------------ */

/* Needed tokens that one owner holds in consecutive rows and that arrive in one stage. */
typedef struct {
    Range tokens;
    int32_t owner, stage, row; /* row: in the receiver's buffer of that stage */
} Need;

typedef struct {
    Need *needs;
    int64_t n, cap;
} NeedList;

static void need_add(NeedList *list, Need need) {
    GROW(list->needs, list->n, list->cap);
    list->needs[list->n++] = need;
}

static int compare_needs(const void *x, const void *y) {
    const Need *a = x, *b = y;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    return (a->tokens.begin > b->tokens.begin) - (a->tokens.begin < b->tokens.begin);
}

/* Where a rank's needs fall in the order in which they are fetched. Owners take turns as on a ring
 * (r - 1, r - 2, ...), so that within a stage different ranks fetch from different owners; stages
 * are equal pieces of that order. */
typedef struct {
    int wanted;        /* list the pieces of this owner alone; -1: of all */
    int64_t quota;     /* rows of a stage */
    int64_t *place;    /* [P + 1] next place in the order, by distance of the owner */
    int32_t *next_row; /* [1 + degree] next free row of each stage's buffer */
} Cutter;

static int owner_distance(const AttnPlan *p, int rank, int owner) {
    return (rank - owner + p->P) % p->P;
}

/* Next piece at or after token t, before `end`, that one owner holds in consecutive rows. */
static Range owned_piece(const Dispatch *d, int32_t t, int32_t end) {
    int32_t chunk = t / d->chunk, last = chunk;
    while (last + 1 < d->n_chunks && (last + 1) * d->chunk < end &&
           d->owner[last + 1] == d->owner[chunk])
        last++;
    return (Range){t, (int32_t)i64_min(end, (last + 1) * d->chunk)};
}

static void cutter_begin(Cutter *c, const AttnPlan *p, int rank) {
    const Dispatch *d = &p->dispatch;
    memset(c->next_row, 0, (size_t)(1 + p->degree) * sizeof(int32_t));
    c->next_row[0] = d->rows; /* degree 0: behind the own shard */
    if (p->degree <= 1) return;
    memset(c->place, 0, (size_t)(p->P + 1) * sizeof(int64_t));
    for (int64_t i = p->need_begin[rank]; i < p->need_begin[rank + 1]; i++)
        for (Range r = {p->need[i].begin, 0}; r.begin < p->need[i].end; r.begin = r.end) {
            r = owned_piece(d, r.begin, p->need[i].end);
            c->place[owner_distance(p, rank, dispatch_rank_of(d, r.begin)) + 1] += r.end - r.begin;
        }
    for (int i = 0; i < p->P; i++) c->place[i + 1] += c->place[i];
    c->quota = i64_max(1, ceil_div(c->place[p->P], p->degree));
    if (d->chunk % TILE == 0) c->quota = round_up(c->quota, TILE);
}

/* Adds a piece, cut where its stage is full; rows follow the order of tokens within a stage. */
static void cutter_add(Cutter *c, const AttnPlan *p, int rank, Range tokens, NeedList *list) {
    int owner = dispatch_rank_of(&p->dispatch, tokens.begin);
    int64_t *place = p->degree > 1 ? &c->place[owner_distance(p, rank, owner)] : NULL;
    while (tokens.begin < tokens.end) {
        int32_t stage = p->degree > 0, rows = tokens.end - tokens.begin;
        if (place) {
            stage = (int32_t)(1 + *place / c->quota);
            rows = (int32_t)i64_min(rows, stage * c->quota - *place);
            *place += rows;
        }
        Range part = {tokens.begin, tokens.begin + rows};
        if (c->wanted < 0 || c->wanted == owner)
            need_add(list, (Need){part, owner, stage, c->next_row[stage]});
        c->next_row[stage] += rows;
        tokens.begin += rows;
    }
}

/* What a rank receives under magi (from the wanted owner), by token. */
static void list_needs(Cutter *c, const AttnPlan *p, int rank, NeedList *list) {
    list->n = 0;
    cutter_begin(c, p, rank);
    for (int64_t i = p->need_begin[rank]; i < p->need_begin[rank + 1]; i++)
        for (Range r = {p->need[i].begin, 0}; r.begin < p->need[i].end; r.begin = r.end) {
            r = owned_piece(&p->dispatch, r.begin, p->need[i].end);
            cutter_add(c, p, rank, r, list);
        }
}

/* Does `peer` need anything that the tokens in `runs` hold? Both lists are sorted. */
static bool needs_any(const AttnPlan *p, int peer, const RangeList *runs) {
    int64_t j = 0;
    for (int64_t i = p->need_begin[peer]; i < p->need_begin[peer + 1]; i++) {
        while (j < runs->n && runs->ranges[j].end <= p->need[i].begin) j++;
        if (j == runs->n) return false;
        if (runs->ranges[j].begin < p->need[i].end) return true;
    }
    return false;
}

/* ---- building ------------------------------------------------------------------------------ */

typedef struct {
    PlanSegment segment;
    int32_t stage;
} StageSegment;

typedef struct {
    StageSegment *items;
    int64_t n, cap;
} SegmentList;

static void segment_add(SegmentList *list, int stage, PlanSegment segment) {
    GROW(list->items, list->n, list->cap);
    list->items[list->n++] = (StageSegment){segment, stage};
}

static int compare_segments(const void *x, const void *y) {
    const StageSegment *a = x, *b = y;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    if (a->segment.peer != b->segment.peer) return a->segment.peer < b->segment.peer ? -1 : 1;
    return (a->segment.row > b->segment.row) - (a->segment.row < b->segment.row);
}

typedef struct {
    const AttnPlan *p;
    RankPlan *rp;
    int64_t n_bands, cap_bands;
    SegmentList recv, send;
} Builder;

static void band_add(Builder *b, Band band) {
    GROW(b->rp->bands, b->n_bands, b->cap_bands);
    b->rp->bands[b->n_bands++] = band;
}

/* Appends a stage: the mask cut to q tokens x k tokens, in the rows the maps give them. */
static void add_stage(Builder *b, int index, const Map *q, const Map *k, int32_t kv_rows) {
    const Mask *mask = &b->p->mask;
    int64_t start = b->n_bands;
    for (int64_t i = 0; i < q->n && k->n > 0; i++) {
        MapPiece rows = q->pieces[i];
        for (int64_t m = mask_first_band(mask, rows.tokens.begin); m < mask->n; m++) {
            if (mask->bands[m].q_begin >= rows.tokens.end) break;
            Band cut = band_cut_q(mask->bands[m], rows.tokens);
            if (band_is_empty(cut)) continue;
            for (int64_t j = map_find(k, cut.k_begin); j < k->n; j++) {
                MapPiece keys = k->pieces[j];
                if (keys.tokens.begin >= cut.k_end) break;
                Band part = band_cut_k(cut, keys.tokens);
                if (band_is_empty(part)) continue;
                band_add(b, band_shift(part, rows.row - rows.tokens.begin,
                                       keys.row - keys.tokens.begin));
            }
        }
    }
    int64_t n = 0;
    if (b->n_bands > start) n = band_merge_list(b->rp->bands + start, b->n_bands - start);
    b->n_bands = start + n;
    b->rp->stages[index].n_bands = (int)n;
    b->rp->stages[index].kv_rows = kv_rows;
}

static void build_magi(Builder *b, const Map *own) {
    const AttnPlan *p = b->p;
    int rank = b->rp->rank;
    NeedList list = {0};
    Map keys = {0};
    Cutter cutter = {
        .wanted = -1, .place = NEW(int64_t, p->P + 1), .next_row = NEW(int32_t, 1 + p->degree)};
    list_needs(&cutter, p, rank, &list);
    if (p->degree > 1 && list.n > 1) qsort(list.needs, (size_t)list.n, sizeof(Need), compare_needs);
    for (int64_t i = 0; i < list.n; i++) {
        Need *n = &list.needs[i];
        segment_add(&b->recv, n->stage,
                    (PlanSegment){.peer = n->owner,
                                  .rows = n->tokens.end - n->tokens.begin,
                                  .row = n->row,
                                  .peer_row = dispatch_row_of(&p->dispatch, n->tokens.begin)});
    }
    for (int64_t s = 0, i = 0; s < b->rp->n_stages; s++) {
        int32_t kv_rows = s == 0 ? p->dispatch.rows : 0;
        keys.n = 0;
        for (int64_t k = 0; s == 0 && k < own->n; k++)
            map_add(&keys, own->pieces[k].tokens, own->pieces[k].row);
        for (; i < list.n && list.needs[i].stage == s; i++) {
            map_add(&keys, list.needs[i].tokens, list.needs[i].row);
            kv_rows += list.needs[i].tokens.end - list.needs[i].tokens.begin;
        }
        if (s == 0) map_sort(&keys); /* degree 0: own and needed tokens interleave */
        add_stage(b, (int)s, own, &keys, kv_rows);
        b->rp->stages[s].own_row = s == 0 ? 0 : -1;
    }
    RangeList runs = {0};
    dispatch_runs(&p->dispatch, rank, &runs);
    cutter.wanted = rank;
    for (int peer = 0; peer < p->P; peer++) {
        if (peer == rank || !needs_any(p, peer, &runs)) continue;
        list_needs(&cutter, p, peer, &list);
        for (int64_t i = 0; i < list.n; i++) {
            Need *n = &list.needs[i];
            segment_add(&b->send, n->stage,
                        (PlanSegment){.peer = peer,
                                      .rows = n->tokens.end - n->tokens.begin,
                                      .row = dispatch_row_of(&p->dispatch, n->tokens.begin),
                                      .peer_row = n->row});
        }
    }
    range_list_free(&runs);
    free(list.needs);
    free(keys.pieces);
    free(cutter.place);
    free(cutter.next_row);
}

static void build_ring(Builder *b, const Map *own) {
    int P = b->p->P, rank = b->rp->rank;
    int32_t rows = b->p->dispatch.rows;
    Map keys = {0};
    for (int i = 0; i < P; i++) {
        int source = (rank - i + P) % P;
        keys.n = 0;
        map_shard(&keys, &b->p->dispatch, source, 0);
        add_stage(b, i, own, &keys, rows);
        b->rp->stages[i].source = source;
        b->rp->stages[i].own_row = i == 0 ? 0 : -1;
        if (i == 0) continue;
        segment_add(&b->recv, i, (PlanSegment){.peer = (rank - 1 + P) % P, .rows = rows});
        segment_add(&b->send, i, (PlanSegment){.peer = (rank + 1) % P, .rows = rows});
    }
    free(keys.pieces);
}

/* allgather and ulysses: one stage over the shards of all ranks. */
static void build_gathered(Builder *b, const Map *own) {
    int P = b->p->P, rank = b->rp->rank;
    int32_t rows = b->p->dispatch.rows;
    Map all = {0};
    map_all_shards(&all, &b->p->dispatch);
    add_stage(b, 0, b->p->backend == BACKEND_ULYSSES ? &all : own, &all, P * rows);
    b->rp->stages[0].own_row = rank * rows;
    for (int peer = 0; peer < P; peer++) {
        if (peer == rank) continue;
        segment_add(&b->recv, 0, (PlanSegment){.peer = peer, .rows = rows, .row = peer * rows});
        segment_add(&b->send, 0,
                    (PlanSegment){.peer = peer, .rows = rows, .peer_row = rank * rows});
    }
    free(all.pieces);
}

/* Sorts a list of segments into place; counts, sums and packed rows per stage. */
static int64_t place_segments(RankPlan *rp, SegmentList *list, PlanSegment *out, bool send) {
    if (list->n > 1) qsort(list->items, (size_t)list->n, sizeof *list->items, compare_segments);
    for (int64_t i = 0; i < list->n; i++) {
        PlanStage *stage = &rp->stages[list->items[i].stage];
        int32_t *rows = send ? &stage->send_rows : &stage->recv_rows;
        out[i] = list->items[i].segment;
        out[i].packed = *rows;
        *rows += out[i].rows;
        if (send) {
            if (stage->n_send++ == 0) stage->send = &out[i];
        } else {
            if (stage->n_recv++ == 0) stage->recv = &out[i];
        }
    }
    free(list->items);
    return list->n;
}

void plan_rank(const AttnPlan *p, int rank, RankPlan *out) {
    REQUIRE(rank >= 0 && rank < p->P);
    int32_t rows = p->dispatch.rows;
    *out = (RankPlan){.rank = rank,
                      .P = p->P,
                      .n_stages = p->n_stages,
                      .rows = rows,
                      .q_rows = p->backend == BACKEND_ULYSSES ? p->P * rows : rows,
                      .stages = NEW(PlanStage, p->n_stages)};
    Builder b = {.p = p, .rp = out};
    Map own = {0};
    map_shard(&own, &p->dispatch, rank, 0);
    for (int i = 0; i < p->n_stages; i++) out->stages[i].source = -1;
    switch (p->backend) {
    case BACKEND_NONE:
    case BACKEND_MAGI:
        build_magi(&b, &own);
        break;
    case BACKEND_RING:
        build_ring(&b, &own);
        break;
    case BACKEND_ALLGATHER:
    case BACKEND_ULYSSES:
        build_gathered(&b, &own);
        break;
    }
    free(own.pieces);
    out->most_rows = plan_summary(p).max_recv_rows;

    out->segments = NEW(PlanSegment, b.recv.n + b.send.n);
    int64_t n_recv = place_segments(out, &b.recv, out->segments, false);
    place_segments(out, &b.send, out->segments + n_recv, true);
    const Band *bands = out->bands;
    for (int i = 0; i < out->n_stages; i++) {
        PlanStage *s = &out->stages[i];
        s->bands = bands;
        if (s->n_bands > 0) bands += s->n_bands;
        out->max_kv_rows = (int32_t)i64_max(out->max_kv_rows, s->kv_rows);
        out->max_recv_rows = (int32_t)i64_max(out->max_recv_rows, s->recv_rows);
        out->max_send_rows = (int32_t)i64_max(out->max_send_rows, s->send_rows);
    }
}

void rank_plan_free(RankPlan *rp) {
    free(rp->stages);
    free(rp->bands);
    free(rp->segments);
    *rp = (RankPlan){0};
}
