/* baseline.h: holds what a benchmark measures against a recorded table, as shares of the rate of a
 * matrix product that was measured with it in the same state: GPUs of one name differ by what their
 * power limit lets them clock, and these shares do not. */
#ifndef CRIA_BENCH_BASELINE_H
#define CRIA_BENCH_BASELINE_H

#include "base/base.h"

typedef struct Baseline Baseline;

/* `path`: rows as --json prints them, one a line; several of one case are several measurements.
 * quiet: only baseline_finish says what was worse. ERR_USER when it is not such a file. */
Status baseline_open(Baseline **out, const char *path, bool quiet);
void baseline_free(Baseline *b);

/* row: a JSON object as --json prints it. Each of its "*_of_gemm" is compared with the recorded
 * rows whose texts and counts are the same, and the change is reported in one line. It is worse
 * when it is below the lowest recorded share by more than 2 % and by more than twice the spread of
 * the calls that either was the median of. */
void baseline_compare(Baseline *b, const char *row);

/* ERR_ENV when a share was worse or nothing could be compared. */
Status baseline_finish(const Baseline *b);

#endif
