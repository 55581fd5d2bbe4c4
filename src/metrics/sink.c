#include "metrics/sink.h"

#include <stdlib.h>

typedef struct {
    Sink sink;
    Sink **list;
    int n;
} AllSinks;

#define EACH_RECORD(X)                                                                             \
    X(step, StepRecord)                                                                            \
    X(stage, StageRecord)                                                                          \
    X(eval, EvalRecord)                                                                            \
    X(sample, SampleRecord)                                                                        \
    X(snapshot, SaveRecord)                                                                        \
    X(save, SaveRecord)                                                                            \
    X(guard, GuardRecord)                                                                          \
    X(slow, SlowRecord)                                                                            \
    X(hook, HookRecord)

#define X(kind, Record)                                                                            \
    static void all_##kind(Sink *s, const Record *r) {                                             \
        const AllSinks *a = (const AllSinks *)s;                                                   \
        for (int i = 0; i < a->n; i++)                                                             \
            if (a->list[i]->kind != NULL) a->list[i]->kind(a->list[i], r);                         \
    }
EACH_RECORD(X)
#undef X

static void all_free(Sink *s) {
    AllSinks *a = (AllSinks *)s;
    for (int i = a->n - 1; i >= 0; i--) a->list[i]->free(a->list[i]);
    free(a->list);
    free(a);
}

static Status add(AllSinks *a, bool wanted, Status (*open)(Sink **sink, const SinkRun *run),
                  const SinkRun *run) {
    if (!wanted) return OK;
    a->list = mem_grow(a->list, a->n + 1, sizeof *a->list);
    CHECK(open(&a->list[a->n], run));
    a->n++;
    return OK;
}

Status sink_open_all(Sink **all, const SinkRun *run) {
    AllSinks *a = NEW(AllSinks, 1);
    *all = &a->sink;
    a->sink = (Sink){
#define X(kind, Record) .kind = all_##kind,
        EACH_RECORD(X)
#undef X
            .free = all_free};
    if (run == NULL) return OK;
    const Config *config = run->config;
    CHECK(add(a, true, sink_console_open, run));
#define X(name, default_, help) CHECK(add(a, config->log.name, sink_##name##_open, run));
    LOG_LIST(X)
#undef X
    return OK;
}
