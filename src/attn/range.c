#include "attn/range.h"

#include <stdlib.h>

#include "base/base.h"

void range_list_add(RangeList *list, int32_t begin, int32_t end) {
    if (begin >= end) return;
    GROW(list->ranges, list->n, list->cap);
    list->ranges[list->n++] = (Range){begin, end};
}

void range_list_free(RangeList *list) {
    free(list->ranges);
    *list = (RangeList){0};
}

static int compare_begin(const void *a, const void *b) {
    int32_t x = ((const Range *)a)->begin, y = ((const Range *)b)->begin;
    return (x > y) - (x < y);
}

/* Insertion sort, which is linear on what plans produce; hands over when it is not. */
static void sort_ranges(Range *ranges, int64_t n) {
    int64_t moves = 0;
    for (int64_t i = 1; i < n; i++) {
        Range r = ranges[i];
        int64_t j = i;
        for (; j > 0 && ranges[j - 1].begin > r.begin; j--) ranges[j] = ranges[j - 1];
        ranges[j] = r;
        moves += i - j;
        if (moves > 8 * n) {
            qsort(ranges, (size_t)n, sizeof(Range), compare_begin);
            return;
        }
    }
}

int64_t range_normalize(Range *ranges, int64_t n) {
    sort_ranges(ranges, n);
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++) {
        if (ranges[i].begin >= ranges[i].end) continue;
        if (out > 0 && ranges[i].begin <= ranges[out - 1].end) {
            if (ranges[i].end > ranges[out - 1].end) ranges[out - 1].end = ranges[i].end;
        } else {
            ranges[out++] = ranges[i];
        }
    }
    return out;
}

void range_subtract(RangeList *out, const Range *a, int64_t n_a, const Range *b, int64_t n_b) {
    int64_t j = 0;
    for (int64_t i = 0; i < n_a; i++) {
        int32_t begin = a[i].begin;
        while (j < n_b && b[j].end <= begin) j++;
        for (; j < n_b && b[j].begin < a[i].end; j++) {
            range_list_add(out, begin, b[j].begin);
            begin = b[j].end;
            if (begin >= a[i].end) break; /* b[j] may reach into the next range of a */
        }
        range_list_add(out, begin, a[i].end);
    }
}

int64_t range_total(const Range *ranges, int64_t n) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) total += ranges[i].end - ranges[i].begin;
    return total;
}

int64_t range_find(const Range *ranges, int64_t n, int32_t token) {
    int64_t low = 0;
    while (low < n) {
        int64_t mid = (low + n) / 2;
        if (ranges[mid].end <= token)
            low = mid + 1;
        else
            n = mid;
    }
    return low;
}
