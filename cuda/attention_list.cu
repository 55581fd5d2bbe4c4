/* attention_list.cu: see attention_list.h. */
#include "attention_list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_int32(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int compare_tiles(const void *a, const void *b) {
    const AttnTile *x = (const AttnTile *)a, *y = (const AttnTile *)b;
    if (x->phase != y->phase) return x->phase - y->phase;
    if (x->n_steps != y->n_steps) return x->n_steps > y->n_steps ? -1 : 1;
    return (x->row0 > y->row0) - (x->row0 < y->row0);
}

static int compare_bands(const void *a, const void *b) {
    const Band *x = (const Band *)a, *y = (const Band *)b;
    if (x->q_begin != y->q_begin) return x->q_begin < y->q_begin ? -1 : 1;
    return (x->k_begin > y->k_begin) - (x->k_begin < y->k_begin);
}

/* As tiles of rows walk keys of several sources: as these arrive. */
static int compare_keys(const void *a, const void *b) {
    const Band *x = (const Band *)a, *y = (const Band *)b;
    if (x->k_begin != y->k_begin) return x->k_begin < y->k_begin ? -1 : 1;
    return (x->q_begin > y->q_begin) - (x->q_begin < y->q_begin);
}

static Band band_transpose(Band b) {
    Band t = {b.k_begin, b.k_end, b.q_begin, b.q_end, -b.hi, -b.lo};
    return t;
}

/* Where the ranges of sources begin and end. */
static int32_t next_range_edge(const AttnSources *sources, int32_t row) {
    for (int i = 0; i < sources->n; i++) {
        const int32_t edges[] = {sources->rows[i].begin - ATTN_GAP, sources->rows[i].begin,
                                 sources->rows[i].end};
        for (int e = 0; e < 3; e++)
            if (edges[e] > row) return edges[e];
    }
    return INT32_MAX;
}

/* Cuts rows [0, n_rows) into pieces of full height, but ending early where a stretch between edges
 * of bands begins that is worth a piece of its own, and where the rows of a source (NULL: none)
 * begin and end. */
static Cuts cut_rows(const Band *bands, int64_t n_bands, int32_t n_rows, int32_t height,
                     const AttnSources *sources) {
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
    Cuts cuts = {NEW(int32_t, n_rows / height + used + 3 + 3 * ATTN_SOURCES), 0};
    int64_t next = 0; /* the first edge after the piece's start */
    for (int32_t row = 0; row < n_rows;) {
        int32_t end = row + height < n_rows ? row + height : n_rows;
        if (sources != NULL) end = (int32_t)i64_min(end, next_range_edge(sources, row));
        while (next < used && edges[next] <= row) next++;
        for (int64_t i = next; i < used && edges[i] < end; i++)
            if (edges[i + 1] - edges[i] >= height / 2) end = edges[i];
        cuts.at[++cuts.n] = end;
        row = end;
    }
    free(edges);
    return cuts;
}

static int64_t piece_of(const Cuts *cuts, int32_t row) {
    int64_t lo = 0, hi = cuts->n;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (cuts->at[mid + 1] <= row)
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
} Reach;

/* False when the tile has nothing there. `by_k`: columns are full only if the band covers all
 * `height` rows, not just those that the tile writes, because all of them go into dq; columns past
 * the band's end do no harm, because the kernel silences them by their lse. */
static bool reach_of(Reach *reach, const AttnTile *tile, Band band, int height, bool by_k) {
    int64_t row_end = tile->row0 + (by_k ? height : tile->rows);
    bool covers =
        band.q_begin <= tile->row0 && band.q_end >= row_end && tile->row0 + tile->rows >= row_end;
    /* rows that see at least one column */
    int64_t a = i64_max(i64_max(band.q_begin, tile->row0), (int64_t)band.k_begin - band.hi);
    int64_t b =
        i64_min(i64_min(band.q_end, tile->row0 + tile->rows), (int64_t)band.k_end - band.lo);
    reach->first = i64_max(band.k_begin, a + band.lo);
    reach->last = i64_min(band.k_end, b + band.hi);
    reach->full_lo = covers ? i64_max(band.k_begin, row_end - 1 + band.lo) : INT32_MAX;
    reach->full_hi = i64_min(by_k ? INT32_MAX : band.k_end, (int64_t)tile->row0 + band.hi + 1);
    reach->band = band;
    reach->band.q_begin = (int32_t)i64_max(band.q_begin, tile->row0);
    reach->band.q_end = (int32_t)i64_min(band.q_end, tile->row0 + tile->rows);
    return a < b && reach->first < reach->last && band.lo <= band.hi;
}

/* The run of n_steps steps from column `first` on. */
static AttnRun make_run(const Reach *reach, int64_t first, int64_t n_steps, int step) {
    AttnRun run;
    memset(&run, 0, sizeof run);
    run.first = (int32_t)first;
    run.n_steps = (int32_t)n_steps;
    run.band = reach->band;
    int64_t begin = i64_max(0, ceil_div(reach->full_lo - first, step));
    int64_t end = reach->full_hi > first ? i64_min(n_steps, (reach->full_hi - first) / step) : 0;
    if (begin < end) {
        run.full_begin = (int32_t)begin;
        run.full_end = (int32_t)end;
    }
    return run;
}

static void add_run(HostList *list, AttnRun run) {
    if (list->n_runs == list->runs_room) {
        list->runs_room = 2 * list->runs_room + 64;
        list->runs = (AttnRun *)mem_grow(list->runs, list->runs_room, sizeof *list->runs);
    }
    list->runs[list->n_runs++] = run;
}

/* Adds a run in pieces of one turn each, in the order of the walk. turns[slot] counts the steps
 * that added to it so far. */
static void add_ordered_run(HostList *list, AttnRun run, int step, int32_t *turns) {
    for (int32_t begin, end = run.n_steps; end > 0; end = begin) {
        AttnRun piece = run;
        piece.turn = turns[run.slot + end - 1];
        for (begin = end; begin > 0 && turns[run.slot + begin - 1] == piece.turn; begin--)
            turns[run.slot + begin - 1]++;
        piece.first += begin * step;
        piece.slot += begin;
        piece.n_steps = end - begin;
        piece.full_begin = (int32_t)i64_min(i64_max(run.full_begin - begin, 0), piece.n_steps);
        piece.full_end = (int32_t)i64_min(i64_max(run.full_end - begin, 0), piece.n_steps);
        add_run(list, piece);
    }
}

/* Adds a band's runs on the grid of slots, the last first. A run ends after a slot that is shorter
 * than a step. */
static void add_slot_runs(HostList *list, const Reach *reach, const Cuts *slots, int step,
                          int32_t *turns) {
    int64_t begin, first = piece_of(slots, (int32_t)reach->first);
    for (int64_t end = piece_of(slots, (int32_t)reach->last - 1) + 1; end > first; end = begin) {
        begin = end - 1;
        while (begin > first && slots->at[begin] - slots->at[begin - 1] == step) begin--;
        AttnRun run = make_run(reach, slots->at[begin], end - begin, step);
        run.slot = (int32_t)begin;
        run.band.k_end = (int32_t)i64_min(run.band.k_end, slots->at[end]);
        add_ordered_run(list, run, step, turns);
    }
}

/* Of a tile of keys: 1 + i for those of source i, 0 for own keys, -1 for those between ranges. */
static int phase_of_keys(const AttnSources *sources, int32_t row) {
    int phase = 0;
    for (int i = 0; i < sources->n; i++) {
        if (row >= sources->rows[i].begin - ATTN_GAP) phase = -1;
        if (row >= sources->rows[i].begin) phase = row < sources->rows[i].end ? 1 + i : -1;
    }
    return phase;
}

/* Tiles that need no source, phase 0 so far: those longer than any that does and at least half of
 * their steps stay, so that keys arrive under them. The shorter ones come last: what goes back to
 * the sources travels under them, and a call should end with short items. */
static void split_own_tiles(HostList *list, int last_phase) {
    int64_t own = 0, first = 0, longest = 0;
    qsort(list->tiles, (size_t)list->n_tiles, sizeof *list->tiles, compare_tiles);
    for (int64_t t = 0; t < list->n_tiles; t++)
        if (list->tiles[t].phase == 0)
            own += list->tiles[t].n_steps;
        else
            longest = i64_max(longest, list->tiles[t].n_steps);
    for (int64_t t = 0; t < list->n_tiles && list->tiles[t].phase == 0; t++) {
        bool stays = 2 * first < own || list->tiles[t].n_steps > longest;
        first += list->tiles[t].n_steps;
        if (!stays) list->tiles[t].phase = last_phase;
    }
}

/* ---- parts of tiles, by_q ---------------------------------------------------------------------
 */

/* Handing o on takes as long as so many steps. */
enum { LEAST_PART = 4 };

/* Of one tile: the steps of its keys and how many of its bands they are, of own keys and of those
 * of each source; the sources before which it is cut. */
typedef struct {
    int32_t steps[1 + ATTN_SOURCES], bands[1 + ATTN_SOURCES];
    bool cut[1 + ATTN_SOURCES];
} Share;

static int source_of_keys(const AttnSources *sources, int64_t column) {
    int source = 0;
    while (source < sources->n && column >= sources->rows[source].begin) source++;
    return source;
}

static Share *share_tiles(const HostList *list, const Band *bands, const int32_t *pairs,
                          AttnGrid grid, const AttnSources *sources) {
    Share *shares = NEW(Share, list->n_tiles + 1);
    for (int64_t t = 0; t < list->n_tiles; t++)
        for (int32_t i = list->tiles[t].run_begin; i < list->tiles[t].run_end; i++) {
            const Band *band = &bands[pairs[i]];
            int source = source_of_keys(sources, band->k_begin);
            Reach reach;
            shares[t].bands[source]++;
            if (reach_of(&reach, &list->tiles[t], *band, grid.rows, false))
                shares[t].steps[source] += (int32_t)ceil_div(reach.last - reach.first, grid.step);
        }
    return shares;
}

/* The steps on keys before `source` that are still in one part with later ones. */
static int32_t bound_steps(const Share *share, int source, int n) {
    int32_t steps = 0;
    bool later = false;
    for (int i = source; i <= n; i++) later |= share->steps[i] > 0;
    for (int i = source - 1; later && i >= 0; i--) {
        steps += share->steps[i];
        if (share->cut[i]) break;
    }
    return steps;
}

/* Cuts tiles where they would wait for a source, those with the most to do before it first, until
 * the GPU has enough to do before each source comes. */
static void cut_tiles(const HostList *list, Share *shares, const AttnSources *sources,
                      const double *early) {
    for (int i = 1; i <= sources->n; i++) {
        double found = 0;
        for (int64_t t = 0; t < list->n_tiles; t++) {
            if (list->tiles[t].phase > 1) continue; /* comes last */
            for (int s = 0; s < i; s++) found += shares[t].steps[s];
            found -= bound_steps(&shares[t], i, sources->n);
        }
        while (found < early[i - 1]) {
            int64_t best = -1;
            int32_t most = LEAST_PART - 1;
            for (int64_t t = 0; t < list->n_tiles; t++) {
                int32_t steps = shares[t].cut[i] ? 0 : bound_steps(&shares[t], i, sources->n);
                if (steps <= most) continue;
                most = steps;
                best = t;
            }
            if (best < 0) break;
            shares[best].cut[i] = true;
            found += most;
        }
    }
}

/* Replaces tiles of phases 0 and 1 by their parts, each in the phase of the last source it needs.
 * Their pairs are in the order of keys. */
static void part_tiles(HostList *list, const Share *shares, const AttnSources *sources) {
    AttnTile *tiles = NEW(AttnTile, list->n_tiles * (1 + sources->n) + 1);
    int64_t n = 0;
    for (int64_t t = 0; t < list->n_tiles; t++) {
        const AttnTile *whole = &list->tiles[t];
        const Share *share = &shares[t];
        AttnTile part = *whole;
        int64_t first = n;
        part.run_end = part.run_begin;
        part.n_steps = 0;
        for (int i = 0; i <= sources->n; i++) {
            if (share->cut[i]) {
                tiles[n++] = part;
                part.run_begin = part.run_end;
                part.n_steps = 0;
                part.part++;
            }
            part.run_end += share->bands[i];
            part.n_steps += share->steps[i];
            if (share->steps[i] > 0 && whole->phase <= 1) part.phase = i;
        }
        part.run_end = whole->run_end;
        tiles[n++] = part;
        for (int64_t i = first; i < n; i++) {
            tiles[i].parts = part.part + 1;
            tiles[i].handover = (int32_t)list->n_handovers;
        }
        list->n_handovers += part.part > 0;
    }
    free(list->tiles);
    list->tiles = tiles;
    list->n_tiles = n;
}

/* `slots`: the grid of the steps of by_k; NULL for by_q, whose steps start where each band does.
 * Phases: half of the tiles that need own keys only; of by_q those that need the first source, but
 * none after it, and so on, of by_k those of each source; the other half. `early`: see
 * attn_list_by_q(). */
static HostList build_list(const Band *bands, int64_t n_bands, int32_t n_rows, AttnGrid grid,
                           const Cuts *slots, const AttnSources *sources, const double *early) {
    HostList list = {};
    Cuts cuts = cut_rows(bands, n_bands, n_rows, grid.rows, slots ? sources : NULL);
    list.tiles = NEW(AttnTile, cuts.n + 1);
    /* which bands each tile meets: counted, then listed tile after tile */
    int64_t *begin = NEW(int64_t, cuts.n + 1), n_pairs = 0;
    int32_t *pairs = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n_bands; i++)
            for (int64_t t = piece_of(&cuts, bands[i].q_begin);
                 t < cuts.n && cuts.at[t] < bands[i].q_end; t++) {
                if (pass) pairs[begin[t]] = (int32_t)i;
                begin[t]++;
            }
        for (int64_t t = 0; pass == 0 && t < cuts.n; t++) {
            int64_t count = begin[t];
            begin[t] = n_pairs;
            n_pairs += count;
        }
        if (pass == 0) pairs = NEW(int32_t, n_pairs + 1);
    } /* now begin[t] is the end of t's pairs, which is where those of t + 1 begin */
    Reach reach;
    list.n_tiles = 0;
    for (int64_t t = 0; t < cuts.n; t++) {
        int phase = slots ? phase_of_keys(sources, cuts.at[t]) : 0;
        if (phase < 0) continue;
        AttnTile *tile = &list.tiles[list.n_tiles++];
        tile->parts = 1;
        tile->phase = phase;
        tile->row0 = cuts.at[t];
        tile->rows = cuts.at[t + 1] - cuts.at[t];
        tile->run_begin = (int32_t)(t ? begin[t - 1] : 0);
        tile->run_end = (int32_t)begin[t];
        for (int32_t i = tile->run_begin; i < tile->run_end; i++) {
            if (!reach_of(&reach, tile, bands[pairs[i]], grid.rows, slots != NULL)) continue;
            if (!slots && source_of_keys(sources, reach.first) > 0) tile->phase = 1;
            tile->n_steps += (int32_t)(slots ? piece_of(slots, (int32_t)reach.last - 1) + 1 -
                                                   piece_of(slots, (int32_t)reach.first)
                                             : ceil_div(reach.last - reach.first, grid.step));
        }
    }
    if (sources->n) split_own_tiles(&list, 1 + sources->n);
    if (sources->n && early != NULL) {
        Share *shares = share_tiles(&list, bands, pairs, grid, sources);
        cut_tiles(&list, shares, sources, early);
        part_tiles(&list, shares, sources);
        free(shares);
    }
    qsort(list.tiles, (size_t)list.n_tiles, sizeof *list.tiles, compare_tiles);

    int32_t *turns = slots ? NEW(int32_t, slots->n + 1) : NULL;
    for (int64_t t = 0; t < list.n_tiles; t++) {
        AttnTile *tile = &list.tiles[t];
        int32_t first_pair = tile->run_begin, n = tile->run_end - tile->run_begin;
        tile->run_begin = (int32_t)list.n_runs;
        for (int32_t i = 0; i < n; i++) {
            const Band *band = &bands[pairs[first_pair + (slots ? n - 1 - i : i)]];
            if (!reach_of(&reach, tile, *band, grid.rows, slots != NULL)) continue;
            if (slots)
                add_slot_runs(&list, &reach, slots, grid.step, turns);
            else
                add_run(&list, make_run(&reach, reach.first,
                                        ceil_div(reach.last - reach.first, grid.step), grid.step));
        }
        tile->run_end = (int32_t)list.n_runs;
        list.n_busy += tile->n_steps > 0;
    }
    free(turns);
    free(pairs);
    free(begin);
    free(cuts.at);
    return list;
}

Cuts attn_slots(const Band *bands, int64_t n_bands, int32_t Sq, int step) {
    return cut_rows(bands, n_bands, Sq, step, NULL);
}

HostList attn_list_by_q(const Band *bands, int64_t n_bands, int32_t Sq, AttnGrid grid,
                        const AttnSources *sources, const double *early) {
    Band *sorted = NEW(Band, n_bands + 1);
    for (int64_t i = 0; i < n_bands; i++) sorted[i] = bands[i];
    qsort(sorted, (size_t)n_bands, sizeof *sorted, sources->n ? compare_keys : compare_bands);
    HostList list = build_list(sorted, n_bands, Sq, grid, NULL, sources, early);
    free(sorted);
    return list;
}

HostList attn_list_by_k(const Band *bands, int64_t n_bands, int32_t Sk, AttnGrid grid,
                        const Cuts *slots, const AttnSources *sources) {
    Band *transposed = NEW(Band, n_bands + 1);
    for (int64_t i = 0; i < n_bands; i++) transposed[i] = band_transpose(bands[i]);
    qsort(transposed, (size_t)n_bands, sizeof *transposed, compare_bands);
    HostList list = build_list(transposed, n_bands, Sk, grid, slots, sources, NULL);
    free(transposed);
    return list;
}

/* What an item costs beside its steps, in steps; and to hand o and lse to the next part or take
 * them from the one before. */
static const double ITEM_STEPS = 0.5, HANDOVER_US = 2.2;

/* When an item is done that a CTA takes at `now`. */
static double item_end(const HostList *list, const AttnTile *tile, double now, double step_us,
                       const AttnSources *sources) {
    now += ITEM_STEPS * step_us + HANDOVER_US * ((tile->part > 0) + (tile->part + 1 < tile->parts));
    if (sources == NULL) return now + tile->n_steps * step_us;
    for (int32_t i = tile->run_begin; i < tile->run_end; i++) {
        int source = source_of_keys(sources, list->runs[i].first);
        if (source > 0) now = fmax(now, (double)sources->arrival_us[source - 1]);
        now += list->runs[i].n_steps * step_us;
    }
    return now;
}

double attn_list_span_us(const HostList *list, int heads, int ctas, double step_us,
                         const AttnSources *sources) {
    double all = 0, last = 0, *heap = NEW(double, ctas); /* when CTAs are free, the first on top */
    bool few = list->n_tiles * heads <= 32 * ctas;
    for (int64_t i = 0; i < list->n_tiles; i++)
        all += heads * item_end(list, &list->tiles[i], 0, step_us, NULL);
    for (int64_t i = 0; few && i < list->n_tiles * heads; i++) {
        double end = item_end(list, &list->tiles[i / heads], heap[0], step_us, sources);
        int at = 0;
        for (int child = 1; child < ctas; child = 2 * at + 1) {
            if (child + 1 < ctas && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= end) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = end;
        last = fmax(last, end);
    }
    free(heap);
    return few ? last : all / ctas;
}

void attn_list_free(HostList *list) {
    free(list->tiles);
    free(list->runs);
    *list = HostList{};
}
