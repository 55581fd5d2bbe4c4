#include "ops/phases.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Event *begin;
    Phase phase;
} Mark;

struct Phases {
    Mark *marks; /* [n] since the last reading, in order; events up to `capacity` are used again */
    int64_t n, capacity;
    int64_t reached; /* marks that the stream has passed */
    bool held;
    Status failed; /* of making events */
    double ms[PHASES];
};

const char *const phase_names[PHASES] = {
#define X(id, name) #name,
    PHASE_LIST(X)
#undef X
};

static void grow(Phases *p, const Ops *ops) {
    int64_t capacity = i64_max(64, 2 * p->capacity);
    p->marks = mem_grow(p->marks, capacity, sizeof *p->marks);
    while (p->capacity < capacity && p->failed == OK)
        p->failed = ops->event_create(&p->marks[p->capacity++].begin);
}

static void mark(Phases *p, Phase phase, Stream *stream) {
    if (p->n == p->capacity && p->failed == OK) grow(p, stream->ops);
    if (p->failed != OK) return;
    stream->ops->event_record(p->marks[p->n].begin, stream);
    p->marks[p->n++].phase = phase;
}

static Phase current(const Phases *p) {
    return p->n > 0 ? p->marks[p->n - 1].phase : PHASE_OTHER;
}

Phase phase_enter(Stream *stream, Phase phase) {
    if (stream == NULL || stream->phases == NULL) return phase;
    Phases *p = stream->phases;
    Phase before = current(p);
    if (!p->held && phase != before) mark(p, phase, stream);
    return before;
}

Phase phase_hold(Stream *stream, Phase phase) {
    if (stream->phases == NULL) return phase;
    REQUIRE(!stream->phases->held);
    Phase before = phase_enter(stream, phase);
    stream->phases->held = true;
    return before;
}

void phase_release(Stream *stream, Phase before) {
    if (stream->phases == NULL) return;
    stream->phases->held = false;
    phase_enter(stream, before);
}

/* The last mark that was reached begins a span whose end is to come. */
static void read_reached(Phases *p, const Ops *ops) {
    int64_t last = p->reached - 1;
    if (last < 1) return;
    for (int64_t i = 0; i < last; i++)
        p->ms[p->marks[i].phase] += ops->event_ms(p->marks[i].begin, p->marks[i + 1].begin);
    for (int64_t i = last; i < p->n; i++) {
        Mark earlier = p->marks[i - last];
        p->marks[i - last] = p->marks[i];
        p->marks[i] = earlier;
    }
    p->n -= last;
    p->reached = 1;
}

Status phases_sync(Stream *stream) {
    Phases *p = stream->phases;
    if (p == NULL) return stream->ops->stream_sync(stream);
    read_reached(p, stream->ops); /* while the stream works */
    CHECK(stream->ops->stream_sync(stream));
    p->reached = p->n;
    return OK;
}

Status phases_take(Stream *stream, double *ms) {
    Phases *p = stream->phases;
    memset(ms, 0, PHASES * sizeof *ms);
    if (p != NULL) mark(p, current(p), stream);
    CHECK(phases_sync(stream));
    if (p == NULL) return OK;
    CHECK(p->failed);
    read_reached(p, stream->ops);
    memcpy(ms, p->ms, sizeof p->ms);
    memset(p->ms, 0, sizeof p->ms);
    return OK;
}

Status phases_start(Stream *stream) {
    REQUIRE(stream->phases == NULL);
    stream->phases = NEW(Phases, 1);
    mark(stream->phases, PHASE_OTHER, stream);
    return stream->phases->failed;
}

void phases_free(Stream *stream) {
    if (stream == NULL || stream->phases == NULL) return;
    Phases *p = stream->phases;
    for (int64_t i = 0; i < p->capacity; i++) stream->ops->event_free(p->marks[i].begin);
    free(p->marks);
    free(p);
    stream->phases = NULL;
}
