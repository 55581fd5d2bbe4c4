#include "attn/plan.h"

#include <inttypes.h>
#include <stdlib.h>

#define TILE 128

/* ---- building: all ranks in brief --------------------------------------------------------- */

/* The dispatch a backend runs on when the user leaves it open. */
static DispatchOptions backend_dispatch(CpBackend backend, int64_t S, DispatchOptions o) {
    if (o.kind != DISPATCH_AUTO || backend == BACKEND_MAGI || backend == BACKEND_NONE) return o;
    int64_t T = o.T > 0 && S % o.T == 0 ? o.T : S;
    if (backend == BACKEND_ULYSSES) {
        o.kind = DISPATCH_CONTIGUOUS;
        o.chunks_per_rank = 1;
        o.chunk = 0;
    } else { /* TransformerEngine cuts every sequence in 2P; without remainder when it can be */
        o.kind = DISPATCH_ZIGZAG;
        o.chunks_per_rank = (int)(2 * i64_min(S / T, 1 << 20));
        o.chunk = T % (2 * (int64_t)i64_max(1, o.P)) == 0 ? T / (2 * o.P) : 0;
    }
    return o;
}

/* Area of one rank, and of the part whose keys it holds itself. */
static void measure_area(const Mask *mask, const RangeList *runs, PlanRank *rank) {
    for (int64_t i = 0; i < runs->n; i++) {
        Range rows = runs->ranges[i];
        for (int64_t b = mask_first_band(mask, rows.begin); b < mask->n; b++) {
            if (mask->bands[b].q_begin >= rows.end) break;
            Band cut = band_cut_q(mask->bands[b], rows);
            if (band_is_empty(cut)) continue;
            rank->area += band_area(cut);
            rank->tile_area += band_tile_area(cut, TILE);
            int64_t j = range_find(runs->ranges, runs->n, cut.k_begin);
            for (; j < runs->n && runs->ranges[j].begin < cut.k_end; j++) {
                Band own = band_cut_k(cut, runs->ranges[j]);
                if (band_is_empty(own)) continue;
                rank->local_area += band_area(own);
                rank->local_tile_area += band_tile_area(own, TILE);
            }
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
static void survey_ranks(AttnPlan *p) {
    RangeList runs = {0}, keys = {0}, need = {0};
    p->ranks = NEW(PlanRank, p->P);
    p->need_begin = NEW(int64_t, p->P + 1);
    for (int r = 0; r < p->P; r++) {
        PlanRank *rank = &p->ranks[r];
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

/* Rows moved, and for ulysses the share of the heads, by what the backend does. */
static void apply_backend(AttnPlan *p) {
    if (p->backend == BACKEND_MAGI) {
        for (int r = 0; r < p->P; r++) p->ranks[r].recv_rows = p->ranks[r].needed_rows;
        count_sends(p);
        return;
    }
    int64_t others = (int64_t)(p->P - 1) * p->dispatch.rows;
    for (int r = 0; r < p->P; r++) p->ranks[r].recv_rows = p->ranks[r].send_rows = others;
    if (p->backend != BACKEND_ULYSSES) return;
    int64_t area = 0, tile_area = 0;
    for (int r = 0; r < p->P; r++) {
        area += p->ranks[r].area;
        tile_area += p->ranks[r].tile_area;
    }
    for (int r = 0; r < p->P; r++) { /* every rank computes all pairs for 1 / P of the heads */
        PlanRank *rank = &p->ranks[r];
        rank->area = rank->local_area = area / p->P + (r < area % p->P);
        rank->tile_area = rank->local_tile_area = tile_area / p->P;
    }
}

static int64_t kv_bytes(const CostModel *m) {
    return 2LL * m->K * m->D * m->act_bytes;
}
static int64_t dkv_bytes(const CostModel *m) {
    return 2LL * m->K * m->D * m->dkv_bytes;
}

static bool other_node(const AttnPlan *p, int a, int b) {
    return a / p->ranks_per_node != b / p->ranks_per_node;
}

/* Rows that a rank needs from the other ranks of its node. */
static int64_t near_rows(const AttnPlan *p, int rank) {
    const Dispatch *d = &p->dispatch;
    const Range *need = p->need + p->need_begin[rank];
    int64_t n = p->need_begin[rank + 1] - p->need_begin[rank], rows = 0;
    int64_t first = rank / p->ranks_per_node * p->ranks_per_node * (int64_t)d->chunks_per_rank;
    for (int64_t k = 0; n > 0 && k < (int64_t)p->ranks_per_node * d->chunks_per_rank; k++) {
        int32_t begin = d->chunks[first + k] * d->chunk, end = begin + d->chunk;
        for (int64_t i = range_find(need, n, begin); i < n && need[i].begin < end; i++)
            rows += i64_min(end, need[i].end) - i64_max(begin, need[i].begin);
    }
    return rows;
}

/* Share of the rows a rank receives that comes from other nodes. */
static double far_share(const AttnPlan *p, int rank) {
    int64_t recv = p->ranks[rank].recv_rows;
    if (p->ranks_per_node == p->P || recv == 0) return 0;
    if (p->backend == BACKEND_RING) return other_node(p, rank, (rank - 1 + p->P) % p->P);
    if (p->backend == BACKEND_MAGI) return 1 - (double)near_rows(p, rank) / (double)recv;
    return (double)(p->P - p->ranks_per_node) / (p->P - 1);
}

static CostRank cost_rank(const AttnPlan *p, int rank, const CostModel *m) {
    const PlanRank *r = &p->ranks[rank];
    int64_t moved = i64_max(r->recv_rows, r->send_rows);
    return (CostRank){.local_tile_area = r->local_tile_area,
                      .remote_tile_area = r->tile_area - r->local_tile_area,
                      .q_rows = p->dispatch.rows,
                      .in = moved * kv_bytes(m),
                      .out = moved * dkv_bytes(m),
                      .far = far_share(p, rank)};
}

static int choose_degree(const AttnPlan *p, const CostModel *given) {
    CostModel fallback = cost_default(32, 8, 64);
    const CostModel *m = given ? given : &fallback;
    CostRank *ranks = NEW(CostRank, p->P);
    for (int r = 0; r < p->P; r++) ranks[r] = cost_rank(p, r, m);
    int degree = cost_choose_degree(m, ranks, p->P);
    free(ranks);
    return degree;
}

Status plan_build(AttnPlan *out, const Mask *mask, const PlanOptions *o) {
    *out = (AttnPlan){0};
    if (o->backend == BACKEND_NONE && o->dispatch.P != 1)
        return status_fail(
            ERR_USER,
            "parallel.backend: none works on one rank, not on %d; set parallel.cp to "
            "1 or choose ring, magi, allgather or ulysses",
            o->dispatch.P);
    if (o->degree < -1 || o->degree > OVERLAP_DEGREE_MAX)
        return status_fail(ERR_USER, "parallel.overlap_degree: %d; -1 (chosen) to %d are possible",
                           o->degree, OVERLAP_DEGREE_MAX);
    DispatchOptions dispatch = backend_dispatch(o->backend, mask->S, o->dispatch);
    AttnPlan *p = out;
    CHECK(dispatch_build(&p->dispatch, mask, &dispatch));
    p->backend = o->backend;
    p->P = dispatch.P;
    p->ranks_per_node = dispatch.ranks_per_node > 0 ? dispatch.ranks_per_node : dispatch.P;
    mask_copy(&p->mask, mask);
    survey_ranks(p);
    apply_backend(p);
    if (p->backend == BACKEND_MAGI && p->P > 1)
        p->degree = o->degree >= 0 ? o->degree : choose_degree(p, o->cost);
    p->n_stages = p->backend == BACKEND_RING ? p->P : 1 + p->degree;
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

/* ---- figures ----------------------------------------------------------------------------- */

PlanSummary plan_summary(const AttnPlan *p) {
    PlanSummary s = {.ring_rows = (int64_t)p->P * (p->P - 1) * p->dispatch.rows};
    for (int r = 0; r < p->P; r++) {
        const PlanRank *rank = &p->ranks[r];
        s.area += rank->area;
        s.recv_rows += rank->recv_rows;
        s.max_area = i64_max(s.max_area, rank->area);
        s.max_tile_area = i64_max(s.max_tile_area, rank->tile_area);
        s.max_recv_rows = i64_max(s.max_recv_rows, rank->recv_rows);
        s.max_send_rows = i64_max(s.max_send_rows, rank->send_rows);
    }
    s.imbalance = s.area > 0 ? (double)s.max_area * p->P / (double)s.area - 1 : 0;
    return s;
}

/* Per shard row that ulysses sends away: q, k, v there and o back, or their gradients. */
static int64_t ulysses_row_bytes(const CostModel *m, int q_like) {
    return (int64_t)(q_like * m->H + 2 * m->K) * m->D * m->act_bytes;
}

/* Of so many rows of keys and values, and their gradients. */
static PlanBytes kv_row_bytes(int64_t rows, const CostModel *m) {
    return (PlanBytes){(double)rows * (double)kv_bytes(m),
                       (double)rows * (double)(kv_bytes(m) + dkv_bytes(m))};
}

PlanBytes plan_bytes_dense(const AttnPlan *p, CpBackend backend, const CostModel *m) {
    int64_t rows = (int64_t)p->P * (p->P - 1) * p->dispatch.rows;
    if (backend == BACKEND_ULYSSES) { /* 1 / P of the heads of a row goes to each peer */
        double bytes = (double)(rows / p->P) * (double)ulysses_row_bytes(m, 2);
        return (PlanBytes){bytes, bytes};
    }
    return kv_row_bytes(rows, m);
}

PlanBytes plan_bytes(const AttnPlan *p, const CostModel *m) {
    if (p->backend != BACKEND_MAGI) return plan_bytes_dense(p, p->backend, m);
    return kv_row_bytes(plan_summary(p).recv_rows, m);
}

/* q, k, v there and o back; their gradients the other way round. */
static void set_ulysses_bytes(const AttnPlan *p, int64_t rows, const CostModel *m, CostStage *c) {
    c->in[0] = c->out[1] = rows / p->P * ulysses_row_bytes(m, 1);
    c->in[1] = c->out[0] = rows / p->P * m->H * m->D * m->act_bytes;
}

void plan_cost_stages(const AttnPlan *p, const RankPlan *rp, const CostModel *m, CostStage *out) {
    for (int i = 0; i < rp->n_stages; i++) {
        const PlanStage *s = &rp->stages[i];
        int64_t moved = i64_max(s->recv_rows, s->send_rows);
        CostStage *c = &out[i];
        *c = (CostStage){.q_rows = rp->rows,
                         .in = {moved * kv_bytes(m), moved * kv_bytes(m)},
                         .out = {0, moved * dkv_bytes(m)}};
        for (int b = 0; b < s->n_bands; b++) c->tile_area += band_tile_area(s->bands[b], m->tile);
        int64_t far = 0;
        for (int k = 0; k < s->n_recv; k++)
            if (other_node(p, rp->rank, s->recv[k].peer)) far += s->recv[k].rows;
        if (far > 0) c->far = (double)far / s->recv_rows;
        if (p->backend != BACKEND_ULYSSES) continue;
        set_ulysses_bytes(p, moved, m, c);
        c->tile_area /= p->P;
    }
}

void plan_cost_equal(const AttnPlan *p, int rank, const CostModel *m, CostStage *out) {
    CostRank r = cost_rank(p, rank, m);
    cost_equal_stages(&r, p->n_stages - 1, out);
    if (p->backend == BACKEND_ULYSSES) set_ulysses_bytes(p, p->ranks[rank].recv_rows, m, out);
}

uint64_t plan_hash(const AttnPlan *p) {
    uint64_t mask = mask_hash(&p->mask);
    const Dispatch *d = &p->dispatch;
    const int32_t words[] = {
        (int32_t)mask, (int32_t)(mask >> 32), (int32_t)p->backend, p->P, p->degree, d->chunk,
        d->n_chunks};
    return hash_words(hash_words(0, words, 7), d->owner, d->n_chunks);
}

static void print_rank(const AttnPlan *p, int r, StrBuf *out) {
    const PlanRank *rank = &p->ranks[r];
    RankPlan rp;
    RangeList runs = {0};
    plan_rank(p, r, &rp);
    dispatch_runs(&p->dispatch, r, &runs);
    strbuf_printf(out,
                  "rank %d: area %" PRId64 " (%.0f %% local), receives %" PRId64
                  " rows, sends %" PRId64 ", tokens",
                  r, rank->area,
                  rank->area ? 100.0 * (double)rank->local_area / (double)rank->area : 100.0,
                  rank->recv_rows, rank->send_rows);
    for (int64_t i = 0; i < runs.n; i++)
        strbuf_printf(out, " %d-%d", runs.ranges[i].begin, runs.ranges[i].end - 1);
    strbuf_printf(out, "\n");
    for (int i = 0; i < rp.n_stages; i++) {
        const PlanStage *s = &rp.stages[i];
        int64_t area = 0;
        for (int b = 0; b < s->n_bands; b++) area += band_area(s->bands[b]);
        strbuf_printf(out,
                      "  stage %d: %d bands, area %" PRId64 ", kv rows %d, recv %d rows in %d, "
                      "send %d rows in %d\n",
                      i, s->n_bands, area, s->kv_rows, s->recv_rows, s->n_recv, s->send_rows,
                      s->n_send);
    }
    range_list_free(&runs);
    rank_plan_free(&rp);
}

void plan_print(const AttnPlan *p, bool detail, StrBuf *out) {
    const Dispatch *d = &p->dispatch;
    PlanSummary s = plan_summary(p);
    strbuf_printf(out,
                  "%s over %d ranks: %" PRId64 " tokens (%" PRId64 " with padding) in %d chunks "
                  "of %d, dispatch %s, %d rows a rank, ",
                  config_enum_name((int)p->backend, "parallel.backend"), p->P, d->S, d->padded,
                  d->n_chunks, d->chunk, dispatch_kind_names[d->kind], d->rows);
    if (p->backend == BACKEND_MAGI) strbuf_printf(out, "degree %d, ", p->degree);
    strbuf_printf(out, "hash %016" PRIx64 "\n", plan_hash(p));
    double fraction = s.ring_rows > 0 ? (double)s.recv_rows / (double)s.ring_rows : 0;
    strbuf_printf(out,
                  "area %" PRId64 ", imbalance %.2f %%; rows received per layer forward %" PRId64
                  " (ring %" PRId64 ": %.1f %%), most by a rank %" PRId64 ", most sent %" PRId64
                  "\n",
                  s.area, 100 * s.imbalance, s.recv_rows, s.ring_rows, 100 * fraction,
                  s.max_recv_rows, s.max_send_rows);
    for (int r = 0; detail && r < p->P; r++) print_rank(p, r, out);
}
