/* plan_dense.c: backends that move all KV, whatever the mask: ring, allgather, ulysses. */
#include "attn/plan_backend.h"

#include <stdlib.h>

/* TransformerEngine's zigzag: every sequence cut in 2P, ranks hold two pieces each. */
static void dispatch_zigzag(DispatchOptions *o, int64_t S) {
    int64_t T = o->T > 0 && S % o->T == 0 ? o->T : S;
    o->kind = DISPATCH_ZIGZAG;
    o->chunks_per_rank = (int)(2 * i64_min(S / T, 1 << 20));
    o->chunk = T % (2 * (int64_t)i64_max(1, o->P)) == 0 ? T / (2 * o->P) : 0; /* no remainder */
}

static void dispatch_contiguous(DispatchOptions *o, int64_t S) {
    (void)S;
    o->kind = DISPATCH_CONTIGUOUS;
    o->chunks_per_rank = 1;
    o->chunk = 0;
}

static void build_ring(PlanBuilder *b) {
    int P = b->p->P, rank = b->rp->rank;
    int32_t rows = b->p->dispatch.rows;
    TokenMap keys = {0};
    for (int i = 0; i < P; i++) {
        int source = (rank - i + P) % P;
        keys.n = 0;
        token_map_add_shard(&keys, &b->p->dispatch, source, 0);
        plan_add_stage(b, i, &b->own, &keys, rows, i == 0 ? 0 : -1);
        b->rp->stages[i].source = source;
        if (i == 0) continue;
        plan_add_segment(&b->recv, i, (PlanSegment){.peer = (rank - 1 + P) % P, .rows = rows});
        plan_add_segment(&b->send, i, (PlanSegment){.peer = (rank + 1) % P, .rows = rows});
    }
    free(keys.pieces);
}

static void map_all_shards(TokenMap *map, const Dispatch *d) {
    for (int32_t i = 0; i < d->n_chunks; i++)
        token_map_add(map, (Range){i * d->chunk, (i + 1) * d->chunk},
                      d->owner[i] * d->rows + d->slot[i] * d->chunk);
}

/* All KV in one stage, the shards in rank order. */
static void build_gathered(PlanBuilder *b) {
    int P = b->p->P, rank = b->rp->rank;
    int32_t rows = b->p->dispatch.rows;
    TokenMap all = {0};
    map_all_shards(&all, &b->p->dispatch);
    bool all_tokens = cp_backend_is(b->p->backend, BACKEND_SPLITS_HEADS);
    plan_add_stage(b, 0, all_tokens ? &all : &b->own, &all, P * rows, rank * rows);
    for (int peer = 0; peer < P; peer++) {
        if (peer == rank) continue;
        plan_add_segment(&b->recv, 0,
                         (PlanSegment){.peer = peer, .rows = rows, .row = peer * rows});
        plan_add_segment(&b->send, 0,
                         (PlanSegment){.peer = peer, .rows = rows, .peer_row = rank * rows});
    }
    free(all.pieces);
}

const PlanBackend plan_ring = {.dispatch = dispatch_zigzag, .build = build_ring};
const PlanBackend plan_allgather = {.dispatch = dispatch_zigzag, .build = build_gathered};
const PlanBackend plan_ulysses = {.dispatch = dispatch_contiguous, .build = build_gathered};
