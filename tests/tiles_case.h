/* tiles_case.h: a mask, remote ranges and tile sizes made of bytes, and its work lists checked
 * against the mask. test_tiles.c draws the bytes, fuzz_tiles.c gets them from the fuzzer. */
#ifndef CRIA_TILES_CASE_H
#define CRIA_TILES_CASE_H

#include <stdlib.h>
#include <string.h>

#include "attn/tiles.h"
#include "base/base.h"

static const AttnTuning tiles_tuning = {.ctas = 4,
                                        .step_us = 2,
                                        .item_steps = 0.5,
                                        .split_pass_us = 2.25,
                                        .min_split_steps = 4,
                                        .min_gain = 0.05,
                                        .min_gain_us = 8};

typedef struct {
    const uint8_t *bytes;
    size_t left;
} Choices;

/* 0 <= x < n; 0 when all bytes are used. */
static inline int32_t choose(Choices *c, int64_t n) {
    uint32_t x = 0;
    for (int i = 0; i < 2 && c->left > 0; i++, c->left--) x = x << 8 | *c->bytes++;
    return (int32_t)(x % (uint64_t)n);
}

typedef struct {
    Band bands[64];
    int64_t n;
    int32_t Sq, Sk;
    RemoteKv remote;
    AttnGrid by_q, by_k;
    uint8_t *want, *got, *written; /* [Sq, Sk] pairs; rows */
} TilesCase;

static inline void add_choice(TilesCase *t, Range q, Range k, int32_t lo, int32_t hi) {
    if (q.begin < q.end && k.begin < k.end && lo <= hi && t->n < 64)
        t->bands[t->n++] = (Band){q.begin, q.end, k.begin, k.end, lo, hi};
}

/* Cuts a rectangle; each piece is empty, full, causal, inverse, a window, or two bands that share
 * it along a diagonal. */
static inline void choose_bands(TilesCase *t, Choices *c, Range q, Range k, int depth) {
    if (depth > 0 && choose(c, 5) > 0) {
        if (choose(c, 2) && q.end - q.begin > 1) {
            int32_t cut = q.begin + 1 + choose(c, q.end - q.begin - 1);
            choose_bands(t, c, (Range){q.begin, cut}, k, depth - 1);
            choose_bands(t, c, (Range){cut, q.end}, k, depth - 1);
            return;
        }
        if (k.end - k.begin > 1) {
            int32_t cut = k.begin + 1 + choose(c, k.end - k.begin - 1);
            choose_bands(t, c, q, (Range){k.begin, cut}, depth - 1);
            choose_bands(t, c, q, (Range){cut, k.end}, depth - 1);
            return;
        }
    }
    int32_t span = k.end - k.begin + q.end - q.begin + 1;
    int32_t a = k.begin - q.end + choose(c, span), b = k.begin - q.end + choose(c, span);
    switch (choose(c, 7)) {
    case 1:
        add_choice(t, q, k, BAND_NO_LO, BAND_NO_HI);
        break;
    case 2:
        add_choice(t, q, k, BAND_NO_LO, k.end - q.end);
        break;
    case 3:
        add_choice(t, q, k, k.begin - q.begin, BAND_NO_HI);
        break;
    case 4:
        add_choice(t, q, k, a < b ? a : b, a < b ? b : a);
        break;
    case 5:
        add_choice(t, q, k, BAND_NO_LO, a);
        break;
    case 6:
        add_choice(t, q, k, BAND_NO_LO, a);
        add_choice(t, q, k, a + 1, BAND_NO_HI);
        break;
    default:
        break;
    }
}

static inline bool band_has(Band b, int32_t q, int32_t k) {
    return q >= b.q_begin && q < b.q_end && k >= b.k_begin && k < b.k_end && k - q >= b.lo &&
           k - q <= b.hi;
}

static inline bool is_padding(const RemoteKv *remote, int32_t key) {
    for (int i = 0; i < remote->n; i++)
        if (key >= remote->rows[i].begin - ATTN_PAD_ROWS && key < remote->rows[i].begin)
            return true;
    return false;
}

/* A tile's place: among the splits of its row tile, and in the order of groups and lengths. */
static inline void check_place(const TilesCase *c, const AttnTiles *list, int64_t t,
                               const AttnTile **latest, bool by_k) {
    const AttnTile *tile = &list->tiles[t], *last = t > 0 ? tile - 1 : NULL;
    REQUIRE(tile->kv_split >= 0 && tile->kv_split < tile->kv_splits);
    if (tile->kv_splits > 1) {
        REQUIRE(tile->split_tile < list->n_split_tiles);
        const AttnTile *before = latest[tile->split_tile];
        REQUIRE((before == NULL) == (tile->kv_split == 0));
        REQUIRE(before == NULL ||
                (before->row0 == tile->row0 && before->rows == tile->rows &&
                 before->kv_splits == tile->kv_splits && before->kv_split + 1 == tile->kv_split &&
                 before->schedule_group < tile->schedule_group));
        latest[tile->split_tile] = tile;
    }
    REQUIRE(tile->kv_split + 1 == tile->kv_splits || tile->n_steps >= tiles_tuning.min_split_steps);
    REQUIRE(c->remote.n > 0 || (t < list->n_busy) == (tile->n_steps > 0));
    REQUIRE(last == NULL || last->schedule_group < tile->schedule_group ||
            (last->schedule_group == tile->schedule_group && last->n_steps >= tile->n_steps));
    for (int i = 0; by_k && i < c->remote.n; i++) {
        Range rows = c->remote.rows[i];
        bool inside = tile->row0 >= rows.begin && tile->row0 < rows.end;
        REQUIRE(inside == (tile->schedule_group == 1 + i));
        REQUIRE(!inside || tile->row0 + tile->rows <= rows.end);
    }
}

/* Counts the pairs that a run walks. */
static inline void walk_run(TilesCase *c, const AttnTile *tile, const AttnRun *run, AttnGrid grid,
                            const AttnBlocks *dq_blocks, int32_t *order) {
    int32_t n_columns = dq_blocks ? c->Sq : c->Sk;
    for (int32_t j = run->n_steps - 1; j >= 0; j--) {
        int32_t c0 = run->first + j * grid.step, block = run->dq_block + j;
        bool full = j >= run->full_begin && j < run->full_end;
        if (dq_blocks) {
            REQUIRE(c0 == dq_blocks->at[block] && order[block]++ == run->dq_order);
            REQUIRE(run->band.k_end <= dq_blocks->at[block + 1] ||
                    dq_blocks->at[block + 1] == c0 + grid.step);
        }
        for (int32_t r = 0; r < (dq_blocks ? grid.rows : tile->rows); r++)
            for (int32_t k = c0; k < c0 + grid.step; k++) {
                int32_t row = tile->row0 + r;
                if (!full && !band_has(run->band, row, k)) continue;
                if (dq_blocks && k >= run->band.k_end) continue; /* its lse is +inf */
                REQUIRE(r < tile->rows && k < n_columns);
                int64_t pair = dq_blocks ? (int64_t)k * c->Sk + row : (int64_t)row * c->Sk + k;
                REQUIRE(c->got[pair]++ == 0);
            }
    }
}

/* Every allowed pair is walked once and no other. Every row is written by one tile, or by one whose
 * splits come in order, and no split needs a range of a later schedule group. In each group longer
 * tiles come first. With dq blocks: steps lie on their grid, a block's order counts up one by one,
 * and the tiles of a remote range hold rows of no other and have its group. */
static inline void check_tiles(TilesCase *c, const AttnTiles *list, AttnGrid grid,
                               const AttnBlocks *dq_blocks, bool split) {
    int32_t n_rows = dq_blocks ? c->Sk : c->Sq, *order = NEW(int32_t, dq_blocks ? dq_blocks->n : 1);
    const AttnTile **latest = NEW(const AttnTile *, list->n_split_tiles + 1);
    memset(c->got, 0, (size_t)c->Sq * (size_t)c->Sk);
    memset(c->written, 0, (size_t)(c->Sq + c->Sk));
    for (int64_t t = 0; t < list->n_tiles; t++) {
        const AttnTile *tile = &list->tiles[t];
        REQUIRE(tile->rows > 0 && tile->rows <= grid.rows);
        for (int32_t r = 0; r < tile->rows && tile->kv_split == 0; r++)
            REQUIRE(c->written[tile->row0 + r]++ == 0);
        int32_t steps = 0, group = tile->schedule_group;
        for (int32_t i = tile->run_begin; i < tile->run_end; i++) {
            const AttnRun *run = &list->runs[i];
            REQUIRE(run->n_steps > 0);
            steps += run->n_steps;
            REQUIRE(!split || group >= c->remote.n ||
                    run->band.k_end <= c->remote.rows[group].begin - ATTN_PAD_ROWS);
            walk_run(c, tile, run, grid, dq_blocks, order);
        }
        REQUIRE(steps == tile->n_steps);
        check_place(c, list, t, latest, dq_blocks != NULL);
    }
    for (int64_t i = 0; i < list->n_split_tiles; i++)
        REQUIRE(latest[i] != NULL && latest[i]->kv_split + 1 == latest[i]->kv_splits);
    for (int32_t r = 0; r < n_rows; r++)
        REQUIRE(c->written[r] == !(dq_blocks && is_padding(&c->remote, r)));
    REQUIRE(memcmp(c->got, c->want, (size_t)c->Sq * (size_t)c->Sk) == 0);
    free(order);
    free(latest);
}

/* Makes a case of the bytes and checks its lists; returns how many splits it has beyond its tiles.
 */
static inline int64_t check_tiles_case(const uint8_t *data, size_t size, int32_t rows_max) {
    Choices choices = {data, size}, *from = &choices;
    TilesCase c = {.Sq = 1 + choose(from, rows_max), .Sk = 1 + choose(from, rows_max)};
    c.by_q = (AttnGrid){64 * (1 + choose(from, 3)), choose(from, 2) ? 80 : 128};
    c.by_k = (AttnGrid){128, choose(from, 2) ? 64 : 128};
    Range rows = {0, c.Sq};
    double steps_before[ATTN_REMOTE_RANGES];
    int ranges = choose(from, 5);
    choose_bands(&c, from, rows, (Range){0, c.Sk}, choose(from, 7));
    for (int i = 0; i < ranges; i++) {
        Range keys = {c.Sk + ATTN_PAD_ROWS, c.Sk + ATTN_PAD_ROWS + choose(from, 300)};
        c.remote.rows[c.remote.n++] = keys;
        c.remote.est_ready_us[i] = (float)(10 * i + choose(from, 100));
        steps_before[i] = choose(from, 60) + (i ? steps_before[i - 1] : 0);
        c.Sk = keys.end;
        if (keys.begin < keys.end) choose_bands(&c, from, rows, keys, choose(from, 5));
    }
    c.want = NEW(uint8_t, (int64_t)c.Sq * c.Sk);
    c.got = NEW(uint8_t, (int64_t)c.Sq * c.Sk);
    c.written = NEW(uint8_t, c.Sq + c.Sk);
    for (int64_t i = 0; i < c.n; i++)
        for (int32_t q = c.bands[i].q_begin; q < c.bands[i].q_end; q++)
            for (int32_t k = c.bands[i].k_begin; k < c.bands[i].k_end; k++)
                c.want[(int64_t)q * c.Sk + k] |= band_has(c.bands[i], q, k);
    AttnBlocks dq_blocks = attn_dq_blocks(c.bands, c.n, c.Sq, c.by_k.step);
    AttnTiles lists[4] = {
        attn_tiles_by_q(c.bands, c.n, c.Sq, c.by_q, &c.remote, NULL, &tiles_tuning),
        attn_tiles_by_q(c.bands, c.n, c.Sq, c.by_q, &c.remote, steps_before, &tiles_tuning),
        attn_tiles_by_k(c.bands, c.n, c.Sk, c.by_k, &dq_blocks, &c.remote)};
    double us = 0, whole_us = attn_tiles_span_us(&lists[0], 3, &c.remote, &tiles_tuning);
    lists[3] = attn_tiles_fwd(c.bands, c.n, c.Sq, c.by_q, &c.remote, 3, &tiles_tuning, &us);
    REQUIRE(us == attn_tiles_span_us(&lists[3], 3, &c.remote, &tiles_tuning));
    REQUIRE(us == whole_us || us < 0.95 * whole_us);
    check_tiles(&c, &lists[0], c.by_q, NULL, false);
    check_tiles(&c, &lists[1], c.by_q, NULL, true);
    check_tiles(&c, &lists[2], c.by_k, &dq_blocks, false);
    check_tiles(&c, &lists[3], c.by_q, NULL, lists[3].n_split_tiles > 0);
    int64_t splits = lists[1].n_tiles - lists[0].n_tiles;
    for (int i = 0; i < 4; i++) attn_tiles_free(&lists[i]);
    free(dq_blocks.at);
    free(c.want);
    free(c.got);
    free(c.written);
    return splits;
}

#endif
