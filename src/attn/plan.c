#include "attn/plan.h"

#include <stdlib.h>

#include "attn/plan_backend.h"

const PlanBackend *const plan_backends[] = {
#define X(id, name, properties) &plan_##name,
    CP_BACKEND_LIST(X)
#undef X
};

/* Area of a rank, and of the part whose keys it holds itself. */
static void measure_area(const Mask *mask, const RangeList *runs, RankSummary *rank) {
    Band cut;
    for (int64_t i = 0; i < runs->n; i++)
        for (MaskRows at = mask_rows(mask, runs->ranges[i]); mask_next(&at, &cut);) {
            rank->area += band_area(cut);
            rank->tile_area += band_tile_area(cut, ATTN_TILE);
            int64_t j = range_find(runs->ranges, runs->n, cut.k_begin);
            for (; j < runs->n && runs->ranges[j].begin < cut.k_end; j++) {
                Band own = band_cut_k(cut, runs->ranges[j]);
                if (band_is_empty(own)) continue;
                rank->local_area += band_area(own);
                rank->local_tile_area += band_tile_area(own, ATTN_TILE);
            }
        }
    rank->local_tile_area = i64_min(rank->local_tile_area, rank->tile_area); /* cuts add tiles */
}

/* Rows of every rank's shard that others need, counted once per needing rank: a difference array
 * over whole chunks, so that a range costs the same however many chunks it covers. */
static void count_sends(AttnPlan *p) {
    const Dispatch *d = &p->dispatch;
    int64_t c = d->chunk, n_need = p->need_begin[p->P];
    int64_t *rows = NEW(int64_t, d->n_chunks), *readers = NEW(int64_t, d->n_chunks + 1);
    REQUIRE(n_need == 0 || p->need != NULL);
    for (int64_t i = 0; i < n_need; i++) {
        Range r = p->need[i];
        int64_t first = r.begin / c, last = (r.end - 1) / c;
        readers[first]++;
        readers[last + 1]--;
        rows[first] -= r.begin - first * c;
        rows[last] -= (last + 1) * c - r.end;
    }
    for (int64_t i = 0, n = 0; i < d->n_chunks; i++) {
        n += readers[i];
        p->ranks[d->owner[i]].send_rows += rows[i] + n * c;
    }
    free(rows);
    free(readers);
}

/* Fills ranks[] and need[]. */
static void summarize_ranks(AttnPlan *p) {
    RangeList runs = {0}, keys = {0}, need = {0};
    p->ranks = NEW(RankSummary, p->P);
    p->need_begin = NEW(int64_t, p->P + 1);
    for (int r = 0; r < p->P; r++) {
        RankSummary *rank = &p->ranks[r];
        runs.n = keys.n = 0;
        dispatch_runs(&p->dispatch, r, &runs);
        for (int64_t i = 0; i < runs.n; i++) mask_keys(&p->mask, runs.ranges[i], &keys);
        keys.n = range_normalize(keys.ranges, keys.n);
        range_subtract(&need, keys.ranges, keys.n, runs.ranges, runs.n);
        p->need_begin[r + 1] = need.n;
        int64_t n = need.n - p->need_begin[r];
        rank->needed_rows = n > 0 ? range_total(need.ranges + p->need_begin[r], n) : 0;
        measure_area(&p->mask, &runs, rank);
    }
    p->need = need.ranges;
    range_list_free(&runs);
    range_list_free(&keys);
}

/* Where every rank computes the pairs of all tokens for 1 / P of the heads. */
static void share_area(AttnPlan *p) {
    int64_t area = 0, tile_area = 0;
    for (int r = 0; r < p->P; r++) {
        area += p->ranks[r].area;
        tile_area += p->ranks[r].tile_area;
    }
    for (int r = 0; r < p->P; r++) {
        RankSummary *rank = &p->ranks[r];
        rank->area = rank->local_area = area / p->P + (r < area % p->P);
        rank->tile_area = rank->local_tile_area = tile_area / p->P;
    }
}

static void count_moved_rows(AttnPlan *p) {
    int64_t others = (int64_t)(p->P - 1) * p->dispatch.rows;
    bool needed_rows = cp_backend_is(p->backend, BACKEND_NEEDED_ROWS);
    for (int r = 0; r < p->P; r++) {
        RankSummary *rank = &p->ranks[r];
        rank->recv_rows = needed_rows ? rank->needed_rows : others;
        rank->send_rows = needed_rows ? 0 : others;
    }
    if (needed_rows) count_sends(p);
}

static Status check_options(const PlanOptions *o) {
    if (cp_backend_is(o->backend, BACKEND_ONE_RANK) && o->dispatch.P != 1)
        return status_fail(ERR_USER,
                           "parallel.backend: %s works on one rank, not on %d; set parallel.cp to "
                           "1 or choose another backend",
                           cp_backend_names[o->backend], o->dispatch.P);
    if (o->degree < -1 || o->degree > OVERLAP_DEGREE_MAX)
        return status_fail(ERR_USER, "parallel.overlap_degree: %d; -1 (chosen) to %d are possible",
                           o->degree, OVERLAP_DEGREE_MAX);
    return OK;
}

Status plan_build(AttnPlan *p, const Mask *mask, const PlanOptions *o) {
    *p = (AttnPlan){0};
    CHECK(check_options(o));
    const PlanBackend *backend = plan_backends[o->backend];
    DispatchOptions dispatch = o->dispatch;
    if (backend->dispatch != NULL && dispatch.kind == DISPATCH_AUTO)
        backend->dispatch(&dispatch, mask->S);
    CHECK(dispatch_build(&p->dispatch, mask, &dispatch));
    p->backend = o->backend;
    p->P = dispatch.P;
    p->ranks_per_node = dispatch.ranks_per_node > 0 ? dispatch.ranks_per_node : dispatch.P;
    mask_copy(&p->mask, mask);
    summarize_ranks(p);
    count_moved_rows(p);
    if (cp_backend_is(p->backend, BACKEND_SPLITS_HEADS)) share_area(p);
    if (cp_backend_is(p->backend, BACKEND_NEEDED_ROWS) && p->P > 1)
        p->degree = o->degree >= 0 ? o->degree : plan_choose_degree(p, o->cost);
    p->n_stages = cp_backend_is(p->backend, BACKEND_NEIGHBOURS) ? p->P : 1 + p->degree;
    return OK;
}

void plan_free(AttnPlan *p) {
    mask_free(&p->mask);
    dispatch_free(&p->dispatch);
    free(p->ranks);
    free(p->need);
    free(p->need_begin);
    *p = (AttnPlan){0};
}

uint64_t plan_hash(const AttnPlan *p) {
    uint64_t mask = mask_hash(&p->mask);
    const Dispatch *d = &p->dispatch;
    const int32_t words[] = {
        (int32_t)mask, (int32_t)(mask >> 32), (int32_t)p->backend, p->P, p->degree, d->chunk,
        d->n_chunks};
    return hash_words(hash_words(0, words, 7), d->owner, d->n_chunks);
}
