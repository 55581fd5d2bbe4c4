/* tiles_fwd.c: how long a forward takes, and which of its tiles are worth splitting. */
#include <math.h>
#include <stdlib.h>

#include "attn/tiles.h"
#include "base/base.h"

/* When an item that a CTA takes at `now` is done. */
static double item_end(const AttnTiles *list, const AttnTile *tile, double now,
                       const RemoteKv *remote, const AttnTuning *tuning) {
    const double step_us = tuning->step_us;
    int passes = (tile->kv_split > 0) + (tile->kv_split + 1 < tile->kv_splits);
    now += tuning->item_steps * step_us + tuning->split_pass_us * passes;
    if (remote == NULL) return now + tile->n_steps * step_us;
    for (int32_t i = tile->run_begin; i < tile->run_end; i++) {
        int range = attn_range_of_key(remote, list->runs[i].first);
        if (range > 0) now = fmax(now, (double)remote->est_ready_us[range - 1]);
        now += list->runs[i].n_steps * step_us;
    }
    return now;
}

double attn_tiles_span_us(const AttnTiles *list, int heads, const RemoteKv *remote,
                          const AttnTuning *tuning) {
    const int ctas = tuning->ctas;
    double all = 0, last = 0, *heap = NEW(double, ctas); /* when CTAs are free, the first on top */
    bool few = list->n_tiles * heads <= 32 * ctas;
    for (int64_t i = 0; i < list->n_tiles; i++)
        all += heads * item_end(list, &list->tiles[i], 0, NULL, tuning);
    for (int64_t i = 0; few && i < list->n_tiles * heads; i++) {
        double end = item_end(list, &list->tiles[i / heads], heap[0], remote, tuning);
        int at = 0;
        for (int child = 1; child < ctas; child = 2 * at + 1) {
            if (child + 1 < ctas && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= end) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = end;
        last = fmax(last, end);
    }
    free(heap);
    return few ? last : all / ctas;
}

AttnTiles attn_tiles_fwd(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                         const RemoteKv *remote, int heads, const AttnTuning *tuning, double *us) {
    static const double fractions[] = {0.5, 0.75, 1.0}; /* of the time until keys are ready */
    AttnTiles best = attn_tiles_by_q(bands, n_bands, Sq, grid, remote, NULL, tuning);
    *us = attn_tiles_span_us(&best, heads, remote, tuning);
    const double worth_us = fmin((1 - tuning->min_gain) * *us, *us - tuning->min_gain_us);
    if (remote->n == 0 || attn_tiles_span_us(&best, heads, NULL, tuning) > worth_us) return best;
    for (int f = 0; f < 3; f++) {
        double steps_before[ATTN_REMOTE_RANGES];
        for (int i = 0; i < remote->n; i++)
            steps_before[i] = fractions[f] * (double)remote->est_ready_us[i] / tuning->step_us *
                              tuning->ctas / heads;
        AttnTiles split = attn_tiles_by_q(bands, n_bands, Sq, grid, remote, steps_before, tuning);
        double split_us = attn_tiles_span_us(&split, heads, remote, tuning);
        bool better = split_us < fmin(*us, worth_us);
        attn_tiles_free(better ? &best : &split);
        if (!better) continue;
        best = split;
        *us = split_us;
    }
    return best;
}
