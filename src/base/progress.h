/* progress.h: signs that this process gets on, which the watchdog looks for (health/watchdog.h). */
#ifndef CRIA_BASE_PROGRESS_H
#define CRIA_BASE_PROGRESS_H

#include <stdint.h>

typedef struct {
    int64_t beats, step;
    const char *phase;
} Progress;

/* A new phase (a literal) of a step, or the same again: something is done. Main thread. */
void progress_beat(int64_t step, const char *phase);
Progress progress_read(void);

/* A part of work that may take minutes is done, such as a piece of a file. Any thread. It counts
 * where somebody asks for it: comm/work.h. */
void progress_note(void);
int64_t progress_notes(void);

#endif
