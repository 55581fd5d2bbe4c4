/* arena.h: one device allocation for a run, made in two passes. First every module reserves its
 * buffers by region and name (nothing is allocated: --dry-run stops here and prints the table);
 * then arena_commit makes one allocation and fills in the pointers. Buffers are 256-byte aligned.
 */
#ifndef CRIA_OPS_ARENA_H
#define CRIA_OPS_ARENA_H

#include "ops/ops.h"

typedef struct {
    const char *region; /* "weights", "gradients", "optimizer", "activations", ... */
    char *name;
    int64_t bytes, at; /* from the base */
    int variant;       /* 0: it is of no variant */
    void **slot;       /* receives the address at commit */
} ArenaBuffer;

typedef struct {
    ArenaBuffer *buffers;
    int n, cap;
    int64_t bytes; /* reserved so far; INT64_MAX: or more */
    void *base;    /* NULL before commit */
    int variant;   /* being reserved; 0: none */
    int64_t variants_begin, variants_end;
    const Ops *ops;
} Arena;

/* *slot stays NULL until arena_commit. region is a literal, name is copied. bytes may be 0. */
void arena_reserve(Arena *a, const char *region, const char *name, int64_t bytes, void **slot);
/* What is reserved from here on until the next call, or arena_end_variants(), is used at other
 * times than what is reserved between other two such calls, and lies in the same memory. */
void arena_begin_variant(Arena *a);
void arena_end_variants(Arena *a);
/* ERR_USER when what is reserved cannot be counted, let alone allocated. */
Status arena_check(const Arena *a);
/* ERR_ENV when the device lacks the memory: the message ends with the table's largest regions. */
Status arena_commit(Arena *a, const Ops *ops);
void arena_free(Arena *a);
/* Of the variants the largest. */
int64_t arena_region_bytes(const Arena *a, const char *region);
/* Bytes per region, largest buffers named. */
void arena_print(const Arena *a, StrBuf *out);

#endif
