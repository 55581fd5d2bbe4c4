/* ops_cpu.c: the CPU row of the Ops table, and its memory, streams and events. A stream is a name
 * only: work is done when a call returns. */
#include <stdatomic.h>
#include <stdlib.h>

#include "cpu/cpu.h"

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector */

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

Status cpu_host_alloc(void **ptr, int64_t bytes, const char *what) {
    *ptr = aligned_new(bytes);
    if (*ptr != NULL) return OK;
    return status_fail(ERR_ENV,
                       "%s: no host memory for %lld bytes (%.2f GiB); use "
                       "memory.recompute=layer, a smaller model or batch.micro, or more ranks",
                       what, (long long)bytes, (double)bytes / 0x1p30);
}

void cpu_host_free(void *ptr) {
    if (ptr != NULL) free((char *)ptr - ALIGNMENT);
}

Status cpu_mem_alloc(void **ptr, int64_t bytes, const char *what) {
    CHECK(cpu_host_alloc(ptr, bytes, what));
    int64_t held = atomic_fetch_add(&bytes_held, bytes) + bytes;
    int64_t peak = atomic_load(&bytes_peak);
    while (held > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, held)) {
    }
    return OK;
}

void cpu_mem_free(void *ptr) {
    if (ptr == NULL) return;
    int64_t bytes;
    memcpy(&bytes, (char *)ptr - ALIGNMENT, sizeof bytes);
    atomic_fetch_sub(&bytes_held, bytes);
    cpu_host_free(ptr);
}

void cpu_mem_zero(void *ptr, int64_t bytes, Stream *stream) {
    (void)stream;
    if (bytes > 0) memset(ptr, 0, (size_t)bytes);
}

void cpu_mem_copy(void *dst, const void *src, int64_t bytes, Stream *stream) {
    (void)stream;
    if (bytes > 0) memcpy(dst, src, (size_t)bytes);
}

void cpu_mem_upload(void *dst, const void *src, int64_t bytes, Stream *stream) {
    cpu_mem_copy(dst, src, bytes, stream);
}

int64_t cpu_mem_peak(void) {
    return atomic_load(&bytes_peak);
}

Status cpu_stream_create(const Ops *ops, Stream **stream) {
    *stream = NEW(Stream, 1);
    (*stream)->ops = ops;
    return OK;
}

void cpu_stream_free(Stream *stream) {
    free(stream);
}

Status cpu_stream_sync(Stream *stream) {
    (void)stream;
    return OK;
}

Status cpu_event_create(Event **event) {
    *event = NEW(Event, 1);
    return OK;
}

void cpu_event_free(Event *event) {
    free(event);
}

void cpu_event_record(Event *event, Stream *stream) {
    (void)stream;
    event->time = time_now();
}

void cpu_event_wait(Event *event, Stream *stream) {
    (void)event;
    (void)stream;
}

double cpu_event_ms(Event *begin, Event *end) {
    return 1e3 * (end->time - begin->time);
}

float *cpu_scratch(int64_t n) {
    REQUIRE(n >= 0 && n < INT64_MAX / 8);
    size_t bytes = (size_t)round_up(i64_max(n, 1) * (int64_t)sizeof(float), ALIGNMENT);
    float *p = aligned_alloc(ALIGNMENT, bytes);
    return p != NULL ? p : mem_new((int64_t)bytes, 1); /* which says what failed, and exits */
}

const Ops *cpu_ops(void) {
    static const Ops ops = {
        .name = "cpu",
        .device_name = "cpu",
        .act_bytes = sizeof(float),
        .act_dtype = DT_F32,
        .host_memory = true,
        .deterministic = true,
#define OP(result, name, class, parameters, arguments, cost) .name = cpu_##name,
#define HOST_OP(result, name, parameters)                    .name = cpu_##name,
#include "ops/ops.def"
    };
    return &ops;
}
