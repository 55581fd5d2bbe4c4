#include "base/progress.h"

#include <stdatomic.h>

/* Of the process: the watchdog's thread reads it. */
static struct {
    atomic_llong beats, step, notes;
    _Atomic(const char *) phase;
} progress = {.phase = "start"};

void progress_beat(int64_t step, const char *phase) {
    atomic_store(&progress.step, step);
    atomic_store(&progress.phase, phase);
    atomic_fetch_add(&progress.beats, 1);
}

Progress progress_read(void) {
    return (Progress){.beats = atomic_load(&progress.beats),
                      .step = atomic_load(&progress.step),
                      .phase = atomic_load(&progress.phase)};
}

void progress_note(void) {
    atomic_fetch_add(&progress.notes, 1);
}

int64_t progress_notes(void) {
    return atomic_load(&progress.notes);
}
