#include "health/slow_rank.h"

#include <stdlib.h>
#include <string.h>

#include "base/median.h"

void phases_spread(const double *ms, int world, PhaseSpread *spread) {
    double *x = NEW(double, world);
    for (int p = 0; p < PHASES; p++) {
        PhaseSpread *s = &spread[p];
        s->rank = 0;
        for (int r = 0; r < world; r++) {
            x[r] = ms[r * PHASES + p];
            if (x[r] > x[s->rank]) s->rank = r;
        }
        s->median = median(x, world); /* sorts */
        s->min = x[0];
        s->max = x[world - 1];
    }
    free(x);
}

static double compute_of(const double *ms) {
    return ms[PHASE_FORWARD] + ms[PHASE_BACKWARD] + ms[PHASE_OPTIMIZER];
}

void slow_ranks_init(SlowRanks *s, int world) {
    *s = (SlowRanks){.world = world, .compute_ms = NEW(double, world), .behind = NEW(int, world)};
}

void slow_ranks_free(SlowRanks *s) {
    free(s->compute_ms);
    free(s->behind);
    *s = (SlowRanks){0};
}

static void add(SlowRanks *s, const double *ms) {
    double *sorted = NEW(double, s->world);
    for (int r = 0; r < s->world; r++) sorted[r] = compute_of(ms + r * PHASES);
    median(sorted, s->world); /* sorts */
    double middle = sorted[(s->world - 1) / 2];
    for (int r = 0; r < s->world; r++) {
        double own = compute_of(ms + r * PHASES);
        s->compute_ms[r] += own;
        s->behind[r] += own > SLOW_FACTOR * middle;
    }
    s->median_ms += middle;
    s->records++;
    free(sorted);
}

bool slow_ranks_add(SlowRanks *s, const double *ms, SlowRecord *found) {
    add(s, ms);
    if (s->records < SLOW_RECORDS) return false;
    int slowest = -1;
    for (int r = 0; r < s->world; r++)
        if (s->behind[r] >= SLOW_RECORDS_MIN && s->compute_ms[r] > SLOW_FACTOR * s->median_ms &&
            (slowest < 0 || s->compute_ms[r] > s->compute_ms[slowest]))
            slowest = r;
    if (slowest >= 0)
        *found = (SlowRecord){.rank = slowest,
                              .compute_ms = s->compute_ms[slowest] / s->records,
                              .median_ms = s->median_ms / s->records,
                              .records = s->records};
    s->records = 0;
    s->median_ms = 0;
    memset(s->compute_ms, 0, (size_t)s->world * sizeof *s->compute_ms);
    memset(s->behind, 0, (size_t)s->world * sizeof *s->behind);
    return slowest >= 0;
}
