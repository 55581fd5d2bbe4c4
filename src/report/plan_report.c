#include "report/plan_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_RANKS 16
#define BAR         72 /* characters of a timeline */

static const double MIB = 1024.0 * 1024.0, MICRO = 1e6;

static const char *backend_name(const AttnPlan *p) {
    return cp_backend_names[p->backend];
}

/* ---- prediction ---------------------------------------------------------------------------- */

RankTimes plan_rank_times(const AttnPlan *p, int rank, const CostModel *m, bool intervals) {
    CostStage *stages = NEW(CostStage, p->n_stages);
    if (p->P <= PLAN_EXACT_RANKS) {
        RankPlan rp;
        plan_rank(p, rank, &rp);
        plan_cost_stages(p, &rp, m, stages);
        rank_plan_free(&rp);
    } else {
        plan_cost_equal(p, rank, m, stages);
    }
    RankTimes t = {cost_forward(m, stages, p->n_stages, intervals),
                   cost_backward(m, stages, p->n_stages, intervals)};
    free(stages);
    return t;
}

void rank_times_free(RankTimes *t) {
    cost_timeline_free(&t->forward);
    cost_timeline_free(&t->backward);
}

static double seconds(const RankTimes *t) {
    return t->forward.seconds + t->backward.seconds;
}

typedef struct {
    RankTimes *ranks; /* [P], without intervals */
    int slowest;      /* longest forward and backward together: what a layer takes */
} PlanTimes;

static PlanTimes plan_times(const AttnPlan *p, const CostModel *m) {
    PlanTimes t = {.ranks = NEW(RankTimes, p->P)};
    for (int r = 0; r < p->P; r++) {
        t.ranks[r] = plan_rank_times(p, r, m, false);
        if (seconds(&t.ranks[r]) > seconds(&t.ranks[t.slowest])) t.slowest = r;
    }
    return t;
}

static void plan_times_free(PlanTimes *t) {
    free(t->ranks);
    *t = (PlanTimes){0};
}

/* ---- text ---------------------------------------------------------------------------------- */

/* The table of ranks; times in microseconds. */
enum { AREA, OF_MEAN, LOCAL, RECEIVED, SENT, FORWARD, BACKWARD, COLUMNS };
static const struct {
    const char *head;
    int width, digits;
} columns[COLUMNS] = {[AREA] = {"area", 17, 0},           [OF_MEAN] = {"of mean", 9, 3},
                      [LOCAL] = {"local %", 9, 1},        [RECEIVED] = {"rows in", 11, 0},
                      [SENT] = {"rows out", 11, 0},       [FORWARD] = {"forward us", 12, 1},
                      [BACKWARD] = {"backward us", 12, 1}};

static void fill_columns(const AttnPlan *p, int rank, double mean_area, const RankTimes *t,
                         double *x) {
    const RankSummary *k = &p->ranks[rank];
    x[AREA] = (double)k->area;
    x[OF_MEAN] = mean_area > 0 ? (double)k->area / mean_area : 1;
    x[LOCAL] = k->area > 0 ? 100 * (double)k->local_area / (double)k->area : 100;
    x[RECEIVED] = (double)k->recv_rows;
    x[SENT] = (double)k->send_rows;
    x[FORWARD] = MICRO * t->forward.seconds;
    x[BACKWARD] = MICRO * t->backward.seconds;
}

static void print_columns(const char *name, const double *x, StrBuf *out) {
    strbuf_printf(out, "  %-8s", name);
    for (int i = 0; i < COLUMNS; i++)
        strbuf_printf(out, "%*.*f", columns[i].width, columns[i].digits, x[i]);
    strbuf_printf(out, "\n");
}

static void rank_table(const AttnPlan *p, double mean_area, const PlanTimes *t, StrBuf *out) {
    double x[COLUMNS], least[COLUMNS], mean[COLUMNS] = {0}, most[COLUMNS];
    strbuf_printf(out, "\n  rank    ");
    for (int i = 0; i < COLUMNS; i++) strbuf_printf(out, "%*s", columns[i].width, columns[i].head);
    strbuf_printf(out, "\n");
    for (int r = 0; r < p->P; r++) {
        fill_columns(p, r, mean_area, &t->ranks[r], x);
        for (int i = 0; i < COLUMNS; i++) {
            if (r == 0 || x[i] < least[i]) least[i] = x[i];
            if (r == 0 || x[i] > most[i]) most[i] = x[i];
            mean[i] += x[i] / p->P;
        }
        char name[16];
        snprintf(name, sizeof name, "%d", r);
        if (p->P <= TABLE_RANKS) print_columns(name, x, out);
    }
    if (p->P <= TABLE_RANKS) return;
    print_columns("least", least, out);
    print_columns("mean", mean, out);
    print_columns("most", most, out);
}

/* Exposed: what transfers add to the slowest rank's attention. */
static void backend_row(const AttnPlan *p, const CostModel *m, const RankTimes *t, bool chosen,
                        StrBuf *out) {
    PlanBytes bytes = plan_bytes(p, m), ring = plan_bytes_dense(p, BACKEND_RING, m);
    double moved = bytes.forward + bytes.backward, dense = ring.forward + ring.backward;
    double exposed = t->forward.exposed + t->backward.exposed;
    strbuf_printf(out, "%c %-10s%7d%8.2f %%%12.1f%12.1f%8.1f %%%12.1f%12.1f%8.1f %%\n",
                  chosen ? '>' : ' ', backend_name(p), p->n_stages, 100 * plan_summary(p).imbalance,
                  bytes.forward / MIB, bytes.backward / MIB, dense > 0 ? 100 * moved / dense : 0.0,
                  MICRO * t->forward.seconds, MICRO * t->backward.seconds,
                  seconds(t) > 0 ? 100 * exposed / seconds(t) : 0.0);
}

static void backend_table(const PlanReport *r, const RankTimes *slowest, StrBuf *out) {
    strbuf_printf(out, "\n  %-10s%7s%10s%12s%12s%10s%12s%12s%10s\n", "backend", "stages",
                  "imbalance", "fwd MiB", "bwd MiB", "of ring", "forward us", "backward us",
                  "exposed");
    backend_row(r->plan, r->cost, slowest, true, out);
    for (int i = 0; i < r->n_others; i++) {
        PlanTimes t = plan_times(&r->others[i], r->cost);
        backend_row(&r->others[i], r->cost, &t.ranks[t.slowest], false, out);
        plan_times_free(&t);
    }
}

static char stage_digit(int stage) {
    return "0123456789abcdefghijklmnopqrstuvwxyz"[stage % 36];
}

/* One line: the intervals of one kind, `scale` seconds wide. */
static void bar(const CostTimeline *t, const char *what, const char *label, double scale,
                StrBuf *out) {
    char line[BAR + 1];
    bool any = false;
    memset(line, ' ', BAR);
    line[BAR] = '\0';
    for (int i = 0; i < t->n_intervals; i++) {
        const CostInterval *c = &t->intervals[i];
        if (strcmp(c->what, what) != 0) continue;
        any = true;
        int begin = (int)(c->begin / scale * BAR), end = (int)(c->end / scale * BAR + 0.5);
        begin = begin < BAR ? begin : BAR - 1;
        if (end == begin) end++; /* too short to see, yet there */
        for (int x = begin; x < end && x < BAR; x++) line[x] = stage_digit(c->stage);
    }
    if (any) strbuf_printf(out, "    %-10s|%s|\n", label, line);
}

static void bars(const CostTimeline *t, const char *name, double scale, StrBuf *out) {
    strbuf_printf(out, "  %-8s %.1f us, of which %.1f wait for transfers\n", name,
                  MICRO * t->seconds, MICRO * t->exposed);
    bar(t, "attention", "attention", scale, out);
    bar(t, "in", "fetch", scale, out);
    bar(t, "out", "return", scale, out);
}

static void timeline(const PlanReport *r, int rank, StrBuf *out) {
    const CostModel *m = r->cost;
    RankTimes t = plan_rank_times(r->plan, rank, m, true);
    double scale = t.forward.seconds > t.backward.seconds ? t.forward.seconds : t.backward.seconds;
    strbuf_printf(out,
                  "\nprediction for a layer's attention on rank %d, the slowest, by stage%s\n"
                  "(a model: %.0f / %.0f TFLOP/s, %.0f GB/s per rank and direction",
                  rank, r->plan->P <= PLAN_EXACT_RANKS ? "" : ", taken as equal",
                  m->fwd_flops / 1e12, m->bwd_flops / 1e12, m->link_bw / 1e9);
    if (r->plan->ranks_per_node < r->plan->P)
        strbuf_printf(out, ", %.0f between nodes of %d", m->node_bw / 1e9, r->plan->ranks_per_node);
    strbuf_printf(out, ")\n");
    if (scale > 0) {
        bars(&t.forward, "forward", scale, out);
        bars(&t.backward, "backward", scale, out);
    }
    rank_times_free(&t);
}

static void figures(const AttnPlan *p, StrBuf *out) {
    const Dispatch *d = &p->dispatch;
    PlanSummary s = plan_summary(p);
    double fraction = s.ring_rows > 0 ? (double)s.recv_rows / (double)s.ring_rows : 0;
    strbuf_printf(out,
                  "%s over %d ranks: %" PRId64 " tokens (%" PRId64 " with padding) in %d chunks "
                  "of %d,\n           dispatch %s, %d rows a rank, ",
                  backend_name(p), p->P, d->S, d->padded, d->n_chunks, d->chunk,
                  dispatch_kind_names[d->kind], d->rows);
    if (cp_backend_is(p->backend, BACKEND_NEEDED_ROWS))
        strbuf_printf(out, "degree %d, ", p->degree);
    strbuf_printf(out,
                  "hash %016" PRIx64 "\n           imbalance %.2f %%; rows in: %" PRId64
                  " (ring %" PRId64 ": %.1f %%), of a rank at most %" PRId64 ", out %" PRId64 "\n",
                  plan_hash(p), 100 * s.imbalance, s.recv_rows, s.ring_rows, 100 * fraction,
                  s.max_recv_rows, s.max_send_rows);
}

void plan_report_text(const PlanReport *r, StrBuf *out) {
    const AttnPlan *p = r->plan;
    PlanTimes t = plan_times(p, r->cost);
    figures(p, out);
    rank_table(p, (double)plan_summary(p).area / p->P, &t, out);
    backend_table(r, &t.ranks[t.slowest], out);
    timeline(r, t.slowest, out);
    plan_times_free(&t);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void bytes_json(const char *name, PlanBytes b, StrBuf *out) {
    strbuf_printf(out, "\"%s\":{\"forward\":%.0f,\"backward\":%.0f},", name, b.forward, b.backward);
}

static void times_json(const char *name, const CostTimeline *t, StrBuf *out) {
    strbuf_printf(out, "\"%s\":{\"seconds\":%.6g,\"compute\":%.6g,\"exposed\":%.6g", name,
                  t->seconds, t->compute, t->exposed);
    if (t->n_intervals > 0) strbuf_printf(out, ",\"intervals\":[");
    for (int i = 0; i < t->n_intervals; i++) {
        const CostInterval *c = &t->intervals[i];
        strbuf_printf(
            out, "%s{\"begin\":%.6g,\"end\":%.6g,\"stream\":\"%s\",\"stage\":%d,\"what\":\"%s\"}",
            i > 0 ? "," : "", c->begin, c->end, c->stream == COST_COMPUTE ? "compute" : "comm",
            c->stage, c->what);
    }
    strbuf_printf(out, t->n_intervals > 0 ? "]}" : "}");
}

static void both_times_json(const RankTimes *t, StrBuf *out) {
    times_json("forward", &t->forward, out);
    strbuf_printf(out, ",");
    times_json("backward", &t->backward, out);
}

static void figures_json(const PlanReport *r, StrBuf *out) {
    const AttnPlan *p = r->plan;
    const Dispatch *d = &p->dispatch;
    PlanSummary s = plan_summary(p);
    strbuf_printf(out,
                  "\"backend\":\"%s\",\"ranks\":%d,\"ranks_per_node\":%d,\"hash\":\"%016" PRIx64
                  "\","
                  "\"tokens\":%" PRId64 ",\"padded_tokens\":%" PRId64 ",\"chunk\":%d,\"chunks\":%d,"
                  "\"dispatch\":\"%s\",\"rows_per_rank\":%d,\"degree\":%d,\"stages\":%d,",
                  backend_name(p), p->P, p->ranks_per_node, plan_hash(p), d->S, d->padded, d->chunk,
                  d->n_chunks, dispatch_kind_names[d->kind], d->rows, p->degree, p->n_stages);
    strbuf_printf(out,
                  "\"bands\":%" PRId64 ",\"area\":%" PRId64
                  ",\"imbalance\":%.6g,\"recv_rows\":%" PRId64 ",\"ring_rows\":%" PRId64 ",",
                  p->mask.n, s.area, s.imbalance, s.recv_rows, s.ring_rows);
    bytes_json("bytes", plan_bytes(p, r->cost), out);
    bytes_json("ring_bytes", plan_bytes_dense(p, BACKEND_RING, r->cost), out);
}

static void ranks_json(const AttnPlan *p, const PlanTimes *t, StrBuf *out) {
    strbuf_printf(out, "\"per_rank\":[");
    for (int r = 0; r < p->P; r++) {
        const RankSummary *k = &p->ranks[r];
        strbuf_printf(out,
                      "%s{\"rank\":%d,\"area\":%" PRId64 ",\"local_area\":%" PRId64
                      ",\"needed_rows\":%" PRId64 ",\"recv_rows\":%" PRId64
                      ",\"send_rows\":%" PRId64
                      ",\"forward_seconds\":%.6g,\"backward_seconds\":%.6g}",
                      r > 0 ? "," : "", r, k->area, k->local_area, k->needed_rows, k->recv_rows,
                      k->send_rows, t->ranks[r].forward.seconds, t->ranks[r].backward.seconds);
    }
    strbuf_printf(out, "],");
}

static void backend_json(const AttnPlan *p, const CostModel *m, const RankTimes *slowest,
                         StrBuf *out) {
    strbuf_printf(out, "{\"backend\":\"%s\",\"degree\":%d,\"imbalance\":%.6g,", backend_name(p),
                  p->degree, plan_summary(p).imbalance);
    bytes_json("bytes", plan_bytes(p, m), out);
    both_times_json(slowest, out);
    strbuf_printf(out, "}");
}

void plan_report_json(const PlanReport *r, StrBuf *out) {
    const AttnPlan *p = r->plan;
    PlanTimes t = plan_times(p, r->cost);
    strbuf_printf(out, "{");
    figures_json(r, out);
    ranks_json(p, &t, out);
    RankTimes slowest = plan_rank_times(p, t.slowest, r->cost, true);
    strbuf_printf(out, "\"prediction\":{\"exact\":%s,\"slowest_rank\":%d,",
                  p->P <= PLAN_EXACT_RANKS ? "true" : "false", t.slowest);
    both_times_json(&slowest, out);
    rank_times_free(&slowest);
    strbuf_printf(out, "},\"backends\":[");
    backend_json(p, r->cost, &t.ranks[t.slowest], out);
    plan_times_free(&t);
    for (int i = 0; i < r->n_others; i++) {
        t = plan_times(&r->others[i], r->cost);
        strbuf_printf(out, ",");
        backend_json(&r->others[i], r->cost, &t.ranks[t.slowest], out);
        plan_times_free(&t);
    }
    strbuf_printf(out, "]}");
}
