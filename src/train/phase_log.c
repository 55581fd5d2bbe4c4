#include "train/phase_log.h"

#include <stdlib.h>

Status phase_log_open(PhaseLog *l, Session *s, int64_t step) {
    if (!s->config->log.phases) return OK;
    l->step = step;
    l->ms = NEW(double, (int64_t)s->world *PHASES);
    slow_ranks_init(&l->slow, s->world);
    return comm_agree(s->comm.host, phases_start(s->stream));
}

Status phase_log_take(PhaseLog *l, Session *s) {
    if (l->ms == NULL) return s->ops->stream_sync(s->stream);
    return phases_take(s->stream, l->ms + s->rank * PHASES);
}

Status phase_log_fill(PhaseLog *l, const Session *s, StepRecord *r) {
    if (l->ms == NULL) return OK;
    double *own = l->ms + s->rank * PHASES, steps = (double)(r->step - l->step);
    for (int p = 0; p < PHASES; p++) own[p] /= steps;
    l->step = r->step;
    CHECK(comm_all_gather(s->comm.host, l->ms, PHASES, DT_F64, COMM_KIND_OTHER, NULL));
    phases_spread(l->ms, s->world, l->spread);
    r->phases = l->spread;
    l->found = slow_ranks_add(&l->slow, l->ms, &l->record);
    return OK;
}

void phase_log_warn(PhaseLog *l, int64_t step, Sink *sink) {
    if (!l->found) return;
    SlowRecord *r = &l->record;
    r->step = step;
    r->node = comm_host_name(r->rank);
    r->message = mem_printf(
        "rank %d on node %s stays behind: it computes %.4g ms a step, the median of the ranks is "
        "%.4g ms (%+.0f %%, mean of the last %d step records); look at its clock, its temperature "
        "and what else runs there, or leave the node out",
        r->rank, r->node, r->compute_ms, r->median_ms, 100 * (r->compute_ms / r->median_ms - 1),
        r->records);
    sink->slow(sink, r);
    free(r->message);
    l->found = false;
}

void phase_log_close(PhaseLog *l, Session *s) {
    phases_free(s->stream);
    free(l->ms);
    slow_ranks_free(&l->slow);
}
