#include "bench/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- from all ranks ------------------------------------------------------------------------ */

enum { FIELDS = 3 }; /* class, begin, end */

/* A small op of the backward; the picture counts stages by the others of its class. */
static MeterClass class_of(const MeterSpan *s) {
    return strcmp(s->op, "attention_delta") == 0 ? METER_OTHER : s->class;
}

Status timeline_gather(Timeline *out, Comm *host, int ranks, const Meter *m, char *title,
                       int scale) {
    const MeterSpan *mine;
    int64_t n = meter_spans(m, &mine), *counts = NEW(int64_t, host->size), most = 0;
    double *all = NULL;
    *out = (Timeline){.title = title, .scale = scale, .ranks = ranks, .counts = counts};
    counts[host->rank] = n;
    Status st;
    CHECK_GOTO(comm_all_gather(host, counts, 1, DT_I64, COMM_KIND_OTHER, NULL), done);
    for (int r = 0; r < host->size; r++) most = i64_max(most, counts[r]);
    all = NEW(double, host->size *most *FIELDS);
    for (int64_t i = 0; i < n; i++) {
        double *at = all + (host->rank * most + i) * FIELDS;
        at[0] = class_of(&mine[i]);
        at[1] = mine[i].begin;
        at[2] = mine[i].end;
    }
    CHECK_GOTO(comm_all_gather(host, all, most * FIELDS, DT_F64, COMM_KIND_OTHER, NULL), done);
    out->most = most;
    out->spans = NEW(MeterSpan, ranks * most);
    for (int64_t i = 0; i < ranks * most; i++)
        out->spans[i] = (MeterSpan){.class = (MeterClass)all[i * FIELDS],
                                    .begin = all[i * FIELDS + 1],
                                    .end = all[i * FIELDS + 2]};
done:
    free(all);
    return st;
}

void timeline_free(Timeline *t) {
    free(t->title);
    free(t->counts);
    free(t->spans);
    *t = (Timeline){0};
}

/* ---- the picture --------------------------------------------------------------------------- */

/* Pixels. */
enum { WIDTH = 1080, LEFT = 64, PLOT = WIDTH - LEFT - 24, TOP = 64 };
enum { TITLE = 26, BAR = 13, THIN = 5, LANE = 26, AXIS = 34, LABEL = 14 };

#define INK   "#22262b"
#define FAINT "#6b7480"

/* Stages alternate between two shades. */
static const struct {
    const char *name, *fill[2];
} looks[METER_CLASSES] = {[METER_ATTENTION_FWD] = {"attention forward", {"#4e79a7", "#7fa3c9"}},
                          [METER_ATTENTION_BWD] = {"attention backward", {"#f28e2b", "#f7b56f"}},
                          [METER_OTHER] = {"other ops", {"#8c6d5a", "#8c6d5a"}},
                          [METER_EXPOSED] = {"waits", {"#f3c6cc", "#f3c6cc"}},
                          [METER_TRANSFER] = {"transfer", {"#5f6b7a", "#5f6b7a"}}};

static const MeterClass legend[] = {METER_ATTENTION_FWD, METER_ATTENTION_BWD, METER_OTHER,
                                    METER_EXPOSED, METER_TRANSFER};

static MeterClass look_of(MeterClass class) {
    return looks[class].name != NULL ? class : METER_OTHER;
}

static void rectangle(StrBuf *out, double x, int y, double width, int height, const char *fill) {
    strbuf_printf(out, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\"/>\n", x,
                  y, width, height, fill);
}

static void draw_legend(StrBuf *out) {
    int x = LEFT;
    for (size_t i = 0; i < sizeof legend / sizeof *legend; i++) {
        bool thin = legend[i] == METER_TRANSFER;
        rectangle(out, x, thin ? 34 : 30, 14, thin ? THIN : BAR, looks[legend[i]].fill[0]);
        strbuf_printf(out, "<text x=\"%d\" y=\"41\">%s</text>\n", x + 19, looks[legend[i]].name);
        x += 150;
    }
}

/* Numbers of the stages where they fit. */
static void draw_rank(const Timeline *t, int rank, int y, double scale, StrBuf *out) {
    int stage[METER_CLASSES] = {0};
    strbuf_printf(out, "<text x=\"-8\" y=\"%d\" text-anchor=\"end\">rank %d</text>\n", y + 11,
                  rank);
    for (int64_t i = 0; i < t->counts[rank]; i++) {
        const MeterSpan *s = &t->spans[rank * t->most + i];
        MeterClass look = look_of(s->class);
        bool attention = look == METER_ATTENTION_FWD || look == METER_ATTENTION_BWD;
        double x = scale * s->begin, width = fmax(0.4, scale * (s->end - s->begin));
        int k = stage[look]++;
        if (look == METER_TRANSFER)
            rectangle(out, x, y + BAR + 2, width, THIN, looks[look].fill[0]);
        else
            rectangle(out, x, y, width, BAR, looks[look].fill[attention ? k % 2 : 0]);
        if (attention && width > LABEL)
            strbuf_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
                          x + 0.5 * width, y + 10, k);
    }
}

/* 1, 2 or 5 times a power of ten: four to ten ticks. */
static double tick_of(double length) {
    double step = pow(10, floor(log10(length / 4)));
    return 5 * step <= length / 4 ? 5 * step : 2 * step <= length / 4 ? 2 * step : step;
}

static void draw_axis(int y, double length, double scale, StrBuf *out) {
    double tick = tick_of(length);
    for (int i = 0; i * tick <= length; i++)
        strbuf_printf(out,
                      "<path d=\"M%.2f %dv4\" stroke=\"" FAINT "\"/><text x=\"%.2f\" y=\"%d\" "
                      "text-anchor=\"middle\" fill=\"" FAINT "\">%.4g%s</text>\n",
                      scale * i * tick, y, scale * i * tick, y + 16, i * tick, i == 0 ? " ms" : "");
}

static double length_of(const Timeline *t) {
    double end = 1e-6;
    for (int r = 0; r < t->ranks; r++)
        for (int64_t i = 0; i < t->counts[r]; i++) end = fmax(end, t->spans[r * t->most + i].end);
    return end;
}

static void print_escaped(const char *text, StrBuf *out) {
    for (; *text != '\0'; text++) {
        if (strchr("<>&", *text) != NULL)
            strbuf_printf(out, "&#%d;", *text);
        else
            strbuf_append(out, text, 1);
    }
}

void timeline_svg(const Timeline *t, int n, StrBuf *out) {
    int height = TOP;
    for (int i = 0; i < n; i++) height += TITLE + t[i].ranks * LANE + AXIS;
    strbuf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                  "height=\"%d\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"11\" "
                  "fill=\"" INK "\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
                  "<text x=\"%d\" y=\"20\" font-size=\"13\">Attention of one layer, forward and "
                  "backward, as measured</text>\n",
                  WIDTH, height, WIDTH, height, LEFT);
    draw_legend(out);
    for (int i = 0, y = TOP; i < n; i++) {
        double length = 0;
        for (int k = 0; k < n; k++)
            if (t[k].scale == t[i].scale) length = fmax(length, length_of(&t[k]));
        double scale = PLOT / length;
        strbuf_printf(out, "<g transform=\"translate(%d %d)\">\n<text y=\"14\">", LEFT, y);
        print_escaped(t[i].title, out);
        strbuf_printf(out, "</text>\n");
        for (int r = 0; r < t[i].ranks; r++) draw_rank(&t[i], r, TITLE + r * LANE, scale, out);
        draw_axis(TITLE + t[i].ranks * LANE, length, scale, out);
        strbuf_printf(out, "</g>\n");
        y += TITLE + t[i].ranks * LANE + AXIS;
    }
    strbuf_printf(out, "</svg>\n");
}
