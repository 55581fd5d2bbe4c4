/* cost.h: predicted time of one attention layer under a plan: a launch-plus-rate model of compute
 * and transfers on two streams. Used to choose the overlap degree and by `cria plan`. It is a
 * model: its constants are rates that the user's machine reaches, not peaks. */
#ifndef CRIA_ATTN_COST_H
#define CRIA_ATTN_COST_H

#include "config/config.h"

typedef struct {
    int H, K, D;                 /* query heads, kv heads, head dim */
    int act_bytes;               /* of q, k, v, o */
    int dkv_bytes;               /* of dk, dv in transfers */
    int tile;                    /* kernels compute whole tile x tile squares */
    double fwd_flops, bwd_flops; /* FLOP/s on full tiles */
    double memory_bw;            /* bytes/s: fp32 o carried between stages */
    double link_bw;              /* bytes/s per rank and direction, inside a node */
    double node_bw;              /* the same between nodes */
    double launch_s;             /* fixed cost of one attention call */
    double message_s;            /* fixed cost of one group of transfers */
} CostModel;

/* One H200 with NVLink, bf16. Attention, fwd / bwd, as measured there (causal, 32k tokens):
 * TFLOP/s 540 / 487 for D <= 64, 690 / 560 above. 270 GB/s per direction inside a node, 27 GB/s
 * between nodes. dkv travels in fp32. */
CostModel cost_default(int H, int K, int D);

/* One stage of one rank; [0] forward, [1] backward. */
typedef struct {
    int64_t tile_area; /* pairs computed, in whole tiles */
    int64_t q_rows;    /* rows whose o is carried through this stage */
    int64_t in[2];     /* bytes that must arrive before the call: KV (ulysses: q, k, v; dO) */
    int64_t out[2];    /* bytes that leave after it: dKV (ulysses: o; dq, dk, dv) */
    double far;        /* share of these bytes that crosses nodes; both kinds travel side by side */
} CostStage;

typedef enum { COST_COMPUTE, COST_COMM } CostStream;
typedef struct {
    double begin, end; /* seconds from the start of the layer */
    CostStream stream;
    int stage;
    const char *what; /* "attention", "in", "out" */
} CostInterval;

typedef struct {
    double seconds;          /* of the layer's attention, transfers included */
    double compute;          /* of which attention kernels alone */
    double exposed;          /* seconds - compute: transfers that nothing hides */
    CostInterval *intervals; /* in order of issue; cost_timeline_free releases them */
    int n_intervals;
} CostTimeline;

/* Forward: the input of stage i + 1 travels while stage i computes (two buffers). Backward: the
 * last stage first (its KV was kept), then 1, 2, ..., and stage 0, the local part, last; the output
 * of a stage travels under the next one. Pass intervals = false for the figures alone. */
CostTimeline cost_forward(const CostModel *m, const CostStage *stages, int n, bool intervals);
CostTimeline cost_backward(const CostModel *m, const CostStage *stages, int n, bool intervals);
void cost_timeline_free(CostTimeline *t);

/* What is known of a rank before its stages are cut. */
typedef struct {
    int64_t local_tile_area, remote_tile_area, q_rows;
    int64_t in, out; /* bytes of KV, forward and backward; bytes of dKV, backward */
    double far;
} CostRank;

/* out[0 .. degree]: the local part, then the remote part in `degree` equal stages; degree 0: one
 * stage of everything. */
void cost_equal_stages(const CostRank *r, int degree, CostStage *out);

/* The overlap degree in {0, 1, 2, 4, OVERLAP_DEGREE_MAX} with the least predicted forward +
 * backward time of the slowest rank; the smaller degree when equal. */
int cost_choose_degree(const CostModel *m, const CostRank *ranks, int n);

#endif
