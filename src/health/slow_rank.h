/* slow_rank.h: what the phases of all ranks say: how they spread, and which rank stays behind.
 * Functions of numbers that were gathered; ms[world][PHASES] are milliseconds per step. */
#ifndef CRIA_HEALTH_SLOW_RANK_H
#define CRIA_HEALTH_SLOW_RANK_H

#include "metrics/sink.h"

/* spread[PHASES] */
void phases_spread(const double *ms, int world, PhaseSpread *spread);

/* A rank is slow if, over SLOW_RECORDS step records, its compute time (forward, backward and
 * optimizer: neither waiting nor data) is more than SLOW_FACTOR times the ranks' median on average
 * and in SLOW_RECORDS_MIN of them: one long pause is none. */
enum { SLOW_RECORDS = 20, SLOW_RECORDS_MIN = 15 };
#define SLOW_FACTOR 1.1

typedef struct {
    int world, records;
    double median_ms;   /* sum over the records */
    double *compute_ms; /* [world] the same */
    int *behind;        /* [world] records in which it was */
} SlowRanks;

void slow_ranks_init(SlowRanks *s, int world);
void slow_ranks_free(SlowRanks *s);
/* Adds a record. Every SLOW_RECORDS of them it judges these and begins again: true when a rank is
 * slow; *found is then the slowest, without step, node and message. Of an even number of ranks the
 * median is the lower of the two, so that of two ranks one can be slow. */
bool slow_ranks_add(SlowRanks *s, const double *ms, SlowRecord *found);

#endif
