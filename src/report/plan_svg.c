#include "report/plan_svg.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/plan_report.h"
#include "report/svg.h"

/* Pixels. */
enum { PLOT = 512, PLOT_X = 84, PLOT_Y = 76, LEGEND_X = PLOT_X + PLOT + 28, WIDTH = 860 };
enum { LANES_X = PLOT_X, LANES_WIDTH = WIDTH - PLOT_X - 24, LANE = 20, LANES_GAP = 24 };
enum { LANES_Y = PLOT_Y + PLOT + 96 };
enum { MAX_CELLS = 256, MAX_LANES = 16, MAX_COLOURS = 64, SHADES = 8, LEVELS = 4 };

/* One plan. Cells are the squares of a grid that is the same for queries and keys and aligned to
 * chunks. */
typedef struct {
    const AttnPlan *p;
    StrBuf *out;
    int n;            /* cells a side */
    int32_t *edge;    /* [n + 1] tokens */
    int colours;      /* of ranks */
    int shades;       /* of stages */
    int lanes;        /* ranks that are shown */
    RankTimes *times; /* [lanes] */
} Picture;

/* ---- colours ------------------------------------------------------------------------------- */

typedef struct {
    char text[8];
} Colour;

/* Stage 0 in full, the last one mostly white. */
static Colour mix(const double rgb[3], int shade, int shades) {
    double white = shade == 0 ? 0 : shades <= 2 ? 0.45 : 0.25 + 0.45 * (shade - 1) / (shades - 2);
    unsigned c[3];
    for (int i = 0; i < 3; i++) c[i] = (unsigned)(255 * (rgb[i] + white * (1 - rgb[i])) + 0.5);
    Colour colour;
    snprintf(colour.text, sizeof colour.text, "#%02x%02x%02x", c[0] & 255, c[1] & 255, c[2] & 255);
    return colour;
}

static int colour_of(const Picture *g, int rank) {
    return (int)((int64_t)rank * g->colours / g->p->P);
}

static Colour shaded(const Picture *g, int colour, int shade) {
    static const unsigned few[] = {0x4e79a7, 0xf28e2b, 0x59a14f, 0xd1495b,
                                   0x3aa6a0, 0x9467bd, 0xd4a514, 0x8c6d5a};
    double rgb[3];
    /* beyond 8: a hue wheel, neighbours alternately darker */
    double hue = 6.0 * colour / g->colours, top = colour % 2 ? 0.68 : 0.82;
    for (int i = 0; i < 3; i++) {
        double from_primary = fabs(fmod(hue + 6 - 2 * i + 3, 6) - 3);
        rgb[i] = g->colours <= 8 ? (few[colour % 8] >> (16 - 8 * i) & 255) / 255.0
                                 : top * (0.3 + 0.7 * fmin(1, fmax(0, 2 - from_primary)));
    }
    return mix(rgb, shade, g->shades);
}

static Colour rank_colour(const Picture *g, int rank) {
    return shaded(g, colour_of(g, rank), 0);
}

static int shade_of(const Picture *g, int stage) {
    int stages = g->p->n_stages;
    if (g->p->P > PLAN_EXACT_RANKS) return stage > 0;
    return stages <= SHADES ? stage : (int)((int64_t)stage * SHADES / stages);
}

/* ---- the mask ------------------------------------------------------------------------------ */

static void make_grid(Picture *g) {
    const Dispatch *d = &g->p->dispatch;
    int64_t chunks = ceil_div(d->n_chunks, MAX_CELLS);                      /* of a cell, or: */
    int64_t parts = i64_max(1, i64_min(MAX_CELLS / d->n_chunks, d->chunk)); /* cells of a chunk */
    g->n = (int)(ceil_div(d->n_chunks, chunks) * parts);
    g->edge = NEW(int32_t, g->n + 1);
    for (int64_t i = 0; i <= g->n; i++)
        g->edge[i] = (int32_t)i64_min(d->padded, chunks * d->chunk * (i / parts) +
                                                     d->chunk * (i % parts) / parts);
}

static int pixel(const Picture *g, int32_t token) {
    return (int)((int64_t)PLOT * token / g->p->dispatch.padded);
}

static int cell_of(const Picture *g, int32_t token) {
    int low = 0, high = g->n - 1;
    while (low < high) {
        int mid = (low + high + 1) / 2;
        if (g->edge[mid] <= token)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

/* Cells whose first token `owner` holds in rows [row, row + rows) get this shade. */
static void mark_rows(const Picture *g, int owner, int32_t row, int32_t rows, int shade,
                      unsigned char *shades) {
    const Dispatch *d = &g->p->dispatch;
    for (int32_t n; rows > 0; row += n, rows -= n) {
        n = (int32_t)i64_min(rows, d->chunk - row % d->chunk);
        int64_t begin = dispatch_token_of(d, owner, row);
        for (int c = cell_of(g, (int32_t)begin); c < g->n && g->edge[c] < begin + n; c++)
            if (g->edge[c] >= begin) shades[c] = (unsigned char)shade;
    }
}

/* shades[n]: the shade of every key cell for this rank. */
static void mark_stages(const Picture *g, int rank, unsigned char *shades) {
    const AttnPlan *p = g->p;
    bool exact = p->P <= PLAN_EXACT_RANKS;
    memset(shades, exact ? 0 : 1, (size_t)g->n);
    if (exact) {
        RankPlan rp;
        plan_rank(p, rank, &rp);
        for (int i = 1; i < rp.n_stages; i++) {
            const PlanStage *s = &rp.stages[i];
            int shade = shade_of(g, i);
            if (s->source >= 0) mark_rows(g, s->source, 0, rp.rows, shade, shades);
            for (int k = 0; k < s->n_recv && s->source < 0; k++)
                mark_rows(g, s->recv[k].peer, s->recv[k].peer_row, s->recv[k].rows, shade, shades);
        }
        rank_plan_free(&rp);
    }
    mark_rows(g, rank, 0, p->dispatch.rows, 0, shades);
}

/* share[n]: how much of every cell of a row of cells is allowed. */
static void cover(const Picture *g, int row, double *share) {
    Range rows = {g->edge[row], g->edge[row + 1]};
    memset(share, 0, (size_t)g->n * sizeof *share);
    Band cut;
    for (MaskRows at = mask_rows(&g->p->mask, rows); mask_next(&at, &cut);)
        for (int c = cell_of(g, cut.k_begin); c < g->n && g->edge[c] < cut.k_end; c++) {
            Range keys = {g->edge[c], g->edge[c + 1]};
            Band part = band_cut_k(cut, keys);
            double cell = (double)(rows.end - rows.begin) * (keys.end - keys.begin);
            if (!band_is_empty(part)) share[c] += (double)band_area(part) / cell;
        }
}

/* Cells of one look are one path. */
static StrBuf *path_of(StrBuf *paths, int colour, int shade, double share) {
    int level = (int)fmin(LEVELS - 1, LEVELS * share);
    return &paths[(colour * SHADES + shade) * LEVELS + level];
}

/* Adds the cells of a row, neighbours of one look as one rectangle. */
static void add_row(const Picture *g, int row, const unsigned char *shade, const double *share,
                    StrBuf *paths) {
    int colour = colour_of(g, dispatch_rank_of(&g->p->dispatch, g->edge[row]));
    int y = pixel(g, g->edge[row]), height = pixel(g, g->edge[row + 1]) - y;
    for (int c = 0, next; c < g->n; c = next) {
        next = c + 1;
        if (share[c] <= 0) continue;
        StrBuf *path = path_of(paths, colour, shade[c], share[c]);
        while (next < g->n && share[next] > 0 &&
               path_of(paths, colour, shade[next], share[next]) == path)
            next++;
        int x = pixel(g, g->edge[c]), width = pixel(g, g->edge[next]) - x;
        strbuf_printf(path, "M%d %dh%dv%dh-%dz", x, y, width, height, width);
    }
}

static void draw_cells(const Picture *g) {
    int n_paths = g->colours * SHADES * LEVELS;
    StrBuf *paths = NEW(StrBuf, n_paths);
    unsigned char *shades = NEW(unsigned char, (int64_t)g->p->P * g->n);
    bool *marked = NEW(bool, g->p->P);
    double *share = NEW(double, g->n);
    for (int row = 0; row < g->n; row++) {
        int rank = dispatch_rank_of(&g->p->dispatch, g->edge[row]);
        unsigned char *shade = shades + (int64_t)rank * g->n;
        if (!marked[rank]) mark_stages(g, rank, shade);
        marked[rank] = true;
        cover(g, row, share);
        add_row(g, row, shade, share, paths);
    }
    for (int i = 0; i < n_paths; i++) {
        Colour colour = shaded(g, i / (SHADES * LEVELS), i / LEVELS % SHADES);
        svg_path(g->out, colour.text, (i % LEVELS + 1.0) / LEVELS, paths[i].text);
        strbuf_free(&paths[i]);
    }
    free(paths);
    free(shades);
    free(marked);
    free(share);
}

/* Where no band reaches across a token, as at the begin of a document or of a sequence: lines, at
 * least APART pixels from each other. */
static void draw_borders(const Picture *g) {
    enum { APART = 4 };
    const Mask *m = &g->p->mask;
    int32_t *least = NEW(int32_t, m->n + 1), reach = 0; /* the first token of bands i, i + 1, ... */
    StrBuf lines = {0};
    least[m->n] = (int32_t)m->S;
    for (int64_t i = m->n - 1; i >= 0; i--)
        least[i] =
            (int32_t)i64_min(least[i + 1], i64_min(m->bands[i].q_begin, m->bands[i].k_begin));
    for (int64_t i = 0, last = 0; i < m->n; i++) {
        reach = (int32_t)i64_max(reach, i64_max(m->bands[i].q_end, m->bands[i].k_end));
        int at = pixel(g, reach);
        if (least[i + 1] < reach || at < last + APART || at > PLOT - APART) continue;
        strbuf_printf(&lines, "M%d.5 0v%dM0 %d.5h%d", at, PLOT, at, PLOT);
        last = at;
    }
    if (lines.len > 0)
        strbuf_printf(g->out, "<path stroke=\"" SVG_INK "\" stroke-opacity=\"0.35\" d=\"%s\"/>\n",
                      lines.text);
    strbuf_free(&lines);
    free(least);
}

/* Who holds which tokens, along both sides. */
static void draw_owners(const Picture *g) {
    const Dispatch *d = &g->p->dispatch;
    for (int c = 0, next; c < g->n; c = next) {
        int rank = dispatch_rank_of(d, g->edge[c]);
        for (next = c + 1; next < g->n; next++)
            if (dispatch_rank_of(d, g->edge[next]) != rank) break;
        int begin = pixel(g, g->edge[c]), length = pixel(g, g->edge[next]) - begin;
        Colour colour = rank_colour(g, rank);
        svg_rect(g->out, -14, begin, 8, length, colour.text);
        svg_rect(g->out, begin, -14, length, 8, colour.text);
    }
}

static void draw_axes(const Picture *g) {
    static const char *const units[] = {"", "k", "M"};
    int64_t padded = g->p->dispatch.padded, step = 1;
    while (8 * step < padded) step *= 2;
    strbuf_printf(g->out,
                  "<rect width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"" SVG_FAINT "\"/>\n",
                  PLOT, PLOT);
    for (int64_t t = 0; t <= padded; t += step) {
        int unit = t == 0 || t % (1 << 10) != 0 ? 0 : t % (1 << 20) != 0 ? 1 : 2;
        char text[24];
        snprintf(text, sizeof text, "%" PRId64 "%s", t >> (10 * unit), units[unit]);
        svg_text(g->out, -20, pixel(g, (int32_t)t) + 4, SVG_END, NULL, "%s", text);
        svg_text(g->out, pixel(g, (int32_t)t), PLOT + 17, SVG_MIDDLE, NULL, "%s", text);
    }
    svg_text(g->out, 0.5 * PLOT, PLOT + 34, SVG_MIDDLE, SVG_FAINT, "key");
    strbuf_printf(g->out, "<g transform=\"translate(-62 %d) rotate(-90)\">", PLOT / 2);
    svg_text(g->out, 0, 0, SVG_MIDDLE, SVG_FAINT, "query");
    svg_group_end(g->out);
}

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
        svg_rect(g->out, 0, y - 10, 12, 12, rank_colour(g, lane_rank(g, i)).text);
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
        svg_rect(g->out, i * width, y + 8, width - 2, 12, mix(grey, i, g->shades).text);
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
        if (strcmp(c->what, what) != 0 || (compute && shade_of(g, c->stage) != shade)) continue;
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
        draw_intervals(g, t, "attention", shade, shaded(g, colour_of(g, rank), shade).text, x, y,
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
    g->shades = shade_of(g, p->n_stages - 1) + 1;
    make_grid(g);
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
    strbuf_printf(g->out, "<g shape-rendering=\"crispEdges\">\n");
    draw_cells(g);
    draw_owners(g);
    svg_group_end(g->out);
    draw_borders(g);
    draw_axes(g);
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
