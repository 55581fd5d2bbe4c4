/* plan_backend.h: how context-parallel backends are planned: a row for each in CP_BACKEND_LIST, and
 * what its build() makes the stages of a rank with. Private to src/attn. */
#ifndef CRIA_ATTN_PLAN_BACKEND_H
#define CRIA_ATTN_PLAN_BACKEND_H

#include "attn/plan.h"

/* Where the tokens of a buffer lie: pieces that are consecutive in the stream and in the buffer. */
typedef struct {
    Range tokens;
    int32_t row; /* of the first token in the buffer */
} TokenPiece;
typedef struct {
    TokenPiece *pieces; /* by token where a stage is made of them */
    int64_t n, cap;
} TokenMap;
void token_map_add(TokenMap *map, Range tokens, int32_t row);
void token_map_add_shard(TokenMap *map, const Dispatch *d, int rank, int32_t row);
void token_map_sort(TokenMap *map);

typedef struct {
    PlanSegment segment;
    int32_t stage;
} StageSegment;
typedef struct {
    StageSegment *items;
    int64_t n, cap;
} SegmentList;

typedef struct {
    const AttnPlan *p;
    RankPlan *rp; /* of which build() fills in stages[].source */
    TokenMap own; /* this rank's shard */
    int64_t n_bands, cap_bands;
    SegmentList recv, send;
} PlanBuilder;
/* The next stage, in order: the mask cut to q tokens x k tokens, in the rows that the maps give
 * them. own_row: where the own shard lies in its KV buffer, -1: nowhere. */
void plan_add_stage(PlanBuilder *b, int index, const TokenMap *q, const TokenMap *k,
                    int32_t kv_rows, int32_t own_row);
/* To recv or send of the builder, in any order; `packed` is set later. */
void plan_add_segment(SegmentList *list, int stage, PlanSegment segment);

typedef struct FIELDS_BY_NAME {
    /* What DISPATCH_AUTO is; NULL: dispatch.h's rule. */
    void (*dispatch)(DispatchOptions *o, int64_t S);
    void (*build)(PlanBuilder *b); /* all stages and segments of a rank */
} PlanBackend;
#define X(id, name, properties) extern const PlanBackend plan_##name;
CP_BACKEND_LIST(X)
#undef X
extern const PlanBackend *const plan_backends[CP_BACKENDS];

#endif
