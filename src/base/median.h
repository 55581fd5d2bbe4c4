/* median.h: order statistics of measured values. */
#ifndef CRIA_BASE_MEDIAN_H
#define CRIA_BASE_MEDIAN_H

#include "base/base.h"

/* Sorts x[n], n > 0, and interpolates between neighbours: share 0.5 is the median. */
double quantile(double *x, int n, double share);
static inline double median(double *x, int n) {
    return quantile(x, n, 0.5);
}

#endif
