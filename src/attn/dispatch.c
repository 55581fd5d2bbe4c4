#include "attn/dispatch.h"

#include <inttypes.h>
#include <stdlib.h>

#include "attn/balance.h"

#define DEFAULT_CHUNKS_PER_RANK 8 /* balance wants many chunks, locality few (magi.md 6.3) */
#define DEFAULT_SLACK           0.04
#define BALANCED                0.01 /* imbalance at which contiguous shards need no improvement */
#define TRIALS_PER_GROUP        128 /* where local search stops paying with 8 chunks a group, and */
#define TRIALS_PER_CHUNK        4   /* with many (measured) */
#define MAX_TRIALS              (1 << 18)
#define MAX_COST                (1 << 24) /* see assignment_cost: half a second, 8 M bands a rank */

const char *const dispatch_kind_names[DISPATCH_KINDS] = {
#define X(name, text) text,
    DISPATCH_LIST(X)
#undef X
};

/* ---- the grid ---------------------------------------------------------------------------- */

/* Among multiples of `align` near `aim`: the least padding (in steps of S / 64, below which padding
 * does not matter), then the nearest to aim. `unit` divides the number of chunks. */
static int64_t choose_chunk(int64_t S, int64_t aim, int64_t unit) {
    int64_t align = 1;
    while (2 * align <= i64_min(ATTN_TILE, aim)) align *= 2;
    int64_t best = 0, best_waste = INT64_MAX;
    for (int64_t c = round_up(i64_max(1, aim / 3), align); c <= 2 * aim; c += align) {
        int64_t waste = ceil_div(64 * (round_up(S, c * unit) - S), S);
        if (waste > best_waste || (waste == best_waste && llabs(c - aim) >= llabs(best - aim)))
            continue;
        best = c;
        best_waste = waste;
    }
    REQUIRE(best > 0);
    return best;
}

Status dispatch_grid(int64_t S, const DispatchOptions *o, int32_t *chunk, int32_t *n_chunks) {
    if (S < 1 || S > BAND_MAX_TOKENS)
        return status_fail(ERR_USER,
                           "dispatch: a stream of %" PRId64 " tokens; 1 to %d are possible", S,
                           BAND_MAX_TOKENS);
    if (o->P < 1 || o->P > (1 << 20))
        return status_fail(ERR_USER, "dispatch: %d ranks; 1 to %d are possible", o->P, 1 << 20);
    if (o->ranks_per_node < 0 || (o->ranks_per_node > 0 && o->P % o->ranks_per_node != 0))
        return status_fail(ERR_USER, "dispatch: %d ranks do not fill nodes of %d", o->P,
                           o->ranks_per_node);
    if (o->chunk < 0 || (o->P > 1 && o->chunk > 1 && ceil_div(S, o->chunk) < o->P))
        return status_fail(
            ERR_USER,
            "parallel.chunk_size: chunks of %" PRId64 " tokens leave some of %d ranks "
            "without a part of %" PRId64 " tokens; use at most %" PRId64 ", or 0 to have it chosen",
            o->chunk, o->P, S, ceil_div(S, o->P));
    int64_t per_rank = o->chunks_per_rank > 0 ? o->chunks_per_rank : DEFAULT_CHUNKS_PER_RANK;
    int64_t c = o->chunk, unit = o->P;
    if (o->P == 1) {
        c = S;
    } else if (c == 0) {
        int64_t aim = i64_max(1, S / (per_rank * o->P));
        /* zigzag gives a rank two pieces of T / 2P of every sequence; chunks should not straddle */
        int64_t piece = o->T > 0 ? o->T / (2 * o->P) : aim;
        if (per_rank > 1) aim = i64_min(aim, i64_max(piece, i64_min(aim, ATTN_TILE)));
        if (per_rank % 2 == 0) unit = 2 * o->P;
        c = choose_chunk(S, aim, unit);
    }
    int64_t n = round_up(ceil_div(S, c), unit);
    if (n * c > 2 * (int64_t)BAND_MAX_TOKENS)
        return status_fail(ERR_USER,
                           "dispatch: %d ranks are too many for %" PRId64
                           " tokens in chunks of %" PRId64,
                           o->P, S, c);
    *chunk = (int32_t)c;
    *n_chunks = (int32_t)n;
    return OK;
}

/* ---- assignments: owner[i] = rank of chunk i ---------------------------------------------- */

static void assign_contiguous(Dispatch *d) {
    for (int32_t i = 0; i < d->n_chunks; i++) d->owner[i] = i / d->chunks_per_rank;
}

/* Chunks of a piece: of 2P pieces of each sequence, or of the stream. 0: neither can be cut like
 * that. */
static int64_t zigzag_run(const Dispatch *d, int64_t T) {
    int32_t pieces = 2 * d->P;
    if (T > 0 && d->S % T == 0 && d->padded == d->S && T % ((int64_t)pieces * d->chunk) == 0)
        return T / pieces / d->chunk;
    return d->n_chunks % pieces == 0 ? d->n_chunks / pieces : 0;
}

static void assign_zigzag(Dispatch *d, int64_t T) {
    int32_t pieces = 2 * d->P;
    int64_t run = i64_max(1, zigzag_run(d, T));
    for (int32_t i = 0; i < d->n_chunks; i++) {
        int32_t piece = (int32_t)(i / run % pieces);
        d->owner[i] = piece < d->P ? piece : pieces - 1 - piece;
    }
}

/* What the balancing algorithms need to know of every chunk. */
typedef struct {
    BalanceInput in;
    int64_t *load, *first_key;
    RangeList keys;
    int32_t *ids; /* 0, 1, 2, ... */
} ChunkStats;

static void chunk_stats_build(ChunkStats *s, const Dispatch *d, const Mask *mask) {
    int64_t n = d->n_chunks;
    Band cut;
    *s = (ChunkStats){
        .load = NEW(int64_t, n), .first_key = NEW(int64_t, n + 1), .ids = NEW(int32_t, n)};
    for (int32_t i = 0; i < n; i++) {
        s->ids[i] = i;
        Range rows = {i * d->chunk, (i + 1) * d->chunk};
        int64_t start = s->keys.n;
        for (MaskRows at = mask_rows(mask, rows); mask_next(&at, &cut);) {
            s->load[i] += band_area(cut);
            range_list_add(&s->keys, cut.k_begin, cut.k_end);
        }
        if (s->keys.n > start)
            s->keys.n = start + range_normalize(s->keys.ranges + start, s->keys.n - start);
        s->first_key[i + 1] = s->keys.n;
    }
    s->in = (BalanceInput){n, d->chunk, s->load, s->keys.ranges, s->first_key};
}

static void chunk_stats_free(ChunkStats *s) {
    free(s->load);
    free(s->first_key);
    free(s->ids);
    range_list_free(&s->keys);
}

/* Greatest load of a rank over the mean, minus 1. */
static double imbalance(const Dispatch *d, const ChunkStats *s) {
    int64_t *load = NEW(int64_t, d->P), total = 0, most = 0;
    for (int32_t i = 0; i < d->n_chunks; i++) {
        load[d->owner[i]] += s->load[i];
        total += s->load[i];
        most = i64_max(most, load[d->owner[i]]);
    }
    free(load);
    return total > 0 ? (double)most * d->P / (double)total - 1 : 0;
}

static int64_t trial_budget(const DispatchOptions *o, int64_t groups, int64_t chunks) {
    if (o->trials != 0) return i64_max(0, o->trials);
    return i64_min(i64_max(TRIALS_PER_GROUP * groups, TRIALS_PER_CHUNK * chunks), MAX_TRIALS);
}

static double slack_of(const DispatchOptions *o) {
    return o->slack > 0 ? o->slack : DEFAULT_SLACK;
}

static void assign_local_search(Dispatch *d, const ChunkStats *s, const DispatchOptions *o) {
    int64_t trials = trial_budget(o, d->P, d->n_chunks);
    assign_contiguous(d);
    balance_local_search(&s->in, s->ids, d->n_chunks, d->P, slack_of(o), trials, d->owner);
    double found = imbalance(d, s);
    if (found <= slack_of(o) + BALANCED) return;
    /* chunks too coarse or too uneven for swaps from there: start where balance is best */
    int32_t *contiguous = d->owner;
    d->owner = NEW(int32_t, d->n_chunks);
    balance_min_heap(&s->in, s->ids, d->n_chunks, d->P, d->owner);
    balance_local_search(&s->in, s->ids, d->n_chunks, d->P, slack_of(o), trials, d->owner);
    if (imbalance(d, s) >= found) {
        int32_t *t = d->owner;
        d->owner = contiguous;
        contiguous = t;
    }
    free(contiguous);
}

/* Chunks to nodes first, so that few rows cross nodes, then to the ranks of each node. */
static void assign_two_level(Dispatch *d, const ChunkStats *s, const DispatchOptions *o) {
    int ranks = o->ranks_per_node, nodes = d->P / ranks;
    int32_t per_node = d->n_chunks / nodes;
    int32_t *node = NEW(int32_t, d->n_chunks), *filled = NEW(int32_t, nodes);
    int32_t *ids = NEW(int32_t, d->n_chunks), *rank = NEW(int32_t, per_node);
    double slack = slack_of(o) / 2; /* both levels together stay within it */
    for (int32_t i = 0; i < d->n_chunks; i++) node[i] = i / per_node;
    balance_local_search(&s->in, s->ids, d->n_chunks, nodes, slack,
                         trial_budget(o, nodes, d->n_chunks), node);
    for (int32_t i = 0; i < d->n_chunks; i++) ids[node[i] * per_node + filled[node[i]]++] = i;
    for (int n = 0; n < nodes; n++) {
        const int32_t *mine = ids + (int64_t)n * per_node;
        for (int32_t k = 0; k < per_node; k++) rank[k] = k / d->chunks_per_rank;
        balance_local_search(&s->in, mine, per_node, ranks, slack, trial_budget(o, ranks, per_node),
                             rank);
        for (int32_t k = 0; k < per_node; k++) d->owner[mine[k]] = n * ranks + rank[k];
    }
    free(node);
    free(filled);
    free(ids);
    free(rank);
}

static void assign(Dispatch *d, const ChunkStats *s, const DispatchOptions *o) {
    switch (d->kind) {
    case DISPATCH_CONTIGUOUS:
        assign_contiguous(d);
        break;
    case DISPATCH_ZIGZAG:
        assign_zigzag(d, o->T);
        break;
    case DISPATCH_MIN_HEAP:
        balance_min_heap(&s->in, s->ids, d->n_chunks, d->P, d->owner);
        break;
    case DISPATCH_LOCAL_SEARCH:
        assign_local_search(d, s, o);
        break;
    case DISPATCH_TWO_LEVEL:
        assign_two_level(d, s, o);
        break;
    case DISPATCH_AUTO:
    case DISPATCH_KINDS:
        base_bug(__FILE__, __LINE__, "a dispatch kind that assigns");
    }
}

static DispatchKind choose_kind(Dispatch *d, const Mask *mask, const ChunkStats *s,
                                const DispatchOptions *o) {
    int64_t T;
    bool window;
    MaskKind form = mask_form(mask, &T, &window);
    assign_contiguous(d);
    if (form == MASK_FULL || window || imbalance(d, s) <= BALANCED) return DISPATCH_CONTIGUOUS;
    if (form == MASK_CAUSAL) {
        assign_zigzag(d, o->T);
        if (imbalance(d, s) <= slack_of(o)) return DISPATCH_ZIGZAG;
    }
    bool nodes = o->ranks_per_node > 0 && o->ranks_per_node < d->P;
    return nodes ? DISPATCH_TWO_LEVEL : DISPATCH_LOCAL_SEARCH;
}

/* ---- more chunks than can be assigned one by one ------------------------------------------- */

/* Trials of the local search times the chunks that each looks at. Where the chunks of a rank lie
 * scattered, a rank has up to half as many bands under a causal mask. */
static int64_t assignment_cost(int64_t n_chunks, int64_t chunks_per_rank) {
    return i64_min(n_chunks, MAX_TRIALS / TRIALS_PER_CHUNK) * chunks_per_rank;
}

/* How many neighbouring chunks to assign together: the fewest that cost no more than MAX_COST, or
 * somewhat more if that number divides the chunks of a rank. 1: each by itself. */
static int32_t chunks_of_block(const Dispatch *d, const DispatchOptions *o) {
    bool search = d->kind == DISPATCH_LOCAL_SEARCH || d->kind == DISPATCH_TWO_LEVEL;
    if (!search && (d->kind != DISPATCH_ZIGZAG || zigzag_run(d, o->T) > 0)) return 1;
    int32_t m = d->chunks_per_rank, fewest = 1;
    while (assignment_cost((int64_t)d->P * (m / fewest), m / fewest) > MAX_COST) fewest++;
    for (int32_t f = fewest; f < 2 * fewest; f++)
        if (m % f == 0) return f;
    return fewest;
}

/* The blocks as chunks of a grid of their own. What does not fill a block for every rank is the end
 * of the stream, which every rank holds an equal part of. */
static void assign_blocks(Dispatch *d, const Mask *mask, const DispatchOptions *o, int32_t block) {
    int32_t blocks = d->chunks_per_rank / block, rest = d->chunks_per_rank % block;
    Dispatch coarse = {.P = d->P,
                       .kind = d->kind,
                       .S = d->S,
                       .padded = (int64_t)d->P * blocks * block * d->chunk,
                       .chunk = block * d->chunk,
                       .n_chunks = d->P * blocks,
                       .chunks_per_rank = blocks,
                       .owner = NEW(int32_t, d->P * (int64_t)blocks)};
    ChunkStats s;
    chunk_stats_build(&s, &coarse, mask);
    assign(&coarse, &s, o);
    chunk_stats_free(&s);
    int32_t assigned = coarse.n_chunks * block;
    for (int32_t i = 0; i < d->n_chunks; i++)
        d->owner[i] = i < assigned ? coarse.owner[i / block] : (i - assigned) / rest;
    dispatch_free(&coarse);
}

/* ---- public entry --------------------------------------------------------------------------- */

Status dispatch_build(Dispatch *out, const Mask *mask, const DispatchOptions *o) {
    *out = (Dispatch){0};
    int32_t chunk, n;
    CHECK(dispatch_grid(mask->S, o, &chunk, &n));
    Dispatch *d = out;
    *d = (Dispatch){.P = o->P,
                    .kind = o->kind,
                    .S = mask->S,
                    .padded = (int64_t)n * chunk,
                    .chunk = chunk,
                    .n_chunks = n,
                    .chunks_per_rank = n / o->P,
                    .rows = n / o->P * chunk,
                    .owner = NEW(int32_t, n),
                    .slot = NEW(int32_t, n),
                    .chunks = NEW(int32_t, n)};
    if (o->kind == DISPATCH_TWO_LEVEL && o->ranks_per_node == 0) d->kind = DISPATCH_LOCAL_SEARCH;
    if (o->P == 1) d->kind = DISPATCH_CONTIGUOUS;
    ChunkStats s = {0};
    bool stats = d->kind != DISPATCH_CONTIGUOUS && d->kind != DISPATCH_ZIGZAG;
    if (stats) chunk_stats_build(&s, d, mask);
    if (d->kind == DISPATCH_AUTO) d->kind = choose_kind(d, mask, &s, o);
    int32_t block = chunks_of_block(d, o);
    if (block > 1)
        assign_blocks(d, mask, o, block);
    else
        assign(d, &s, o);
    if (stats) chunk_stats_free(&s);

    int32_t *filled = NEW(int32_t, o->P);
    for (int32_t i = 0; i < n; i++) {
        int32_t rank = d->owner[i];
        d->slot[i] = filled[rank]++;
        d->chunks[(int64_t)rank * d->chunks_per_rank + d->slot[i]] = i;
    }
    for (int r = 0; r < o->P; r++) REQUIRE(filled[r] == d->chunks_per_rank);
    free(filled);
    return OK;
}

void dispatch_free(Dispatch *d) {
    free(d->owner);
    free(d->slot);
    free(d->chunks);
    *d = (Dispatch){0};
}

void dispatch_runs(const Dispatch *d, int rank, RangeList *out) {
    const int32_t *chunks = d->chunks + (int64_t)rank * d->chunks_per_rank;
    for (int32_t k = 0; k < d->chunks_per_rank; k++) {
        int32_t begin = chunks[k] * d->chunk;
        if (k > 0 && chunks[k] == chunks[k - 1] + 1)
            out->ranges[out->n - 1].end += d->chunk;
        else
            range_list_add(out, begin, begin + d->chunk);
    }
}
