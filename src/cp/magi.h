/* magi.h: what the two forms of magi share: in stages (magi.c), or as one fused attention call per
 * direction (magi_fused.c). Private to src/cp. */
#ifndef CRIA_CP_MAGI_H
#define CRIA_CP_MAGI_H

#include "cp/dkv_reduce.h"
#include "cp/runtime.h"

/* Fused magi: rows that are contiguous at both ends of a transfer. */
typedef struct {
    int range, stage; /* remote range; stage of the plan */
    bool sent;
    int32_t row, rows; /* sent: of the local shard. Else: of the stage's buffer */
    int32_t
        at; /* sent: row of the DkvReduce where their gradients return. Else: of the fused call */
} FusedSegment;

typedef struct {
    CpRuntime rt;
    void *kv;   /* received; degree 0: behind the own rows */
    float *dkv; /* partial dKV of this rank */
    DkvReduce reduce;
    uint32_t *flags; /* kv_ready and dkv_done of `remote` */
    CommTicket prefetch;
    bool fused; /* the current plan runs in one call per direction; then only: */
    RemoteKv remote;
    FusedSegment *segments; /* by range */
    int64_t n_segments, segments_capacity;
    Range dkv_recv_rows[ATTN_REMOTE_RANGES];   /* where the gradients of a range return */
    CommTicket kv_tickets[ATTN_REMOTE_RANGES]; /* of the transfers of keys */
    /* the value dkv_done has after all transfers queued so far; counted by range, because plans
     * differ in the number of ranges */
    uint32_t dkv_done_target[ATTN_REMOTE_RANGES];
} Magi;

/* The most rows that `dkv` holds. */
int64_t magi_fused_keys(const Magi *m);
bool magi_fused_wanted(const Magi *m);
Status magi_fused_plan(Magi *m, Stream *stream);
Status magi_fused_fetch(Magi *m, const void *kv, Stream *stream);
Status magi_fused_forward(Magi *m, AttnFwd call, Stream *stream);
/* After magi_fused_fetch(). */
Status magi_fused_backward(Magi *m, AttnBwd call, const void *o, Stream *stream);

#endif
