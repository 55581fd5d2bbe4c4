#include "bench/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/svg.h"

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

static void draw_legend(StrBuf *out) {
    int x = LEFT;
    for (size_t i = 0; i < sizeof legend / sizeof *legend; i++) {
        bool thin = legend[i] == METER_TRANSFER;
        svg_rect(out, x, thin ? 34 : 30, 14, thin ? THIN : BAR, looks[legend[i]].fill[0]);
        svg_text(out, x + 19, 41, SVG_START, NULL, "%s", looks[legend[i]].name);
        x += 150;
    }
}

/* Numbers of the stages where they fit. */
static void draw_rank(const Timeline *t, int rank, int y, double scale, StrBuf *out) {
    int stage[METER_CLASSES] = {0};
    svg_text(out, -8, y + 11, SVG_END, NULL, "rank %d", rank);
    for (int64_t i = 0; i < t->counts[rank]; i++) {
        const MeterSpan *s = &t->spans[rank * t->most + i];
        MeterClass look = look_of(s->class);
        bool attention = look == METER_ATTENTION_FWD || look == METER_ATTENTION_BWD;
        double x = scale * s->begin, width = fmax(0.4, scale * (s->end - s->begin));
        int k = stage[look]++;
        if (look == METER_TRANSFER)
            svg_rect(out, x, y + BAR + 2, width, THIN, looks[look].fill[0]);
        else
            svg_rect(out, x, y, width, BAR, looks[look].fill[attention ? k % 2 : 0]);
        if (attention && width > LABEL)
            svg_text(out, x + 0.5 * width, y + 10, SVG_MIDDLE, NULL, "%d", k);
    }
}

static double length_of(const Timeline *t) {
    double end = 1e-6;
    for (int r = 0; r < t->ranks; r++)
        for (int64_t i = 0; i < t->counts[r]; i++) end = fmax(end, t->spans[r * t->most + i].end);
    return end;
}

void timeline_svg(const Timeline *t, int n, StrBuf *out) {
    int height = TOP;
    for (int i = 0; i < n; i++) height += TITLE + t[i].ranks * LANE + AXIS;
    svg_begin(out, WIDTH, height);
    svg_text(out, LEFT, 20, SVG_START, NULL,
             "Attention of one layer, forward and backward, as measured. Numbers: stages, in "
             "the order in which keys arrive. White: the host.");
    draw_legend(out);
    for (int i = 0, y = TOP; i < n; i++) {
        double length = 0; /* ms */
        for (int k = 0; k < n; k++)
            if (t[k].scale == t[i].scale) length = fmax(length, length_of(&t[k]));
        double scale = PLOT / length;
        svg_group_begin(out, LEFT, y);
        svg_text(out, 0, 14, SVG_START, NULL, "%s", t[i].title);
        for (int r = 0; r < t[i].ranks; r++) draw_rank(&t[i], r, TITLE + r * LANE, scale, out);
        svg_time_axis(out, 0, TITLE + t[i].ranks * LANE, 4, length / 1e3, 1e3 * scale);
        svg_group_end(out);
        y += TITLE + t[i].ranks * LANE + AXIS;
    }
    svg_end(out);
}
