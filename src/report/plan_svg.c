#include "report/plan_svg.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/plan_picture.h"

/* Pixels. */
enum { PLOT_X = 84, PLOT_Y = 76, LEGEND_X = PLOT_X + PLAN_PLOT + 28, WIDTH = 860 };
enum { LANES_X = PLOT_X, LANES_WIDTH = WIDTH - PLOT_X - 24, LANE = 20, LANES_GAP = 24 };
enum { LANES_Y = PLOT_Y + PLAN_PLOT + 96 };
enum { MAX_LANES = 16, MAX_COLOURS = 64 };

/* ---- legend -------------------------------------------------------------------------------- */

static int lane_rank(const Picture *g, int i) {
    return (int)((int64_t)i * g->p->P / g->lanes);
}

static void draw_ranks(const Picture *g, double mean_area) {
    svg_text(g->out, 0, -4, SVG_START, SVG_FAINT, "rank");
    svg_text(g->out, 104, -4, SVG_END, SVG_FAINT, "area / mean");
    svg_text(g->out, 200, -4, SVG_END, SVG_FAINT, "rows received");
    for (int i = 0; i < g->lanes; i++) {
        const RankSummary *r = &g->p->ranks[lane_rank(g, i)];
        int y = 16 + LANE * i;
        svg_rect(g->out, 0, y - 10, 12, 12, plan_rank_colour(g, lane_rank(g, i), 0).text);
        svg_text(g->out, 18, y, SVG_START, NULL, "%d", lane_rank(g, i));
        svg_text(g->out, 104, y, SVG_END, NULL, "%.3f",
                 mean_area > 0 ? (double)r->area / mean_area : 1.0);
        svg_text(g->out, 200, y, SVG_END, NULL, "%" PRId64, r->recv_rows);
    }
}

static void draw_stages(const Picture *g, int y) {
    static const double grey[] = {0.3, 0.33, 0.37};
    bool exact = g->p->P <= PLAN_EXACT_RANKS;
    double width = g->shades > 4 ? 160.0 / g->shades : 36;
    svg_text(g->out, 0, y, SVG_START, SVG_FAINT,
             g->p->n_stages == 1 ? "all keys in one stage"
             : exact             ? "stage in which a key is used"
                                 : "local and remote keys");
    if (g->p->n_stages == 1) return;
    for (int i = 0; i < g->shades; i++)
        svg_rect(g->out, i * width, y + 8, width - 2, 12, plan_mix(grey, i, g->shades).text);
    svg_text(g->out, 0, y + 34, SVG_START, NULL, exact ? "0 (local)" : "local");
    if (exact)
        svg_text(g->out, g->shades * width - 2, y + 34, SVG_END, NULL, "%d", g->p->n_stages - 1);
    else
        svg_text(g->out, g->shades * width - 2, y + 34, SVG_END, NULL, "remote");
}

/* ---- timelines ----------------------------------------------------------------------------- */

/* The intervals of one kind and shade as one path, joined where no gap between them could be seen.
 */
static void draw_intervals(const Picture *g, const CostTimeline *t, const char *what, int shade,
                           const char *colour, double x, double y, double scale) {
    bool compute = strcmp(what, "attention") == 0;
    double top = compute ? y : y + 11, end = -1;
    StrBuf path = {0};
    for (int i = 0; i < t->n_intervals; i++) {
        const CostInterval *c = &t->intervals[i];
        if (strcmp(c->what, what) != 0 || (compute && plan_shade(g, c->stage) != shade)) continue;
        double begin = scale * c->begin;
        if (end >= 0 && begin < end + 0.4) begin = end;
        end = fmax(scale * c->end, begin + 0.5);
        strbuf_printf(&path, "M%.1f %.1fh%.1fv%dh-%.1fz", x + begin, top, end - begin,
                      compute ? 10 : 4, end - begin);
    }
    svg_path(g->out, colour, 1, path.text);
    strbuf_free(&path);
}

static void draw_lane(const Picture *g, const CostTimeline *t, int rank, double x, double y,
                      double scale) {
    for (int shade = 0; shade < g->shades; shade++)
        draw_intervals(g, t, "attention", shade, plan_rank_colour(g, rank, shade).text, x, y,
                       scale);
    draw_intervals(g, t, "in", 0, "#aab2bd", x, y, scale);
    draw_intervals(g, t, "out", 0, "#5f6b7a", x, y, scale);
}

/* forward, backward: seconds on the axes. */
static void draw_timelines(const Picture *g, double forward, double backward) {
    if (forward + backward <= 0) return;
    double scale = (LANES_WIDTH - LANES_GAP) / (forward + backward);
    double x = forward * scale + LANES_GAP; /* of the backward */
    svg_text(g->out, 0, -8, SVG_START, NULL, "forward");
    svg_text(g->out, x, -8, SVG_START, NULL, "backward");
    svg_time_axis(g->out, 0, 0, g->lanes * LANE, forward, scale);
    svg_time_axis(g->out, x, 0, g->lanes * LANE, backward, scale);
    for (int i = 0; i < g->lanes; i++) {
        int rank = lane_rank(g, i), y = i * LANE;
        svg_text(g->out, -10, y + 12, SVG_END, NULL, "%d", rank);
        draw_lane(g, &g->times[i].forward, rank, 0, y + 2, scale);
        draw_lane(g, &g->times[i].backward, rank, x, y + 2, scale);
    }
}

/* ---- public entry -------------------------------------------------------------------------- */

static void open_picture(Picture *g, const AttnPlan *p, const CostModel *m, StrBuf *out) {
    *g = (Picture){.p = p,
                   .out = out,
                   .colours = (int)i64_min(p->P, MAX_COLOURS),
                   .lanes = (int)i64_min(p->P, MAX_LANES)};
    g->shades = plan_shade(g, p->n_stages - 1) + 1;
    plan_make_grid(g);
    g->times = NEW(RankTimes, g->lanes);
    for (int i = 0; i < g->lanes; i++) g->times[i] = plan_rank_times(p, lane_rank(g, i), m, true);
}

static void close_picture(Picture *g) {
    for (int i = 0; i < g->lanes; i++) rank_times_free(&g->times[i]);
    free(g->times);
    free(g->edge);
}

static void draw_title(const Picture *g, PlanSummary s) {
    const AttnPlan *p = g->p;
    strbuf_printf(g->out, "<g font-size=\"15\" font-weight=\"600\">");
    svg_text(g->out, PLOT_X - 14, 24, SVG_START, NULL,
             "%s over %d rank%s, %" PRId64 " tokens, %s dispatch", cp_backend_names[p->backend],
             p->P, p->P == 1 ? "" : "s", p->dispatch.S, dispatch_kind_names[p->dispatch.kind]);
    svg_group_end(g->out);
    svg_text(g->out, PLOT_X - 14, 42, SVG_START, SVG_FAINT,
             "%d stage%s, imbalance %.1f %%, %.1f %% of the rows that a ring moves%s", p->n_stages,
             p->n_stages == 1 ? "" : "s", 100 * s.imbalance,
             s.ring_rows > 0 ? 100 * (double)s.recv_rows / (double)s.ring_rows : 0.0,
             cp_backend_is(p->backend, BACKEND_SPLITS_HEADS)
                 ? "; every rank computes all of it for its heads, colours are holders"
                 : "");
}

static void draw_plan(const Picture *g, double forward, double backward) {
    PlanSummary s = plan_summary(g->p);
    draw_title(g, s);
    svg_group_begin(g->out, PLOT_X, PLOT_Y);
    plan_draw_mask(g);
    svg_group_end(g->out);
    svg_group_begin(g->out, LEGEND_X, PLOT_Y);
    draw_ranks(g, (double)s.area / g->p->P);
    draw_stages(g, LANE * g->lanes + 30);
    svg_group_end(g->out);
    svg_text(g->out, PLOT_X - 14, LANES_Y - 30, SVG_START, SVG_FAINT,
             "Predicted for a layer's attention%s: computing (coloured), fetching (light) and "
             "returning (dark)",
             g->p->P > MAX_LANES ? " on some of the ranks" : "");
    svg_group_begin(g->out, LANES_X, LANES_Y);
    draw_timelines(g, forward, backward);
    svg_group_end(g->out);
}

void plan_svg(const AttnPlan *const *plans, int n, const CostModel *m, StrBuf *out) {
    Picture *pictures = NEW(Picture, n);
    double forward = 0, backward = 0;
    for (int i = 0; i < n; i++) {
        open_picture(&pictures[i], plans[i], m, out);
        for (int k = 0; k < pictures[i].lanes; k++) {
            forward = fmax(forward, pictures[i].times[k].forward.seconds);
            backward = fmax(backward, pictures[i].times[k].backward.seconds);
        }
    }
    svg_begin(out, n * WIDTH, LANES_Y + pictures[0].lanes * LANE + 32);
    for (int i = 0; i < n; i++) {
        svg_group_begin(out, i * WIDTH, 0);
        draw_plan(&pictures[i], forward, backward);
        svg_group_end(out);
        close_picture(&pictures[i]);
    }
    svg_end(out);
    free(pictures);
}
