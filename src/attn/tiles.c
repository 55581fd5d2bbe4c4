#include "attn/tiles.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static int compare_int32(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int compare_tiles(const void *a, const void *b) {
    const AttnTile *x = a, *y = b;
    if (x->schedule_group != y->schedule_group) return x->schedule_group - y->schedule_group;
    if (x->n_steps != y->n_steps) return x->n_steps > y->n_steps ? -1 : 1;
    return (x->row0 > y->row0) - (x->row0 < y->row0);
}

static int compare_bands(const void *a, const void *b) {
    const Band *x = a, *y = b;
    if (x->q_begin != y->q_begin) return x->q_begin < y->q_begin ? -1 : 1;
    return (x->k_begin > y->k_begin) - (x->k_begin < y->k_begin);
}

/* Sorts key ranges by arrival, so that a row tile meets local keys first. */
static int compare_by_key(const void *a, const void *b) {
    const Band *x = a, *y = b;
    if (x->k_begin != y->k_begin) return x->k_begin < y->k_begin ? -1 : 1;
    return (x->q_begin > y->q_begin) - (x->q_begin < y->q_begin);
}

static Band band_transpose(Band b) {
    return (Band){b.k_begin, b.k_end, b.q_begin, b.q_end, -b.hi, -b.lo};
}

/* The first begin or end of a remote range, or of its padding, after `row`. */
static int32_t next_range_edge(const RemoteKv *remote, int32_t row) {
    for (int i = 0; i < remote->n; i++) {
        const int32_t edges[] = {remote->rows[i].begin - ATTN_PAD_ROWS, remote->rows[i].begin,
                                 remote->rows[i].end};
        for (int e = 0; e < 3; e++)
            if (edges[e] > row) return edges[e];
    }
    return INT32_MAX;
}

/* Cuts rows [0, n_rows) into blocks of full height. A block ends early where the next stretch
 * between band edges is at least half a block high, and where a remote range begins or ends (remote
 * NULL: there is none). A stretch's short block is its last one. */
static AttnBlocks cut_rows(const Band *bands, int64_t n_bands, int32_t n_rows, int32_t height,
                           const RemoteKv *remote) {
    int32_t *edges = NEW(int32_t, 2 * n_bands + 1);
    int64_t n = 0, used = 0;
    for (int64_t i = 0; i < n_bands; i++) {
        edges[n++] = bands[i].q_begin;
        edges[n++] = bands[i].q_end;
    }
    qsort(edges, (size_t)n, sizeof *edges, compare_int32);
    for (int64_t i = 0; i < n; i++) {
        bool inner = edges[i] > 0 && edges[i] < n_rows;
        if (inner && (used == 0 || edges[used - 1] != edges[i])) edges[used++] = edges[i];
    }
    edges[used] = n_rows;
    AttnBlocks blocks = {NEW(int32_t, n_rows / height + used + 3 + 3 * ATTN_REMOTE_RANGES), 0};
    int64_t next = 0; /* the first edge after the block's start */
    for (int32_t row = 0; row < n_rows;) {
        int32_t end = row + height < n_rows ? row + height : n_rows;
        if (remote != NULL) end = (int32_t)i64_min(end, next_range_edge(remote, row));
        while (next < used && edges[next] <= row) next++;
        for (int64_t i = next; i < used && edges[i] < end; i++)
            if (edges[i + 1] - edges[i] >= height / 2) end = edges[i];
        blocks.at[++blocks.n] = end;
        row = end;
    }
    free(edges);
    return blocks;
}

/* The same, but that a stretch's short block is its first one. Under a causal mask the last block
 * of a stretch walks the most columns, the first one the fewest: documents of 100 to 4,000 tokens
 * take 5 % fewer steps. */
static AttnBlocks cut_rows_from_end(const Band *bands, int64_t n_bands, int32_t n_rows,
                                    int32_t height) {
    Band *mirrored = NEW(Band, n_bands);
    for (int64_t i = 0; i < n_bands; i++) {
        mirrored[i].q_begin = n_rows - bands[i].q_end;
        mirrored[i].q_end = n_rows - bands[i].q_begin;
    }
    AttnBlocks found = cut_rows(mirrored, n_bands, n_rows, height, NULL);
    AttnBlocks blocks = {NEW(int32_t, found.n + 1), found.n};
    for (int64_t i = 0; i <= found.n; i++) blocks.at[i] = n_rows - found.at[found.n - i];
    free(mirrored);
    free(found.at);
    return blocks;
}

static int64_t block_of(const AttnBlocks *blocks, int32_t row) {
    int64_t lo = 0, hi = blocks->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (blocks->at[mid + 1] <= row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* What a tile walks of one band: columns [first, last), with every pair allowed in the columns
 * [full_lo, full_hi). */
typedef struct {
    int64_t first, last, full_lo, full_hi;
    Band band;
} TileBand;

/* False when the tile sees no pair of the band. `by_k`: columns are full only if the band covers
 * all `height` rows, not just those that the tile writes, because all of them go into dq; columns
 * past the band's end do no harm, because the kernel sets their lse to +inf, so P = 0. */
static bool clip_band(TileBand *seen, const AttnTile *tile, Band band, int height, bool by_k) {
    int64_t row_end = tile->row0 + (by_k ? height : tile->rows);
    bool covers =
        band.q_begin <= tile->row0 && band.q_end >= row_end && tile->row0 + tile->rows >= row_end;
    /* rows that see at least one column */
    int64_t a = i64_max(i64_max(band.q_begin, tile->row0), (int64_t)band.k_begin - band.hi);
    int64_t b =
        i64_min(i64_min(band.q_end, tile->row0 + tile->rows), (int64_t)band.k_end - band.lo);
    seen->first = i64_max(band.k_begin, a + band.lo);
    seen->last = i64_min(band.k_end, b + band.hi);
    seen->full_lo = covers ? i64_max(band.k_begin, row_end - 1 + band.lo) : INT32_MAX;
    seen->full_hi = i64_min(by_k ? INT32_MAX : band.k_end, (int64_t)tile->row0 + band.hi + 1);
    seen->band = band;
    seen->band.q_begin = (int32_t)i64_max(band.q_begin, tile->row0);
    seen->band.q_end = (int32_t)i64_min(band.q_end, tile->row0 + tile->rows);
    return a < b && seen->first < seen->last && band.lo <= band.hi;
}

/* The run of n_steps steps from column `first` on. */
static AttnRun make_run(const TileBand *seen, int64_t first, int64_t n_steps, int step) {
    AttnRun run;
    memset(&run, 0, sizeof run);
    run.first = (int32_t)first;
    run.n_steps = (int32_t)n_steps;
    run.band = seen->band;
    int64_t begin = i64_max(0, ceil_div(seen->full_lo - first, step));
    int64_t end = seen->full_hi > first ? i64_min(n_steps, (seen->full_hi - first) / step) : 0;
    if (begin < end) {
        run.full_begin = (int32_t)begin;
        run.full_end = (int32_t)end;
    }
    return run;
}

static void add_run(AttnTiles *list, AttnRun run) {
    GROW(list->runs, list->n_runs, list->runs_capacity);
    list->runs[list->n_runs++] = run;
}

/* Adds a run, cut into pieces whose steps all have the same dq_order, in the order of the walk.
 * steps_added[block] counts the steps that add to the block so far. */
static void add_ordered_run(AttnTiles *list, AttnRun run, int step, int32_t *steps_added) {
    for (int32_t begin, end = run.n_steps; end > 0; end = begin) {
        AttnRun piece = run;
        piece.dq_order = steps_added[run.dq_block + end - 1];
        for (begin = end; begin > 0 && steps_added[run.dq_block + begin - 1] == piece.dq_order;
             begin--)
            steps_added[run.dq_block + begin - 1]++;
        piece.first += begin * step;
        piece.dq_block += begin;
        piece.n_steps = end - begin;
        piece.full_begin = (int32_t)i64_min(i64_max(run.full_begin - begin, 0), piece.n_steps);
        piece.full_end = (int32_t)i64_min(i64_max(run.full_end - begin, 0), piece.n_steps);
        add_run(list, piece);
    }
}

/* Adds a band's runs on the grid of dq blocks, the last first. A run ends after a block that is
 * shorter than a step. */
static void add_block_runs(AttnTiles *list, const TileBand *seen, const AttnBlocks *blocks,
                           int step, int32_t *steps_added) {
    int64_t begin, first = block_of(blocks, (int32_t)seen->first);
    for (int64_t end = block_of(blocks, (int32_t)seen->last - 1) + 1; end > first; end = begin) {
        begin = end - 1;
        while (begin > first && blocks->at[begin] - blocks->at[begin - 1] == step) begin--;
        AttnRun run = make_run(seen, blocks->at[begin], end - begin, step);
        run.dq_block = (int32_t)begin;
        run.band.k_end = (int32_t)i64_min(run.band.k_end, blocks->at[end]);
        add_ordered_run(list, run, step, steps_added);
    }
}

int attn_range_of_key(const RemoteKv *remote, int64_t key) {
    int range = 0;
    while (range < remote->n && key >= remote->rows[range].begin) range++;
    return range;
}

/* The schedule group of a tile of keys: 1 + i in remote range i, 0 for local keys, -1 for padding.
 */
static int group_of_keys(const RemoteKv *remote, int32_t row) {
    int group = 0;
    for (int i = 0; i < remote->n; i++) {
        if (row >= remote->rows[i].begin - ATTN_PAD_ROWS) group = -1;
        if (row >= remote->rows[i].begin) group = row < remote->rows[i].end ? 1 + i : -1;
    }
    return group;
}

/* Divides the tiles of local keys, group 0 so far. Those longer than any tile of remote keys, and
 * at least half of the steps, stay first, so that remote keys arrive while they run. The shorter
 * ones go to the last group: dKV returns to its owners while they run, and a call should end with
 * short items. */
static void defer_local_tiles(AttnTiles *list, int last_group) {
    int64_t local = 0, first = 0, longest = 0;
    qsort(list->tiles, (size_t)list->n_tiles, sizeof *list->tiles, compare_tiles);
    for (int64_t t = 0; t < list->n_tiles; t++)
        if (list->tiles[t].schedule_group == 0)
            local += list->tiles[t].n_steps;
        else
            longest = i64_max(longest, list->tiles[t].n_steps);
    for (int64_t t = 0; t < list->n_tiles && list->tiles[t].schedule_group == 0; t++) {
        bool stays = 2 * first < local || list->tiles[t].n_steps > longest;
        first += list->tiles[t].n_steps;
        if (!stays) list->tiles[t].schedule_group = last_group;
    }
}

/* ---- split-KV, by_q -------------------------------------------------------------------------- */

/* Of one tile: its steps and bands in local keys [0] and in remote range i [1 + i], and whether it
 * is split before these keys. */
typedef struct {
    int32_t steps[1 + ATTN_REMOTE_RANGES], bands[1 + ATTN_REMOTE_RANGES];
    bool split[1 + ATTN_REMOTE_RANGES];
} TileRanges;

static TileRanges *count_ranges(const AttnTiles *list, const Band *bands, const int32_t *pairs,
                                AttnGrid grid, const RemoteKv *remote) {
    TileRanges *ranges = NEW(TileRanges, list->n_tiles + 1);
    for (int64_t t = 0; t < list->n_tiles; t++)
        for (int32_t i = list->tiles[t].run_begin; i < list->tiles[t].run_end; i++) {
            const Band *band = &bands[pairs[i]];
            int range = attn_range_of_key(remote, band->k_begin);
            TileBand seen;
            ranges[t].bands[range]++;
            if (clip_band(&seen, &list->tiles[t], *band, grid.rows, false))
                ranges[t].steps[range] += (int32_t)ceil_div(seen.last - seen.first, grid.step);
        }
    return ranges;
}

/* The steps on keys before `range` that are still in one split with later keys. */
static int32_t steps_that_wait(const TileRanges *tile, int range, int n) {
    int32_t steps = 0;
    bool later = false;
    for (int i = range; i <= n; i++) later |= tile->steps[i] > 0;
    for (int i = range - 1; later && i >= 0; i--) {
        steps += tile->steps[i];
        if (tile->split[i]) break;
    }
    return steps;
}

/* Splits tiles where they would wait for a range, those with the most steps before it first, until
 * the GPU has enough to do before each range is ready. */
static void choose_splits(const AttnTiles *list, TileRanges *ranges, const RemoteKv *remote,
                          const double *steps_before, int min_steps) {
    for (int i = 1; i <= remote->n; i++) {
        double found = 0;
        for (int64_t t = 0; t < list->n_tiles; t++) {
            if (list->tiles[t].schedule_group > 1) continue; /* runs last */
            for (int s = 0; s < i; s++) found += ranges[t].steps[s];
            found -= steps_that_wait(&ranges[t], i, remote->n);
        }
        while (found < steps_before[i - 1]) {
            int64_t best = -1;
            int32_t most = min_steps - 1;
            for (int64_t t = 0; t < list->n_tiles; t++) {
                int32_t steps = ranges[t].split[i] ? 0 : steps_that_wait(&ranges[t], i, remote->n);
                if (steps <= most) continue;
                most = steps;
                best = t;
            }
            if (best < 0) break;
            ranges[best].split[i] = true;
            found += most;
        }
    }
}

/* Replaces tiles of groups 0 and 1 by their splits, each in the group of the last range it needs.
 * Their pairs are in the order of keys. */
static void split_tiles(AttnTiles *list, const TileRanges *ranges, const RemoteKv *remote) {
    AttnTile *tiles = NEW(AttnTile, list->n_tiles * (1 + remote->n) + 1);
    int64_t n = 0;
    for (int64_t t = 0; t < list->n_tiles; t++) {
        const AttnTile *tile = &list->tiles[t];
        AttnTile split = *tile;
        int64_t first = n;
        split.run_end = split.run_begin;
        split.n_steps = 0;
        for (int i = 0; i <= remote->n; i++) {
            if (ranges[t].split[i]) {
                tiles[n++] = split;
                split.run_begin = split.run_end;
                split.n_steps = 0;
                split.kv_split++;
            }
            split.run_end += ranges[t].bands[i];
            split.n_steps += ranges[t].steps[i];
            if (ranges[t].steps[i] > 0 && tile->schedule_group <= 1) split.schedule_group = i;
        }
        split.run_end = tile->run_end;
        tiles[n++] = split;
        for (int64_t i = first; i < n; i++) {
            tiles[i].kv_splits = split.kv_split + 1;
            tiles[i].split_tile = (int32_t)list->n_split_tiles;
        }
        list->n_split_tiles += split.kv_split > 0;
    }
    free(list->tiles);
    list->tiles = tiles;
    list->n_tiles = n;
}

/* `dq_blocks`: the grid of the steps of by_k; NULL for by_q, whose steps start where each band
 * does. `steps_before` and `tuning`: see attn_tiles_by_q(). */
static AttnTiles build_list(const Band *unsorted, int64_t n_bands, int32_t n_rows, AttnGrid grid,
                            const AttnBlocks *dq_blocks, const RemoteKv *remote,
                            const double *steps_before, const AttnTuning *tuning) {
    Band *bands = NEW(Band, n_bands + 1);
    for (int64_t i = 0; i < n_bands; i++)
        bands[i] = dq_blocks ? band_transpose(unsorted[i]) : unsorted[i];
    qsort(bands, (size_t)n_bands, sizeof *bands,
          remote->n > 0 && !dq_blocks ? compare_by_key : compare_bands);
    AttnTiles list = {0};
    AttnBlocks rows = dq_blocks ? cut_rows(bands, n_bands, n_rows, grid.rows, remote)
                                : cut_rows_from_end(bands, n_bands, n_rows, grid.rows);
    list.tiles = NEW(AttnTile, rows.n + 1);
    /* which bands each tile meets: counted, then listed tile after tile */
    int64_t *begin = NEW(int64_t, rows.n + 1), n_pairs = 0;
    int32_t *pairs = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n_bands; i++)
            for (int64_t t = block_of(&rows, bands[i].q_begin);
                 t < rows.n && rows.at[t] < bands[i].q_end; t++) {
                if (pass) pairs[begin[t]] = (int32_t)i;
                begin[t]++;
            }
        for (int64_t t = 0; pass == 0 && t < rows.n; t++) {
            int64_t count = begin[t];
            begin[t] = n_pairs;
            n_pairs += count;
        }
        if (pass == 0) pairs = NEW(int32_t, n_pairs + 1);
    } /* now begin[t] is the end of t's pairs, which is where those of t + 1 begin */
    TileBand seen;
    list.n_tiles = 0;
    for (int64_t t = 0; t < rows.n; t++) {
        int group = dq_blocks ? group_of_keys(remote, rows.at[t]) : 0;
        if (group < 0) continue;
        AttnTile *tile = &list.tiles[list.n_tiles++];
        tile->kv_splits = 1;
        tile->schedule_group = group;
        tile->row0 = rows.at[t];
        tile->rows = rows.at[t + 1] - rows.at[t];
        tile->run_begin = (int32_t)(t ? begin[t - 1] : 0);
        tile->run_end = (int32_t)begin[t];
        for (int32_t i = tile->run_begin; i < tile->run_end; i++) {
            if (!clip_band(&seen, tile, bands[pairs[i]], grid.rows, dq_blocks != NULL)) continue;
            if (!dq_blocks && attn_range_of_key(remote, seen.first) > 0) tile->schedule_group = 1;
            tile->n_steps += (int32_t)(dq_blocks ? block_of(dq_blocks, (int32_t)seen.last - 1) + 1 -
                                                       block_of(dq_blocks, (int32_t)seen.first)
                                                 : ceil_div(seen.last - seen.first, grid.step));
        }
    }
    if (remote->n) defer_local_tiles(&list, 1 + remote->n);
    if (remote->n && steps_before != NULL) {
        TileRanges *ranges = count_ranges(&list, bands, pairs, grid, remote);
        choose_splits(&list, ranges, remote, steps_before, tuning->min_split_steps);
        split_tiles(&list, ranges, remote);
        free(ranges);
    }
    qsort(list.tiles, (size_t)list.n_tiles, sizeof *list.tiles, compare_tiles);

    int32_t *steps_added = dq_blocks ? NEW(int32_t, dq_blocks->n + 1) : NULL;
    for (int64_t t = 0; t < list.n_tiles; t++) {
        AttnTile *tile = &list.tiles[t];
        int32_t first_pair = tile->run_begin, n = tile->run_end - tile->run_begin;
        tile->run_begin = (int32_t)list.n_runs;
        for (int32_t i = 0; i < n; i++) {
            const Band *band = &bands[pairs[first_pair + (dq_blocks ? n - 1 - i : i)]];
            if (!clip_band(&seen, tile, *band, grid.rows, dq_blocks != NULL)) continue;
            if (dq_blocks)
                add_block_runs(&list, &seen, dq_blocks, grid.step, steps_added);
            else
                add_run(&list, make_run(&seen, seen.first,
                                        ceil_div(seen.last - seen.first, grid.step), grid.step));
        }
        tile->run_end = (int32_t)list.n_runs;
        list.n_busy += tile->n_steps > 0;
    }
    free(bands);
    free(steps_added);
    free(pairs);
    free(begin);
    free(rows.at);
    return list;
}

AttnBlocks attn_dq_blocks(const Band *bands, int64_t n_bands, int32_t Sq, int step) {
    return cut_rows(bands, n_bands, Sq, step, NULL);
}

AttnTiles attn_tiles_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                          const RemoteKv *remote, const double *steps_before,
                          const AttnTuning *tuning) {
    return build_list(bands, n_bands, Sq, grid, NULL, remote, steps_before, tuning);
}

AttnTiles attn_tiles_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                          const AttnBlocks *dq_blocks, const RemoteKv *remote) {
    return build_list(bands, n_bands, Sk, grid, dq_blocks, remote, NULL, NULL);
}

void attn_tiles_free(AttnTiles *list) {
    free(list->tiles);
    free(list->runs);
    *list = (AttnTiles){0};
}
