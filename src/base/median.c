#include "base/median.h"

#include <stdlib.h>

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double quantile(double *x, int n, double share) {
    REQUIRE(n > 0 && share >= 0 && share <= 1);
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    double at = share * (n - 1);
    int i = (int)at;
    return i + 1 < n ? x[i] + (at - i) * (x[i + 1] - x[i]) : x[i];
}
