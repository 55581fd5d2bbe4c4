/* estimate.h: what a run will cost, before it starts: time, from the FLOPs of its matrix products
 * and the cost model of attention, and memory against what cards hold. For `cria plan` and
 * --dry-run. */
#ifndef CRIA_REPORT_ESTIMATE_H
#define CRIA_REPORT_ESTIMATE_H

#include "attn/plan.h"
#include "session/session.h"

/* There are no rates for CPUs. */
bool estimate_is_made(const Session *s);

typedef struct {
    double step_seconds, tok_s /* of all ranks */, run_seconds;
} RunEstimate;

/* Of H200s. p: the plan of a micro-batch. Left out: communication of gradients, loading.
 * run_seconds is of the steps that the session's configuration holds for. */
RunEstimate run_estimate(const Session *s, const AttnPlan *p, const CostModel *m);
/* The same for the plan of whole sequences, without documents. */
Status run_estimate_sequences(const Session *s, RunEstimate *e);
/* "2.4 days" */
void estimate_print_duration(double seconds, StrBuf *out);

/* Lines for people: speed, time, memory against cards, and which keys to change where a card is too
 * small or mostly empty. p NULL: the plan of whole sequences, without documents. On CPUs one line
 * says that nothing is estimated. */
void run_estimate_text(const Session *s, const AttnPlan *p, StrBuf *out);

#endif
