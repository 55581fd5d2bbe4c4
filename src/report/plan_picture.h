/* plan_picture.h: what plan_svg.c and plan_svg_mask.c share. Private to src/report. */
#ifndef CRIA_REPORT_PLAN_PICTURE_H
#define CRIA_REPORT_PLAN_PICTURE_H

#include "report/plan_report.h"
#include "report/svg.h"

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

typedef struct {
    char text[8];
} Colour;
/* rgb from 0 to 1. Shade 0 in full, the last of `shades` mostly white. */
Colour plan_mix(const double rgb[3], int shade, int shades);
Colour plan_rank_colour(const Picture *g, int rank, int shade);
int plan_shade(const Picture *g, int stage);

enum { PLAN_PLOT = 512 }; /* pixels of the mask's sides */
/* Sets n and edge. */
void plan_make_grid(Picture *g);
/* The mask, who holds its tokens, axes: from (-76, -14) to (PLAN_PLOT, PLAN_PLOT + 34). */
void plan_draw_mask(const Picture *g);

#endif
