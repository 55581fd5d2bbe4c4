/* ops_cpu.c: the CPU row of the Ops table, and its memory, streams and events. A stream is a name
 * only: work is done when a call returns. */
#include <stdatomic.h>
#include <stdlib.h>

#include "cpu/cpu.h"

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector */

struct Stream {
    char unused;
};

struct Event {
    double time;
};

/* The one mutable state of the backend: mem_peak() is a figure of the process. */
static _Atomic int64_t bytes_held, bytes_peak;

/* The size is kept in one line before the memory, so that mem_free can account for it. */
static void *aligned_new(int64_t bytes) {
    int64_t total;
    if (bytes < 0 || __builtin_add_overflow(bytes, 2 * (int64_t)ALIGNMENT, &total)) return NULL;
    char *base = aligned_alloc(ALIGNMENT, (size_t)(total / ALIGNMENT * ALIGNMENT));
    if (base == NULL) return NULL;
    memcpy(base, &bytes, sizeof bytes);
    return base + ALIGNMENT;
}

static Status host_alloc(void **ptr, int64_t bytes, const char *what) {
    *ptr = aligned_new(bytes);
    if (*ptr != NULL) return OK;
    return status_fail(ERR_ENV,
                       "%s: no host memory for %lld bytes (%.2f GiB); use a smaller model or "
                       "batch.micro, or more ranks",
                       what, (long long)bytes, (double)bytes / 0x1p30);
}

static void host_free(void *ptr) {
    if (ptr != NULL) free((char *)ptr - ALIGNMENT);
}

static Status mem_alloc(void **ptr, int64_t bytes, const char *what) {
    CHECK(host_alloc(ptr, bytes, what));
    int64_t held = atomic_fetch_add(&bytes_held, bytes) + bytes;
    int64_t peak = atomic_load(&bytes_peak);
    while (held > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, held)) {
    }
    return OK;
}

static void mem_free(void *ptr) {
    if (ptr == NULL) return;
    int64_t bytes;
    memcpy(&bytes, (char *)ptr - ALIGNMENT, sizeof bytes);
    atomic_fetch_sub(&bytes_held, bytes);
    host_free(ptr);
}

static void mem_zero(void *ptr, int64_t bytes, Stream *stream) {
    (void)stream;
    if (bytes > 0) memset(ptr, 0, (size_t)bytes);
}

static void mem_copy(void *dst, const void *src, int64_t bytes, Stream *stream) {
    (void)stream;
    if (bytes > 0) memcpy(dst, src, (size_t)bytes);
}

static int64_t mem_peak(void) {
    return atomic_load(&bytes_peak);
}

static Status stream_create(Stream **stream) {
    *stream = NEW(Stream, 1);
    return OK;
}

static void stream_free(Stream *stream) {
    free(stream);
}

static Status stream_sync(Stream *stream) {
    (void)stream;
    return OK;
}

static Status event_create(Event **event) {
    *event = NEW(Event, 1);
    return OK;
}

static void event_free(Event *event) {
    free(event);
}

static void event_record(Event *event, Stream *stream) {
    (void)stream;
    event->time = time_now();
}

static void event_wait(Event *event, Stream *stream) {
    (void)event;
    (void)stream;
}

static double event_ms(Event *begin, Event *end) {
    return 1e3 * (end->time - begin->time);
}

float *cpu_scratch(int64_t n) {
    REQUIRE(n >= 0 && n < INT64_MAX / 8);
    size_t bytes = (size_t)round_up(i64_max(n, 1) * (int64_t)sizeof(float), ALIGNMENT);
    float *p = aligned_alloc(ALIGNMENT, bytes);
    return p != NULL ? p : mem_new((int64_t)bytes, 1); /* which says what failed, and exits */
}

/* Every op of this backend always is. */
static void set_deterministic(bool on) {
    (void)on;
}

const Ops *cpu_ops(void) {
    static const Ops ops = {.name = "cpu",
                            .device_name = "cpu",
                            .act_bytes = sizeof(float),
                            .act_dtype = DT_F32,
                            .host_memory = true,
                            .mem_alloc = mem_alloc,
                            .mem_free = mem_free,
                            .host_alloc = host_alloc,
                            .host_free = host_free,
                            .mem_zero = mem_zero,
                            .mem_copy = mem_copy,
                            .mem_upload = mem_copy,
                            .mem_peak = mem_peak,
                            .set_deterministic = set_deterministic,
                            .stream_create = stream_create,
                            .stream_free = stream_free,
                            .stream_sync = stream_sync,
                            .event_create = event_create,
                            .event_free = event_free,
                            .event_record = event_record,
                            .event_wait = event_wait,
                            .event_ms = event_ms,
#define X(op) .op = cpu_##op,
                            CPU_OP_LIST(X)
#undef X
    };
    return &ops;
}
