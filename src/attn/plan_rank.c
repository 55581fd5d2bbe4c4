/* plan_rank.c: the full tables of one rank. A stage's bands are the mask cut to (own rows) x (rows
 * of the stage's KV buffer), whatever the backend; only the map from buffer rows to tokens
 * differs. */
#include <stdlib.h>

#include "attn/plan_backend.h"

void token_map_add(TokenMap *map, Range tokens, int32_t row) {
    TokenPiece *last = map->n > 0 ? &map->pieces[map->n - 1] : NULL;
    if (last && last->tokens.end == tokens.begin &&
        last->row + (tokens.begin - last->tokens.begin) == row) {
        last->tokens.end = tokens.end;
        return;
    }
    GROW(map->pieces, map->n, map->cap);
    map->pieces[map->n++] = (TokenPiece){tokens, row};
}

static int compare_tokens(const void *a, const void *b) {
    int32_t x = ((const TokenPiece *)a)->tokens.begin, y = ((const TokenPiece *)b)->tokens.begin;
    return (x > y) - (x < y);
}

void token_map_sort(TokenMap *map) {
    if (map->n > 1) qsort(map->pieces, (size_t)map->n, sizeof(TokenPiece), compare_tokens);
}

void token_map_add_shard(TokenMap *map, const Dispatch *d, int rank, int32_t row) {
    RangeList runs = {0};
    dispatch_runs(d, rank, &runs);
    for (int64_t i = 0; i < runs.n; i++) {
        token_map_add(map, runs.ranges[i], row);
        row += runs.ranges[i].end - runs.ranges[i].begin;
    }
    range_list_free(&runs);
}

static int64_t map_find(const TokenMap *map, int32_t token) {
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

void plan_add_segment(SegmentList *list, int stage, PlanSegment segment) {
    GROW(list->items, list->n, list->cap);
    list->items[list->n++] = (StageSegment){segment, stage};
}

static int compare_segments(const void *x, const void *y) {
    const StageSegment *a = x, *b = y;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    if (a->segment.peer != b->segment.peer) return a->segment.peer < b->segment.peer ? -1 : 1;
    return (a->segment.row > b->segment.row) - (a->segment.row < b->segment.row);
}

static void band_add(PlanBuilder *b, Band band) {
    GROW(b->rp->bands, b->n_bands, b->cap_bands);
    b->rp->bands[b->n_bands++] = band;
}

/* The part of a band whose keys a map has, in the rows that the two maps give it. */
static void add_band(PlanBuilder *b, Band band, TokenPiece q, const TokenMap *k) {
    for (int64_t i = map_find(k, band.k_begin); i < k->n; i++) {
        TokenPiece keys = k->pieces[i];
        if (keys.tokens.begin >= band.k_end) break;
        Band part = band_cut_k(band, keys.tokens);
        if (!band_is_empty(part))
            band_add(b, band_shift(part, q.row - q.tokens.begin, keys.row - keys.tokens.begin));
    }
}

void plan_add_stage(PlanBuilder *b, int index, const TokenMap *q, const TokenMap *k,
                    int32_t kv_rows, int32_t own_row) {
    int64_t start = b->n_bands, n = 0;
    Band cut;
    for (int64_t i = 0; i < q->n && k->n > 0; i++)
        for (MaskRows at = mask_rows(&b->p->mask, q->pieces[i].tokens); mask_next(&at, &cut);)
            add_band(b, cut, q->pieces[i], k);
    if (b->n_bands > start) n = band_merge_list(b->rp->bands + start, b->n_bands - start);
    b->n_bands = start + n;
    PlanStage *stage = &b->rp->stages[index];
    stage->n_bands = (int)n;
    stage->kv_rows = kv_rows;
    stage->own_row = own_row;
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
    *out =
        (RankPlan){.rank = rank,
                   .P = p->P,
                   .n_stages = p->n_stages,
                   .rows = rows,
                   .q_rows = cp_backend_is(p->backend, BACKEND_SPLITS_HEADS) ? p->P * rows : rows,
                   .stages = NEW(PlanStage, p->n_stages)};
    PlanBuilder b = {.p = p, .rp = out};
    token_map_add_shard(&b.own, &p->dispatch, rank, 0);
    for (int i = 0; i < p->n_stages; i++) out->stages[i].source = -1;
    plan_backends[p->backend]->build(&b);
    free(b.own.pieces);
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
