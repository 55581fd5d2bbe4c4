/* plan_magi.c: magi, where ranks receive the KV rows that their bands touch and no others. What a
 * rank sends follows from what every other rank receives, computed here for each peer by the same
 * function: no table is ever exchanged. */
#include "attn/plan_backend.h"

#include <stdlib.h>
#include <string.h>

/* Needed tokens that one owner holds in consecutive rows and that arrive in one stage. */
typedef struct {
    Range tokens;
    int32_t owner, stage, row; /* row: in the receiver's buffer of that stage */
} Need;

typedef struct {
    Need *needs;
    int64_t n, cap;
} NeedList;

static void need_add(NeedList *list, Need need) {
    GROW(list->needs, list->n, list->cap);
    list->needs[list->n++] = need;
}

static int compare_needs(const void *x, const void *y) {
    const Need *a = x, *b = y;
    if (a->stage != b->stage) return a->stage < b->stage ? -1 : 1;
    return (a->tokens.begin > b->tokens.begin) - (a->tokens.begin < b->tokens.begin);
}

/* Where a rank's needs fall in the order in which they are fetched. Owners are visited in ring
 * order (r - 1, r - 2, ...), so that within a stage different ranks fetch from different owners;
 * stages are equal pieces of that order. */
typedef struct {
    int wanted;        /* list the pieces of this owner alone; -1: of all */
    int64_t quota;     /* rows of a stage */
    int64_t *place;    /* [P + 1] next place in the order, by distance of the owner */
    int32_t *next_row; /* [1 + degree] next free row of each stage's buffer */
} StageSplitter;

static int owner_distance(const AttnPlan *p, int rank, int owner) {
    return (rank - owner + p->P) % p->P;
}

/* Next piece at or after token t, before `end`, that one owner holds in consecutive rows. */
static Range owned_piece(const Dispatch *d, int32_t t, int32_t end) {
    int32_t chunk = t / d->chunk, last = chunk;
    while (last + 1 < d->n_chunks && (last + 1) * d->chunk < end &&
           d->owner[last + 1] == d->owner[chunk])
        last++;
    return (Range){t, (int32_t)i64_min(end, (last + 1) * d->chunk)};
}

static void splitter_begin(StageSplitter *c, const AttnPlan *p, int rank) {
    const Dispatch *d = &p->dispatch;
    memset(c->next_row, 0, (size_t)(1 + p->degree) * sizeof(int32_t));
    c->next_row[0] = d->rows; /* degree 0: behind the own shard */
    if (p->degree <= 1) return;
    memset(c->place, 0, (size_t)(p->P + 1) * sizeof(int64_t));
    for (int64_t i = p->need_begin[rank]; i < p->need_begin[rank + 1]; i++)
        for (Range r = {p->need[i].begin, 0}; r.begin < p->need[i].end; r.begin = r.end) {
            r = owned_piece(d, r.begin, p->need[i].end);
            c->place[owner_distance(p, rank, dispatch_rank_of(d, r.begin)) + 1] += r.end - r.begin;
        }
    for (int i = 0; i < p->P; i++) c->place[i + 1] += c->place[i];
    c->quota = i64_max(1, ceil_div(c->place[p->P], p->degree));
    if (d->chunk % ATTN_TILE == 0) c->quota = round_up(c->quota, ATTN_TILE);
}

/* Adds a piece, cut where its stage is full; rows follow the order of tokens within a stage. */
static void splitter_add(StageSplitter *c, const AttnPlan *p, int rank, Range tokens,
                         NeedList *list) {
    int owner = dispatch_rank_of(&p->dispatch, tokens.begin);
    int64_t *place = p->degree > 1 ? &c->place[owner_distance(p, rank, owner)] : NULL;
    while (tokens.begin < tokens.end) {
        int32_t stage = p->degree > 0, rows = tokens.end - tokens.begin;
        if (place) {
            stage = (int32_t)(1 + *place / c->quota);
            rows = (int32_t)i64_min(rows, stage * c->quota - *place);
            *place += rows;
        }
        Range part = {tokens.begin, tokens.begin + rows};
        if (c->wanted < 0 || c->wanted == owner)
            need_add(list, (Need){part, owner, stage, c->next_row[stage]});
        c->next_row[stage] += rows;
        tokens.begin += rows;
    }
}

/* What a rank receives under magi (from the wanted owner), by token. */
static void list_needs(StageSplitter *c, const AttnPlan *p, int rank, NeedList *list) {
    list->n = 0;
    splitter_begin(c, p, rank);
    for (int64_t i = p->need_begin[rank]; i < p->need_begin[rank + 1]; i++)
        for (Range r = {p->need[i].begin, 0}; r.begin < p->need[i].end; r.begin = r.end) {
            r = owned_piece(&p->dispatch, r.begin, p->need[i].end);
            splitter_add(c, p, rank, r, list);
        }
}

/* Does `peer` need anything that the tokens in `runs` hold? Both lists are sorted. */
static bool needs_any(const AttnPlan *p, int peer, const RangeList *runs) {
    int64_t j = 0;
    for (int64_t i = p->need_begin[peer]; i < p->need_begin[peer + 1]; i++) {
        while (j < runs->n && runs->ranges[j].end <= p->need[i].begin) j++;
        if (j == runs->n) return false;
        if (runs->ranges[j].begin < p->need[i].end) return true;
    }
    return false;
}

/* ---- building ------------------------------------------------------------------------------ */

/* What this rank receives, listed by stage and token. */
static void add_receives(PlanBuilder *b, StageSplitter *splitter, NeedList *list) {
    const AttnPlan *p = b->p;
    splitter->wanted = -1;
    list_needs(splitter, p, b->rp->rank, list);
    if (p->degree > 1 && list->n > 1)
        qsort(list->needs, (size_t)list->n, sizeof(Need), compare_needs);
    for (int64_t i = 0; i < list->n; i++) {
        Need *n = &list->needs[i];
        plan_add_segment(&b->recv, n->stage,
                         (PlanSegment){.peer = n->owner,
                                       .rows = n->tokens.end - n->tokens.begin,
                                       .row = n->row,
                                       .peer_row = dispatch_row_of(&p->dispatch, n->tokens.begin)});
    }
}

static void add_stages(PlanBuilder *b, const NeedList *list) {
    TokenMap keys = {0};
    for (int64_t s = 0, i = 0; s < b->rp->n_stages; s++) {
        int32_t kv_rows = s == 0 ? b->p->dispatch.rows : 0;
        keys.n = 0;
        for (int64_t k = 0; s == 0 && k < b->own.n; k++)
            token_map_add(&keys, b->own.pieces[k].tokens, b->own.pieces[k].row);
        for (; i < list->n && list->needs[i].stage == s; i++) {
            token_map_add(&keys, list->needs[i].tokens, list->needs[i].row);
            kv_rows += list->needs[i].tokens.end - list->needs[i].tokens.begin;
        }
        if (s == 0) token_map_sort(&keys); /* degree 0: own and needed tokens interleave */
        plan_add_stage(b, (int)s, &b->own, &keys, kv_rows, s == 0 ? 0 : -1);
    }
    free(keys.pieces);
}

/* What every other rank receives from this one. */
static void add_sends(PlanBuilder *b, StageSplitter *splitter, NeedList *list) {
    const AttnPlan *p = b->p;
    RangeList runs = {0};
    dispatch_runs(&p->dispatch, b->rp->rank, &runs);
    splitter->wanted = b->rp->rank;
    for (int peer = 0; peer < p->P; peer++) {
        if (peer == b->rp->rank || !needs_any(p, peer, &runs)) continue;
        list_needs(splitter, p, peer, list);
        for (int64_t i = 0; i < list->n; i++) {
            Need *n = &list->needs[i];
            plan_add_segment(&b->send, n->stage,
                             (PlanSegment){.peer = peer,
                                           .rows = n->tokens.end - n->tokens.begin,
                                           .row = dispatch_row_of(&p->dispatch, n->tokens.begin),
                                           .peer_row = n->row});
        }
    }
    range_list_free(&runs);
}

static void build_magi(PlanBuilder *b) {
    const AttnPlan *p = b->p;
    NeedList list = {0};
    StageSplitter splitter = {.place = NEW(int64_t, p->P + 1),
                              .next_row = NEW(int32_t, 1 + p->degree)};
    add_receives(b, &splitter, &list);
    add_stages(b, &list);
    add_sends(b, &splitter, &list);
    free(list.needs);
    free(splitter.place);
    free(splitter.next_row);
}

const PlanBackend plan_magi = {.build = build_magi}, plan_none = {.build = build_magi};
