/* phase_log.h: from the phases of a rank's stream to those of all ranks in the log. With log.phases
 * false there is nothing of it. */
#ifndef CRIA_TRAIN_PHASE_LOG_H
#define CRIA_TRAIN_PHASE_LOG_H

#include "health/slow_rank.h"
#include "session/session.h"

typedef struct {
    int64_t step;               /* of the last record */
    double *ms;                 /* [world][PHASES] per step; NULL: off */
    PhaseSpread spread[PHASES]; /* what the record of a step points to */
    SlowRanks slow;
    bool found; /* a slow rank, of which the log is to be told */
    SlowRecord record;
} PhaseLog;
/* Times s->stream from here on, after `step` steps. Collective. */
Status phase_log_open(PhaseLog *l, Session *s, int64_t step);
/* Waits for the stream, and takes what was timed since the last record. */
Status phase_log_take(PhaseLog *l, Session *s);
/* Gathers that of all ranks: fills r->phases. Collective. */
Status phase_log_fill(PhaseLog *l, const Session *s, StepRecord *r);
/* Tells the sinks of a rank that stays behind. */
void phase_log_warn(PhaseLog *l, int64_t step, Sink *sink);
void phase_log_close(PhaseLog *l, Session *s);

#endif
