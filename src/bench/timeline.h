/* timeline.h: a picture of what ranks did and when, as measured: a lane for each rank, what its
 * stream computed and below it what it moved. */
#ifndef CRIA_BENCH_TIMELINE_H
#define CRIA_BENCH_TIMELINE_H

#include "bench/meter.h"

typedef struct {
    char *title;
    int scale; /* timelines of one number are drawn to one scale */
    int ranks;
    int64_t *counts;  /* [ranks] spans of each */
    int64_t most;     /* of the counts */
    MeterSpan *spans; /* [ranks][most]; op is not set */
} Timeline;

/* Collective over `host`: what each of its first `ranks` ranks measured last, on rank 0. title is
 * taken over. */
Status timeline_gather(Timeline *out, Comm *host, int ranks, const Meter *m, char *title,
                       int scale);
void timeline_free(Timeline *t);

/* Appends an SVG document, one timeline below the other. */
void timeline_svg(const Timeline *t, int n, StrBuf *out);

#endif
