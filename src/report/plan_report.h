/* plan_report.h: what a plan amounts to, for people and for programs: who computes and moves how
 * much, and the times that the cost model predicts. */
#ifndef CRIA_REPORT_PLAN_REPORT_H
#define CRIA_REPORT_PLAN_REPORT_H

#include "attn/plan.h"

/* Up to this many ranks predictions use every rank's stages as they are; above, equal stages. */
#define PLAN_EXACT_RANKS 64

/* Predicted time of one layer's attention on one rank. */
typedef struct {
    CostTimeline forward, backward;
} RankTimes;
RankTimes plan_rank_times(const AttnPlan *p, int rank, const CostModel *m, bool intervals);
void rank_times_free(RankTimes *t);

/* `plan`, compared with other backends' plans for the same mask and ranks. */
typedef struct {
    const AttnPlan *plan;
    const AttnPlan *others;
    int n_others;
    const CostModel *cost;
} PlanReport;

/* Figures, a table of ranks (beyond 16: least, mean, most), a table of backends, and the timeline
 * of the slowest rank as bars. */
void plan_report_text(const PlanReport *r, StrBuf *out);

/* One JSON object. Rows and bytes are per layer, summed over ranks where no rank is named.
 *   {"backend","ranks","ranks_per_node","hash","tokens","padded_tokens","chunk","chunks","dispatch",
 *    "rows_per_rank","degree","stages","bands" (of the mask),"area","imbalance" (most / mean - 1),
 *    "recv_rows","ring_rows","bytes":{"forward","backward"},"ring_bytes": of ring and all-gather,
 *    "per_rank":[{"rank","area","local_area","needed_rows","recv_rows","send_rows",
 *                 "forward_seconds","backward_seconds"}],
 *    "prediction":{"exact": not equal stages,"slowest_rank","forward":TIMES,"backward":TIMES},
 *    "backends":[{"backend","degree","imbalance","bytes","forward":TIMES,"backward":TIMES}]}
 * TIMES: {"seconds","compute","exposed"}, and in the prediction "intervals":[{"begin","end",
 * "stream":"compute"|"comm","stage","what":"attention"|"in"|"out"}]. */
void plan_report_json(const PlanReport *r, StrBuf *out);

#endif
