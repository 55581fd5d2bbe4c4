/* plan.h: what every rank computes and moves in one layer's attention. A plan is a pure function of
 * (mask, options): no communication, the same on every rank. plan_build() sums up all ranks;
 * plan_rank() writes the full tables of one rank.
 *
 * A rank's attention is a sequence of stages. Stage i is one attention call over `bands`, in
 * coordinates (own q row, row of that stage's KV buffer), after the rows in `recv` have arrived;
 * the calls continue each other (o, lse). Taken over ranks and stages every allowed pair occurs
 * exactly once. The backward runs the same bands, and moves partial dKV rows along the same
 * segments in the other direction: back to their owner, who adds them in the order of its `send`
 * list.
 *
 *   backend    stages       KV buffer of a stage                           transfers
 *   none       1            own shard                                      -
 *   ring       P            shard of rank (r - i) mod P                    shards, r - 1 -> r
 *   magi, D=0  1            [own shard | needed remote rows, by position]  owner -> r
 *   magi, D>0  1 + D        0: own shard; else a part of the needed rows   owner -> r
 *   allgather  1            shard of rank 0 | 1 | ... | P - 1              owner -> r
 *   ulysses    1            as allgather, with K / P heads; so is q        owner -> r
 */
#ifndef CRIA_ATTN_PLAN_H
#define CRIA_ATTN_PLAN_H

#include "attn/cost.h"
#include "attn/dispatch.h"
#include "config/config.h"

typedef struct {
    CpBackend backend;
    DispatchOptions dispatch; /* P, T, ...; AUTO: dispatch.h's rule for magi, and without regard to
                                 `chunk`: zigzag for ring and allgather, contiguous for ulysses */
    int degree;               /* magi: stages of remote KV, at most OVERLAP_DEGREE_MAX;
                                 0 = one call on everything, -1 = chosen */
    const CostModel *cost;    /* for degree -1; NULL = cost_default(32, 8, 64). Not kept */
} PlanOptions;

/* Per-rank totals, without segments. Rows are KV rows per layer forward; the backward receives them
 * again and returns as many dKV rows. */
typedef struct {
    int64_t
        area; /* pairs this rank computes (ulysses: all of them, times its share of the heads) */
    int64_t local_area;                 /* of these, with keys of its own shard */
    int64_t tile_area, local_tile_area; /* the same in whole 128 x 128 tiles, as kernels work */
    int64_t needed_rows;                /* remote rows that its pairs touch */
    int64_t recv_rows, send_rows;       /* rows that the backend moves */
} RankSummary;

typedef struct {
    CpBackend backend;
    int P, degree; /* degree: 0 except for magi */
    int ranks_per_node;
    int n_stages; /* the same for every rank; a stage may be empty on some */
    Mask mask;
    Dispatch dispatch;
    RankSummary *ranks; /* [P] */
    Range
        *need; /* remote keys that rank r's pairs touch: need[need_begin[r] .. need_begin[r + 1]) */
    int64_t *need_begin; /* [P + 1] */
} AttnPlan;

/* Rows that travel between this rank and a peer. */
typedef struct {
    int32_t peer, rows;
    int32_t row; /* recv: first row in this stage's KV buffer. send: first row of own shard (ring:
                    of the KV buffer of the stage before) */
    int32_t peer_row; /* the other end's `row` */
    int32_t packed; /* first row in a buffer that holds all segments of the list one after another:
                       where dKV partials land at the owner before they are added */
} PlanSegment;

typedef struct {
    int32_t kv_rows; /* rows of this stage's KV buffer */
    int32_t own_row; /* own shard sits there, not in recv; -1: it is not in this buffer */
    int32_t source;  /* ring: the rank whose shard this is; else -1 */
    int32_t recv_rows, send_rows;
    int n_bands, n_recv, n_send;
    const Band *bands;
    const PlanSegment *recv, *send; /* each by (peer, position): a pair's segments match in order */
} PlanStage;

typedef struct {
    int rank, P, n_stages;
    int32_t rows;   /* of a shard: tokens a rank holds */
    int32_t q_rows; /* rows of q in the calls: `rows`, for ulysses P * rows */
    int32_t max_kv_rows, max_recv_rows, max_send_rows; /* over the stages */
    int64_t most_rows; /* that any rank receives in all stages: the same on every rank */
    PlanStage *stages;
    Band *bands; /* of all stages; the stages point into it, as into segments */
    PlanSegment *segments;
} RankPlan;

/* ERR_USER for sizes that the backend cannot do; the mask is copied. */
Status plan_build(AttnPlan *out, const Mask *mask, const PlanOptions *o);
void plan_free(AttnPlan *p);
void plan_rank(const AttnPlan *p, int rank, RankPlan *out);
void rank_plan_free(RankPlan *rp);

/* Over ranks. */
typedef struct {
    int64_t area, max_area, max_tile_area;
    int64_t recv_rows, max_recv_rows, max_send_rows; /* per layer forward: sum, maxima of a rank */
    int64_t ring_rows; /* what ring and all-gather move instead: P * (P - 1) * rows */
    double imbalance;  /* max_area / mean area - 1 */
} PlanSummary;
PlanSummary plan_summary(const AttnPlan *p);

/* Bytes that the backend moves per layer, summed over ranks: whole numbers, of which the greatest
 * that keys allow, 2^70, do not fit in 64 bits. */
typedef struct {
    double forward, backward;
} PlanBytes;
PlanBytes plan_bytes(const AttnPlan *p, const CostModel *m);
/* The same for a backend that moves all rows, on this plan's number of them. */
PlanBytes plan_bytes_dense(const AttnPlan *p, CpBackend backend, const CostModel *m);

/* The overlap degree with the least predicted time, of a plan whose degree is not set yet. cost
 * NULL: cost_default(32, 8, 64). */
int plan_choose_degree(const AttnPlan *p, const CostModel *cost);
/* The stages of a rank for cost_forward / cost_backward; n_stages entries. */
void plan_cost_stages(const AttnPlan *p, const RankPlan *rp, const CostModel *m, CostStage *out);
/* The same as if the remote part were cut into equal stages: needs no RankPlan, so it serves
 * thousands of ranks. */
void plan_cost_equal(const AttnPlan *p, int rank, const CostModel *m, CostStage *out);

/* 64 bits over everything that decides results: mask, assignment, backend, stages. */
uint64_t plan_hash(const AttnPlan *p);

#endif
