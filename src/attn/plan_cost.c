/* plan_cost.c: what a plan amounts to: sums over ranks, bytes, and the stages that the cost model
 * times. */
#include "attn/plan.h"

#include <stdlib.h>

PlanSummary plan_summary(const AttnPlan *p) {
    PlanSummary s = {.ring_rows = (int64_t)p->P * (p->P - 1) * p->dispatch.rows};
    for (int r = 0; r < p->P; r++) {
        const RankSummary *rank = &p->ranks[r];
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

/* ---- bytes ------------------------------------------------------------------------------- */

static int64_t kv_bytes(const CostModel *m) {
    return 2LL * m->K * m->D * m->act_bytes;
}
static int64_t dkv_bytes(const CostModel *m) {
    return 2LL * m->K * m->D * m->dkv_bytes;
}

/* Per shard row that a backend that splits heads sends away: q, k, v there and o back, or their
 * gradients. */
static int64_t split_row_bytes(const CostModel *m, int q_like) {
    return (int64_t)(q_like * m->H + 2 * m->K) * m->D * m->act_bytes;
}

/* Of so many rows of keys and values, and their gradients. */
static PlanBytes kv_row_bytes(int64_t rows, const CostModel *m) {
    return (PlanBytes){(double)rows * (double)kv_bytes(m),
                       (double)rows * (double)(kv_bytes(m) + dkv_bytes(m))};
}

PlanBytes plan_bytes_dense(const AttnPlan *p, CpBackend backend, const CostModel *m) {
    int64_t rows = (int64_t)p->P * (p->P - 1) * p->dispatch.rows;
    if (cp_backend_is(backend,
                      BACKEND_SPLITS_HEADS)) { /* 1 / P of the heads of a row goes to each peer */
        double bytes = (double)(rows / p->P) * (double)split_row_bytes(m, 2);
        return (PlanBytes){bytes, bytes};
    }
    return kv_row_bytes(rows, m);
}

PlanBytes plan_bytes(const AttnPlan *p, const CostModel *m) {
    bool needed_rows = cp_backend_is(p->backend, BACKEND_NEEDED_ROWS);
    return needed_rows ? kv_row_bytes(plan_summary(p).recv_rows, m)
                       : plan_bytes_dense(p, p->backend, m);
}

/* q, k, v there and o back; their gradients the other way round. */
static void set_split_bytes(const AttnPlan *p, int64_t rows, const CostModel *m, CostStage *c) {
    c->in[0] = c->out[1] = rows / p->P * split_row_bytes(m, 1);
    c->in[1] = c->out[0] = rows / p->P * m->H * m->D * m->act_bytes;
}

/* ---- stages for the cost model ----------------------------------------------------------- */

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
    if (cp_backend_is(p->backend, BACKEND_NEIGHBOURS))
        return other_node(p, rank, (rank - 1 + p->P) % p->P);
    if (cp_backend_is(p->backend, BACKEND_NEEDED_ROWS))
        return 1 - (double)near_rows(p, rank) / (double)recv;
    return (double)(p->P - p->ranks_per_node) / (p->P - 1);
}

static CostRank cost_rank(const AttnPlan *p, int rank, const CostModel *m) {
    const RankSummary *r = &p->ranks[rank];
    int64_t moved = i64_max(r->recv_rows, r->send_rows);
    return (CostRank){.local_tile_area = r->local_tile_area,
                      .remote_tile_area = r->tile_area - r->local_tile_area,
                      .q_rows = p->dispatch.rows,
                      .in = moved * kv_bytes(m),
                      .out = moved * dkv_bytes(m),
                      .far = far_share(p, rank)};
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
        if (!cp_backend_is(p->backend, BACKEND_SPLITS_HEADS)) continue;
        set_split_bytes(p, moved, m, c);
        c->tile_area /= p->P;
    }
}

void plan_cost_equal(const AttnPlan *p, int rank, const CostModel *m, CostStage *out) {
    CostRank r = cost_rank(p, rank, m);
    cost_equal_stages(&r, p->n_stages - 1, out);
    if (cp_backend_is(p->backend, BACKEND_SPLITS_HEADS))
        set_split_bytes(p, p->ranks[rank].recv_rows, m, out);
}

int plan_choose_degree(const AttnPlan *p, const CostModel *given) {
    CostModel fallback = cost_default(32, 8, 64);
    const CostModel *m = given ? given : &fallback;
    CostRank *ranks = NEW(CostRank, p->P);
    for (int r = 0; r < p->P; r++) ranks[r] = cost_rank(p, r, m);
    int degree = cost_choose_degree(m, ranks, p->P);
    free(ranks);
    return degree;
}
