/* plan_svg_mask.c: the mask of a plan: cells in the colours of ranks and the shades of stages. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/plan_picture.h"

enum { PLOT = PLAN_PLOT, MAX_CELLS = 256, SHADES = 8, LEVELS = 4 };

/* ---- colours ------------------------------------------------------------------------------- */

Colour plan_mix(const double rgb[3], int shade, int shades) {
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
    return plan_mix(rgb, shade, g->shades);
}

Colour plan_rank_colour(const Picture *g, int rank, int shade) {
    return shaded(g, colour_of(g, rank), shade);
}

int plan_shade(const Picture *g, int stage) {
    int stages = g->p->n_stages;
    if (g->p->P > PLAN_EXACT_RANKS) return stage > 0;
    return stages <= SHADES ? stage : (int)((int64_t)stage * SHADES / stages);
}

/* ---- cells --------------------------------------------------------------------------------- */

void plan_make_grid(Picture *g) {
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
            int shade = plan_shade(g, i);
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
        Colour colour = plan_rank_colour(g, rank, 0);
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

void plan_draw_mask(const Picture *g) {
    strbuf_printf(g->out, "<g shape-rendering=\"crispEdges\">\n");
    draw_cells(g);
    draw_owners(g);
    svg_group_end(g->out);
    draw_borders(g);
    draw_axes(g);
}
