/* plan_svg.h: a picture of a plan. The mask, queries down and keys across: a pair has the colour of
 * the rank that computes it, lighter the later the stage in which the key's rows arrive. Beside it
 * what every rank computes and receives, below the predicted timeline of each rank. */
#ifndef CRIA_REPORT_PLAN_SVG_H
#define CRIA_REPORT_PLAN_SVG_H

#include "attn/plan.h"

/* Appends an SVG document: n plans of the same mask and ranks side by side, their timelines to one
 * scale. The mask is drawn in at most 256 x 256 cells, a cell stronger the more of its pairs are
 * allowed, with lines where documents or sequences meet; beyond 16 ranks lanes and legend show some
 * of them, beyond PLAN_EXACT_RANKS stages are told apart as local and remote only. */
void plan_svg(const AttnPlan *const *plans, int n, const CostModel *m, StrBuf *out);

#endif
