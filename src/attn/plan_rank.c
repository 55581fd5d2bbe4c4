/* plan_rank.c: the full tables of one rank: what its backend builds, in the order of PlanSegment.
 */
#include <stdlib.h>

#include "attn/plan_backend.h"

static int compare_segments(const void *x, const void *y) {
    const StageSegment *a = x, *b = y;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    if (a->segment.peer != b->segment.peer) return a->segment.peer < b->segment.peer ? -1 : 1;
    return (a->segment.row > b->segment.row) - (a->segment.row < b->segment.row);
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
