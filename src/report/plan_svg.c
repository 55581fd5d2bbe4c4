#include "report/plan_svg.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/plan_report.h"

/* Pixels. */
enum { PLOT = 512, PLOT_X = 84, PLOT_Y = 76, LEGEND_X = PLOT_X + PLOT + 28, WIDTH = 860 };
enum { LANES_X = PLOT_X, LANES_WIDTH = WIDTH - PLOT_X - 24, LANE = 20, LANES_GAP = 24 };
enum { MAX_CELLS = 256, MAX_LANES = 16, MAX_COLOURS = 64, SHADES = 8, LEVELS = 4 };

#define INK   "#22262b"
#define FAINT "#6b7480"
#define FETCH "#aab2bd"
#define GIVE  "#5f6b7a" /* what returns */

/* Cells are the squares of a grid that is the same for queries and keys and aligned to chunks. */
typedef struct {
    const AttnPlan *p;
    const CostModel *cost;
    StrBuf *out;
    int n;         /* cells a side */
    int32_t *edge; /* [n + 1] tokens */
    int colours;   /* of ranks */
    int shades;    /* of stages */
} Picture;

/* ---- colours ------------------------------------------------------------------------------- */

typedef struct {
    double r, g, b; /* 0 .. 1 */
} Rgb;

static int colour_of(const Picture *g, int rank) {
    return (int)((int64_t)rank * g->colours / g->p->P);
}

static Rgb rank_colour(const Picture *g, int colour) {
    static const unsigned few[] = {0x4e79a7, 0xf28e2b, 0x59a14f, 0xd1495b,
                                   0x3aa6a0, 0x9467bd, 0xd4a514, 0x8c6d5a};
    if (g->colours <= 8)
        return (Rgb){(few[colour] >> 16) / 255.0, (few[colour] >> 8 & 255) / 255.0,
                     (few[colour] & 255) / 255.0};
    /* a hue wheel, neighbours alternately darker */
    double hue = 6.0 * colour / g->colours, top = colour % 2 ? 0.68 : 0.82, c[3];
    for (int i = 0; i < 3; i++) {
        double d = fabs(fmod(hue + 6 - 2 * i + 3, 6) - 3); /* distance from this primary */
        c[i] = top * (0.3 + 0.7 * fmin(1, fmax(0, 2 - d)));
    }
    return (Rgb){c[0], c[1], c[2]};
}

/* Stage 0 in full, the last one mostly white. */
static void print_colour(Rgb c, int shade, int shades, StrBuf *out) {
    double white = shade == 0 ? 0 : shades <= 2 ? 0.45 : 0.25 + 0.45 * (shade - 1) / (shades - 2);
    const double rgb[] = {c.r, c.g, c.b};
    strbuf_printf(out, "#");
    for (int i = 0; i < 3; i++)
        strbuf_printf(out, "%02x", (int)(255 * (rgb[i] + white * (1 - rgb[i])) + 0.5));
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

static int pixel(const Picture *g, int cell) {
    return (int)((int64_t)PLOT * g->edge[cell] / g->p->dispatch.padded);
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

static void draw_cells(Picture *g) {
    StrBuf *paths = NEW(StrBuf, (int64_t)g->colours * SHADES * LEVELS);
    unsigned char *shades = NEW(unsigned char, (int64_t)g->p->P * g->n);
    bool *marked = NEW(bool, g->p->P);
    double *share = NEW(double, g->n);
    for (int row = 0; row < g->n; row++) {
        int rank = dispatch_rank_of(&g->p->dispatch, g->edge[row]);
        unsigned char *shade = shades + (int64_t)rank * g->n;
        if (!marked[rank]) mark_stages(g, rank, shade);
        marked[rank] = true;
        cover(g, row, share);
        int y = pixel(g, row), height = pixel(g, row + 1) - y, colour = colour_of(g, rank);
        for (int c = 0, next; c < g->n; c = next) {
            next = c + 1;
            if (share[c] <= 0) continue;
            StrBuf *path = path_of(paths, colour, shade[c], share[c]);
            while (next < g->n && share[next] > 0 &&
                   path_of(paths, colour, shade[next], share[next]) == path)
                next++;
            int x = pixel(g, c), width = pixel(g, next) - x;
            strbuf_printf(path, "M%d %dh%dv%dh-%dz", x, y, width, height, width);
        }
    }
    for (int i = 0; i < g->colours * SHADES * LEVELS; i++) {
        if (paths[i].len == 0) continue;
        strbuf_printf(g->out, "<path fill=\"");
        print_colour(rank_colour(g, i / (SHADES * LEVELS)), i / LEVELS % SHADES, g->shades, g->out);
        strbuf_printf(g->out, "\" fill-opacity=\"%.2f\" d=\"%s\"/>\n", (i % LEVELS + 1.0) / LEVELS,
                      paths[i].text);
        strbuf_free(&paths[i]);
    }
    free(paths);
    free(shades);
    free(marked);
    free(share);
}

/* Who holds which tokens, along both sides. */
static void draw_owners(const Picture *g) {
    for (int c = 0, next; c < g->n; c = next) {
        int rank = dispatch_rank_of(&g->p->dispatch, g->edge[c]);
        for (next = c + 1; next < g->n; next++)
            if (dispatch_rank_of(&g->p->dispatch, g->edge[next]) != rank) break;
        int begin = pixel(g, c), length = pixel(g, next) - begin;
        for (int side = 0; side < 2; side++) {
            strbuf_printf(g->out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"",
                          side ? begin : -14, side ? -14 : begin, side ? length : 8,
                          side ? 8 : length);
            print_colour(rank_colour(g, colour_of(g, rank)), 0, 1, g->out);
            strbuf_printf(g->out, "\"/>\n");
        }
    }
}

static void print_tokens(int64_t n, StrBuf *out) {
    if (n > 0 && n % (1 << 20) == 0)
        strbuf_printf(out, "%" PRId64 "M", n >> 20);
    else if (n > 0 && n % (1 << 10) == 0)
        strbuf_printf(out, "%" PRId64 "k", n >> 10);
    else
        strbuf_printf(out, "%" PRId64, n);
}

static void draw_axes(const Picture *g) {
    int64_t padded = g->p->dispatch.padded, step = 1;
    while (8 * step < padded) step *= 2;
    strbuf_printf(g->out, "<rect width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"%s\"/>\n", PLOT,
                  PLOT, FAINT);
    for (int64_t t = 0; t <= padded; t += step) {
        int at = (int)(PLOT * t / padded);
        strbuf_printf(g->out, "<text x=\"-20\" y=\"%d\" text-anchor=\"end\">", at + 4);
        print_tokens(t, g->out);
        strbuf_printf(g->out, "</text><text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", at,
                      PLOT + 17);
        print_tokens(t, g->out);
        strbuf_printf(g->out, "</text>\n");
    }
    strbuf_printf(g->out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" fill=\"%s\">key</text>\n",
                  PLOT / 2, PLOT + 34, FAINT);
    strbuf_printf(g->out,
                  "<text transform=\"translate(-62 %d) rotate(-90)\" text-anchor=\"middle\" "
                  "fill=\"%s\">query</text>\n",
                  PLOT / 2, FAINT);
}

/* ---- legend -------------------------------------------------------------------------------- */

static void swatch(const Picture *g, double x, double y, double width, Rgb c, int shade) {
    strbuf_printf(g->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"12\" fill=\"", x, y,
                  width);
    print_colour(c, shade, g->shades, g->out);
    strbuf_printf(g->out, "\"/>\n");
}

/* How many ranks are shown, and which. */
static int lanes(const Picture *g) {
    return (int)i64_min(g->p->P, MAX_LANES);
}
static int lane_rank(const Picture *g, int i) {
    return (int)((int64_t)i * g->p->P / lanes(g));
}

static void draw_ranks(const Picture *g, double mean_area) {
    int n = lanes(g);
    strbuf_printf(g->out,
                  "<g fill=\"%s\"><text x=\"0\" y=\"-4\">rank</text>"
                  "<text x=\"104\" y=\"-4\" text-anchor=\"end\">area / mean</text>"
                  "<text x=\"200\" y=\"-4\" text-anchor=\"end\">rows received</text></g>\n",
                  FAINT);
    for (int i = 0; i < n; i++) {
        const RankSummary *r = &g->p->ranks[lane_rank(g, i)];
        int y = 6 + 20 * i;
        swatch(g, 0, y, 12, rank_colour(g, colour_of(g, lane_rank(g, i))), 0);
        strbuf_printf(g->out,
                      "<text x=\"18\" y=\"%d\">%d</text>"
                      "<text x=\"104\" y=\"%d\" text-anchor=\"end\">%.3f</text>"
                      "<text x=\"200\" y=\"%d\" text-anchor=\"end\">%" PRId64 "</text>\n",
                      y + 10, lane_rank(g, i), y + 10,
                      mean_area > 0 ? (double)r->area / mean_area : 1.0, y + 10, r->recv_rows);
    }
}

static void draw_stages(const Picture *g, int y) {
    const Rgb grey = {0.3, 0.33, 0.37};
    bool exact = g->p->P <= PLAN_EXACT_RANKS;
    double width = g->shades > 4 ? 160.0 / g->shades : 36;
    strbuf_printf(g->out, "<text x=\"0\" y=\"%d\" fill=\"%s\">%s</text>\n", y, FAINT,
                  g->p->n_stages == 1 ? "all keys in one stage"
                  : exact             ? "stage in which a key is used"
                                      : "local and remote keys");
    if (g->p->n_stages == 1) return;
    for (int i = 0; i < g->shades; i++) swatch(g, i * width, y + 8, width - 2, grey, i);
    char last[16] = "remote";
    if (exact) snprintf(last, sizeof last, "%d", g->p->n_stages - 1);
    strbuf_printf(g->out,
                  "<text x=\"0\" y=\"%d\">%s</text>"
                  "<text x=\"%.1f\" y=\"%d\" text-anchor=\"end\">%s</text>\n",
                  y + 34, exact ? "0 (local)" : "local", g->shades * width - 2, y + 34, last);
}

/* ---- timelines ----------------------------------------------------------------------------- */

/* The intervals of one look as one path, joined where no gap between them could be seen. */
static void draw_intervals(const Picture *g, const CostTimeline *t, const char *what, int shade,
                           double x, double y, double scale) {
    bool compute = strcmp(what, "attention") == 0;
    int height = compute ? 10 : 4;
    double begin = 0, end = -1; /* pixels; end < begin: none yet */
    for (int i = 0; i <= t->n_intervals; i++) {
        bool last = i == t->n_intervals;
        const CostInterval *c = last ? NULL : &t->intervals[i];
        if (!last && (strcmp(c->what, what) != 0 || (compute && shade_of(g, c->stage) != shade)))
            continue;
        if (!last && end >= begin && scale * c->begin - end < 0.4) {
            end = scale * c->end;
            continue;
        }
        if (end >= begin) {
            double width = fmax(0.5, end - begin);
            strbuf_printf(g->out, "M%.1f %.1fh%.1fv%dh-%.1fz", x + begin, compute ? y : y + 11,
                          width, height, width);
        }
        if (last) return;
        begin = scale * c->begin;
        end = scale * c->end;
    }
}

static void draw_lane(const Picture *g, const CostTimeline *t, int rank, double x, double y,
                      double scale) {
    Rgb colour = rank_colour(g, colour_of(g, rank));
    for (int shade = 0; shade < g->shades; shade++) {
        strbuf_printf(g->out, "<path fill=\"");
        print_colour(colour, shade, g->shades, g->out);
        strbuf_printf(g->out, "\" d=\"");
        draw_intervals(g, t, "attention", shade, x, y, scale);
        strbuf_printf(g->out, "\"/>\n");
    }
    strbuf_printf(g->out, "<path fill=\"%s\" d=\"", FETCH);
    draw_intervals(g, t, "in", 0, x, y, scale);
    strbuf_printf(g->out, "\"/><path fill=\"%s\" d=\"", GIVE);
    draw_intervals(g, t, "out", 0, x, y, scale);
    strbuf_printf(g->out, "\"/>\n");
}

/* A time axis of n lanes' height in steps of 1, 2 or 5. */
static void draw_time_axis(const Picture *g, const char *name, double seconds, double x,
                           double scale, int n) {
    double step = pow(10, floor(log10(60 / scale)));
    while (step * scale < 60) step *= step * scale * 2 < 60 && step * scale * 5 >= 60 ? 5 : 2;
    bool milli = step >= 1e-3;
    strbuf_printf(g->out, "<text x=\"%.1f\" y=\"-8\">%s</text>\n", x, name);
    for (int i = 0; i * step <= seconds; i++) {
        double at = x + i * step * scale;
        strbuf_printf(g->out,
                      "<path stroke=\"#e3e6ea\" d=\"M%.1f 0v%d\"/>"
                      "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"%s\">%g%s</text>\n",
                      at, n * LANE, at, n * LANE + 15, FAINT, i * step * (milli ? 1e3 : 1e6),
                      i == 0  ? ""
                      : milli ? " ms"
                              : " us");
    }
}

static void draw_timelines(const Picture *g) {
    int n = lanes(g);
    RankTimes *t = NEW(RankTimes, n);
    double forward = 0, backward = 0;
    for (int i = 0; i < n; i++) {
        t[i] = plan_rank_times(g->p, lane_rank(g, i), g->cost, true);
        forward = fmax(forward, t[i].forward.seconds);
        backward = fmax(backward, t[i].backward.seconds);
    }
    double scale = forward + backward > 0 ? (LANES_WIDTH - LANES_GAP) / (forward + backward) : 0;
    double x = forward * scale + LANES_GAP; /* of the backward */
    if (scale > 0) {
        draw_time_axis(g, "forward", forward, 0, scale, n);
        draw_time_axis(g, "backward", backward, x, scale, n);
    }
    for (int i = 0; i < n; i++) {
        int rank = lane_rank(g, i);
        strbuf_printf(g->out, "<text x=\"-10\" y=\"%d\" text-anchor=\"end\">%d</text>\n",
                      i * LANE + 12, rank);
        draw_lane(g, &t[i].forward, rank, 0, i * LANE + 2, scale);
        draw_lane(g, &t[i].backward, rank, x, i * LANE + 2, scale);
        rank_times_free(&t[i]);
    }
    free(t);
}

/* ---- the whole ----------------------------------------------------------------------------- */

static void draw_title(const Picture *g, PlanSummary s) {
    const AttnPlan *p = g->p;
    strbuf_printf(g->out,
                  "<text x=\"%d\" y=\"24\" font-size=\"15\" font-weight=\"600\">%s over %d rank%s, "
                  "%" PRId64 " tokens, %s dispatch</text>\n",
                  PLOT_X - 14, cp_backend_names[p->backend], p->P, p->P == 1 ? "" : "s",
                  p->dispatch.S, dispatch_kind_names[p->dispatch.kind]);
    strbuf_printf(
        g->out,
        "<text x=\"%d\" y=\"42\" fill=\"%s\">%d stage%s, imbalance %.1f %%, %.1f %% of the "
        "rows that a ring moves%s</text>\n",
        PLOT_X - 14, FAINT, p->n_stages, p->n_stages == 1 ? "" : "s", 100 * s.imbalance,
        s.ring_rows > 0 ? 100 * (double)s.recv_rows / (double)s.ring_rows : 0.0,
        cp_backend_is(p->backend, BACKEND_SPLITS_HEADS)
            ? "; every rank computes all of it for its heads, colours are holders"
            : "");
}

void plan_svg(const AttnPlan *p, const CostModel *m, StrBuf *out) {
    Picture g = {.p = p, .cost = m, .out = out, .colours = (int)i64_min(p->P, MAX_COLOURS)};
    g.shades = shade_of(&g, p->n_stages - 1) + 1;
    PlanSummary s = plan_summary(p);
    make_grid(&g);
    int lanes_y = PLOT_Y + PLOT + 96, height = lanes_y + lanes(&g) * LANE + 32;
    strbuf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                  "height=\"%d\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"11\" "
                  "fill=\"%s\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                  WIDTH, height, WIDTH, height, INK);
    draw_title(&g, s);
    strbuf_printf(out, "<g transform=\"translate(%d %d)\"><g shape-rendering=\"crispEdges\">\n",
                  PLOT_X, PLOT_Y);
    draw_cells(&g);
    draw_owners(&g);
    strbuf_printf(out, "</g>\n");
    draw_axes(&g);
    strbuf_printf(out, "</g>\n<g transform=\"translate(%d %d)\">\n", LEGEND_X, PLOT_Y);
    draw_ranks(&g, (double)s.area / p->P);
    draw_stages(&g, 20 * lanes(&g) + 30);
    strbuf_printf(out,
                  "</g>\n<text x=\"%d\" y=\"%d\" fill=\"%s\">Predicted for a layer's attention%s: "
                  "computing (coloured), fetching (light) and returning (dark)</text>\n",
                  PLOT_X - 14, lanes_y - 30, FAINT,
                  p->P > MAX_LANES ? " on some of the ranks" : "");
    strbuf_printf(out, "<g transform=\"translate(%d %d)\">\n", LANES_X, lanes_y);
    draw_timelines(&g);
    strbuf_printf(out, "</g>\n</svg>\n");
    free(g.edge);
}
