#include "attn/cost.h"

#include <stdlib.h>

#include "attn/band.h"

#define FLOPS_PER_PAIR 4.0 /* forward, per head and head_dim: q.k and p.v, multiply and add */
#define BWD_FACTOR     2.5 /* five products instead of two */

CostModel cost_default(int H, int K, int D) {
    bool small = D <= 64;
    return (CostModel){.H = H,
                       .K = K,
                       .D = D,
                       .act_bytes = 2,
                       .dkv_bytes = 4,
                       .tile = ATTN_TILE,
                       .fwd_flops = small ? 540e12 : 690e12,
                       .bwd_flops = small ? 487e12 : 560e12,
                       .memory_bw = 2.9e12,
                       .link_bw = 270e9,
                       .node_bw = 27e9,
                       .launch_s = 5e-6,
                       .message_s = 10e-6};
}

/* Kernel seconds of one call. `carried`: o (backward: dq) is read and written in fp32. */
static double call_seconds(const CostModel *m, const CostStage *s, bool backward, bool carried) {
    if (s->tile_area == 0) return 0;
    double width = (double)m->H * m->D;
    double flops = FLOPS_PER_PAIR * (double)s->tile_area * width;
    double seconds = backward ? BWD_FACTOR * flops / m->bwd_flops : flops / m->fwd_flops;
    if (carried) seconds += 2 * sizeof(float) * width * (double)s->q_rows / m->memory_bw;
    return m->launch_s + seconds;
}

static double transfer_seconds(const CostModel *m, int64_t bytes, double far) {
    double inside = (1 - far) * (double)bytes / m->link_bw,
           across = far * (double)bytes / m->node_bw;
    return bytes == 0 ? 0 : m->message_s + (inside > across ? inside : across);
}

typedef struct {
    CostTimeline t;
    double free_at[2]; /* when each stream has finished what it was given */
    bool record;
} Timeline;

/* Queues work on a stream, not before `ready`; returns when it ends. */
static double queue(Timeline *q, CostStream stream, double ready, double seconds, int stage,
                    const char *what) {
    if (seconds == 0) return ready;
    double begin = q->free_at[stream] > ready ? q->free_at[stream] : ready;
    double end = q->free_at[stream] = begin + seconds;
    if (stream == COST_COMPUTE) q->t.compute += seconds;
    if (end > q->t.seconds) q->t.seconds = end;
    if (q->record) {
        q->t.intervals = mem_grow(q->t.intervals, q->t.n_intervals + 1, sizeof(CostInterval));
        q->t.intervals[q->t.n_intervals++] = (CostInterval){begin, end, stream, stage, what};
    }
    return end;
}

CostTimeline cost_forward(const CostModel *m, const CostStage *stages, int n, bool intervals) {
    Timeline q = {.record = intervals};
    double ended[2] = {0}; /* the calls of the two stages before */
    for (int i = 0; i < n; i++) {
        const CostStage *s = &stages[i];
        double in = transfer_seconds(m, s->in[0], s->far);
        double ready = queue(&q, COST_COMM, ended[i % 2], in, i, "in");
        double call = call_seconds(m, s, false, n > 1);
        ended[i % 2] = queue(&q, COST_COMPUTE, ready, call, i, "attention");
        double out = transfer_seconds(m, s->out[0], s->far);
        queue(&q, COST_COMM, ended[i % 2], out, i, "out");
    }
    q.t.exposed = q.t.seconds - q.t.compute;
    return q.t;
}

/* Stage computed at place `k` of the backward. */
static int backward_stage(int k, int n) {
    return k == 0 ? n - 1 : k == n - 1 ? 0 : k;
}

static double backward_input(const CostModel *m, const CostStage *stages, int k, int n) {
    const CostStage *s = &stages[backward_stage(k, n)];
    bool kept = k == 0 && n > 1; /* from the forward */
    return kept ? 0 : transfer_seconds(m, s->in[1], s->far);
}

CostTimeline cost_backward(const CostModel *m, const CostStage *stages, int n, bool intervals) {
    Timeline q = {.record = intervals};
    double ready = queue(&q, COST_COMM, 0, backward_input(m, stages, 0, n), n - 1, "in");
    double ended = 0, pending = 0; /* pending: transfer of the stage before, not yet issued */
    for (int k = 0; k < n; k++) {
        int i = backward_stage(k, n);
        double next = 0;
        if (k + 1 < n) { /* fetch before reduce: the next call waits for it */
            double in = backward_input(m, stages, k + 1, n);
            next = queue(&q, COST_COMM, ended, in, backward_stage(k + 1, n), "in");
        }
        if (k > 0) queue(&q, COST_COMM, ended, pending, backward_stage(k - 1, n), "out");
        ended = queue(&q, COST_COMPUTE, ready, call_seconds(m, &stages[i], true, n > 1), i,
                      "attention");
        pending = transfer_seconds(m, stages[i].out[1], stages[i].far);
        ready = next;
    }
    queue(&q, COST_COMM, ended, pending, backward_stage(n - 1, n), "out");
    q.t.exposed = q.t.seconds - q.t.compute;
    return q.t;
}

void cost_timeline_free(CostTimeline *t) {
    free(t->intervals);
    *t = (CostTimeline){0};
}

void cost_equal_stages(const CostRank *r, int degree, CostStage *out) {
    out[0] = (CostStage){.tile_area = r->local_tile_area, .q_rows = r->q_rows};
    int64_t parts = i64_max(1, degree);
    CostStage remote = {.tile_area = r->remote_tile_area / parts,
                        .q_rows = r->q_rows,
                        .in = {r->in / parts, r->in / parts},
                        .out = {0, r->out / parts},
                        .far = r->far};
    for (int i = 1; i <= degree; i++) out[i] = remote;
    if (degree > 0) return;
    remote.tile_area += r->local_tile_area;
    out[0] = remote;
}

static double rank_seconds(const CostModel *m, const CostRank *r, int degree) {
    CostStage stages[1 + OVERLAP_DEGREE_MAX];
    cost_equal_stages(r, degree, stages);
    return cost_forward(m, stages, degree + 1, false).seconds +
           cost_backward(m, stages, degree + 1, false).seconds;
}

int cost_choose_degree(const CostModel *m, const CostRank *ranks, int n) {
    static const int degrees[] = {0, 1, 2, 4, OVERLAP_DEGREE_MAX};
    int best = 0;
    double best_seconds = 0;
    for (int i = 0; i < 5; i++) {
        double slowest = 0;
        for (int r = 0; r < n; r++) {
            double seconds = rank_seconds(m, &ranks[r], degrees[i]);
            if (seconds > slowest) slowest = seconds;
        }
        if (i > 0 && slowest >= best_seconds) continue;
        best = degrees[i];
        best_seconds = slowest;
    }
    return best;
}
