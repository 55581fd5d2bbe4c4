/* plan_builder.c: what the stages of a rank are made with. A stage's bands are the mask cut to (own
 * rows) x (rows of the stage's KV buffer), whatever the backend; only the map from buffer rows to
 * tokens differs. */
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
