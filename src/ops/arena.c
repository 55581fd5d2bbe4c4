#include "ops/arena.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 256

/* a + b, at most INT64_MAX: sizes within the bounds of the configuration can add up to more. */
static int64_t add(int64_t a, int64_t b) {
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

void arena_reserve(Arena *a, const char *region, const char *name, int64_t bytes, void **slot) {
    REQUIRE(a->base == NULL && bytes >= 0);
    GROW(a->buffers, a->n, a->cap);
    *slot = NULL;
    a->buffers[a->n++] = (ArenaBuffer){region, mem_strdup(name), bytes, a->bytes, a->variant, slot};
    a->bytes = add(a->bytes, round_up(bytes, ARENA_ALIGN));
}

void arena_begin_variant(Arena *a) {
    if (a->variant++ == 0) a->variants_begin = a->variants_end = a->bytes;
    a->variants_end = i64_max(a->variants_end, a->bytes);
    a->bytes = a->variants_begin;
}

void arena_end_variants(Arena *a) {
    a->bytes = i64_max(a->variants_end, a->bytes);
    a->variant = 0;
}

Status arena_check(const Arena *a) {
    if (a->bytes < INT64_MAX) return OK;
    return status_fail(ERR_USER, "a rank would need 2^63 bytes of memory or more; lower "
                                 "batch.micro, model.seq_len or the sizes of the model");
}

Status arena_commit(Arena *a, const Ops *ops) {
    REQUIRE(a->base == NULL);
    Status st = ops->mem_alloc(&a->base, i64_max(a->bytes, ARENA_ALIGN), "the run's buffers");
    if (st != OK) {
        StrBuf table = {0};
        arena_print(a, &table);
        status_suffix("\n%s", strbuf_text(&table));
        strbuf_free(&table);
        return st;
    }
    a->ops = ops;
    for (int i = 0; i < a->n; i++) *a->buffers[i].slot = (char *)a->base + a->buffers[i].at;
    return OK;
}

void arena_free(Arena *a) {
    if (a->base != NULL) a->ops->mem_free(a->base);
    for (int i = 0; i < a->n; i++) free(a->buffers[i].name);
    free(a->buffers);
    *a = (Arena){0};
}

static int64_t variant_bytes(const Arena *a, const char *region, int variant) {
    int64_t bytes = 0;
    for (int i = 0; i < a->n; i++)
        if (a->buffers[i].variant == variant && strcmp(a->buffers[i].region, region) == 0)
            bytes = add(bytes, round_up(a->buffers[i].bytes, ARENA_ALIGN));
    return bytes;
}

/* The variant that has the most of a region. */
static int largest_variant(const Arena *a, const char *region) {
    int largest = 0;
    int64_t most = 0;
    for (int i = 0; i < a->n; i++) {
        int variant = a->buffers[i].variant;
        int64_t bytes = variant > 0 ? variant_bytes(a, region, variant) : 0;
        if (bytes <= most) continue;
        most = bytes;
        largest = variant;
    }
    return largest;
}

int64_t arena_region_bytes(const Arena *a, const char *region) {
    int variant = largest_variant(a, region);
    int64_t always = variant_bytes(a, region, 0);
    return variant > 0 ? add(always, variant_bytes(a, region, variant)) : always;
}

static const double MIB = 1024.0 * 1024.0;

void arena_print(const Arena *a, StrBuf *out) {
    strbuf_printf(out, "memory per rank (MiB)\n");
    for (int i = 0; i < a->n; i++) {
        const char *region = a->buffers[i].region;
        bool seen = false;
        for (int j = 0; j < i; j++) seen = seen || strcmp(a->buffers[j].region, region) == 0;
        if (seen) continue;
        int64_t largest = -1;
        int count = 0, variant = largest_variant(a, region);
        const char *name = "";
        for (int j = i; j < a->n; j++) {
            const ArenaBuffer *b = &a->buffers[j];
            if (strcmp(b->region, region) != 0) continue;
            if (b->variant > 0 && b->variant != variant) continue;
            count++;
            if (b->bytes > largest) {
                largest = b->bytes;
                name = b->name;
            }
        }
        strbuf_printf(out, "  %-12s %10.1f   %3d %-9slargest: %s %.1f\n", region,
                      (double)arena_region_bytes(a, region) / MIB, count,
                      count == 1 ? "buffer," : "buffers,", name, (double)largest / MIB);
    }
    strbuf_printf(out, "  %-12s %10.1f\n", "total", (double)a->bytes / MIB);
}
