/* The local search works on four figures per group: its chunks, its load, and the rows it must read
 * from elsewhere. A proposal is judged by load first, which costs nothing, and only then by rows,
 * which means merging the keys of two groups. */
#include "attn/balance.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/rng.h"

/* ---- min-heap ---------------------------------------------------------------------------- */

typedef struct {
    int64_t load;
    int32_t item; /* a chunk's place in ids, or a group */
} Loaded;

static int compare_heavy_late(const void *x, const void *y) {
    const Loaded *a = x, *b = y;
    if (a->load != b->load) return a->load > b->load ? -1 : 1;
    return (a->item < b->item) - (a->item > b->item);
}

static bool lighter(Loaded a, Loaded b) {
    return a.load != b.load ? a.load < b.load : a.item < b.item;
}

static void sift_down(Loaded *heap, int64_t n) {
    for (int64_t i = 0;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && lighter(heap[child + 1], heap[child])) child++;
        if (!lighter(heap[child], heap[i])) return;
        Loaded t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
        i = child;
    }
}

void balance_min_heap(const BalanceInput *in, const int32_t *ids, int64_t n_ids, int G,
                      int32_t *group) {
    Loaded *chunks = NEW(Loaded, n_ids), *heap = NEW(Loaded, G);
    int64_t *count = NEW(int64_t, G);
    for (int64_t k = 0; k < n_ids; k++) chunks[k] = (Loaded){in->load[ids[k]], (int32_t)k};
    qsort(chunks, (size_t)n_ids, sizeof *chunks, compare_heavy_late);
    for (int32_t g = 0; g < G; g++) heap[g] = (Loaded){0, g};
    int64_t open = G; /* heap[0, open): groups that have room */
    for (int64_t k = 0; k < n_ids; k++) {
        int32_t g = heap[0].item;
        group[chunks[k].item] = g;
        heap[0].load += chunks[k].load;
        if (++count[g] == n_ids / G) heap[0] = heap[--open];
        sift_down(heap, open);
    }
    free(chunks);
    free(heap);
    free(count);
}

/* ---- local search ------------------------------------------------------------------------ */

typedef struct {
    const BalanceInput *in;
    int G;
    int64_t m;            /* chunks of a group */
    int32_t *members;     /* [G * m] chunk numbers, ascending within a group */
    int64_t *load, *rows; /* [G] */
    int64_t limit;        /* load up to which a group is not overloaded */
    uint64_t draws;
    int32_t *trial; /* [m] */
    Range *scratch;
} Search;

/* Rows outside its own chunks that a group with these (ascending) chunks reads. */
static int64_t group_rows(const Search *s, const int32_t *members) {
    const BalanceInput *in = s->in;
    Range *keys = s->scratch;
    int64_t n = 0;
    bool sorted = true;
    for (int64_t k = 0; k < s->m; k++) {
        int64_t end = in->first_key[members[k] + 1];
        for (int64_t i = in->first_key[members[k]]; i < end; i++) {
            Range r = in->keys[i];
            if (n > 0 && r.begin >= keys[n - 1].begin && r.begin <= keys[n - 1].end) {
                if (r.end > keys[n - 1].end) keys[n - 1].end = r.end;
            } else {
                sorted = sorted && (n == 0 || r.begin > keys[n - 1].end);
                keys[n++] = r;
            }
        }
    }
    if (!sorted) n = range_normalize(keys, n);
    int64_t rows = range_total(keys, n);
    for (int64_t k = 0, i = 0; k < s->m; k++) {
        int32_t begin = members[k] * in->chunk, end = begin + in->chunk;
        while (i < n && keys[i].end <= begin) i++;
        for (int64_t j = i; j < n && keys[j].begin < end; j++)
            rows -= i64_min(end, keys[j].end) - i64_max(begin, keys[j].begin);
    }
    return rows;
}

/* dst = a group's chunks with the one at `place` replaced, still ascending. */
static void replace_member(int32_t *dst, const int32_t *members, int64_t m, int64_t place,
                           int32_t chunk) {
    int64_t k = 0;
    bool placed = false;
    for (int64_t i = 0; i < m; i++) {
        if (i == place) continue;
        if (!placed && chunk < members[i]) {
            dst[k++] = chunk;
            placed = true;
        }
        dst[k++] = members[i];
    }
    if (!placed) dst[k] = chunk;
}

static int64_t overload(const Search *s, int64_t load) {
    return i64_max(0, load - s->limit);
}

typedef struct {
    int g[2];
    int64_t place[2];     /* of the chunks to exchange, among their group's */
    int64_t overload_cut; /* how much less overload */
    int64_t rows[2];      /* of the two groups after the swap */
    int64_t rows_added;   /* sum over both */
} Swap;

/* Counter-based draws below n (splitmix64): the search must be the same on every rank. */
static int64_t draw(Search *s, int64_t n) {
    return (int64_t)((mix64(++s->draws * 0x9E3779B97F4A7C15u) >> 32) * (uint64_t)n >> 32);
}

/* A random swap with group g, its effect on load filled in. */
static Swap propose(Search *s, int g) {
    int other = (int)draw(s, s->G - 1);
    Swap w = {.g = {g, other + (other >= g)}, .place = {draw(s, s->m), draw(s, s->m)}};
    int64_t a = s->in->load[s->members[w.g[0] * s->m + w.place[0]]];
    int64_t b = s->in->load[s->members[w.g[1] * s->m + w.place[1]]];
    int64_t x = s->load[w.g[0]], y = s->load[w.g[1]];
    w.overload_cut =
        overload(s, x) + overload(s, y) - overload(s, x - a + b) - overload(s, y - b + a);
    return w;
}

static void judge_rows(const Search *s, Swap *w) {
    for (int side = 0; side < 2; side++) {
        const int32_t *mine = s->members + w->g[side] * s->m;
        const int32_t *theirs = s->members + w->g[!side] * s->m;
        replace_member(s->trial, mine, s->m, w->place[side], theirs[w->place[!side]]);
        w->rows[side] = group_rows(s, s->trial);
        w->rows_added += w->rows[side] - s->rows[w->g[side]];
    }
}

static void apply(Search *s, const Swap *w) {
    int32_t chunk[2];
    for (int side = 0; side < 2; side++)
        chunk[side] = s->members[w->g[side] * s->m + w->place[side]];
    for (int side = 0; side < 2; side++) {
        int32_t *mine = s->members + w->g[side] * s->m;
        replace_member(s->trial, mine, s->m, w->place[side], chunk[!side]);
        memcpy(mine, s->trial, (size_t)s->m * sizeof *mine);
        s->load[w->g[side]] += s->in->load[chunk[!side]] - s->in->load[chunk[side]];
        s->rows[w->g[side]] = w->rows[side];
    }
}

static int argmax(const int64_t *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Takes load off the fullest group until none is overloaded, each time by the best of up to
 * MAX_IMPROVING improving swaps: the one that adds the fewest rows per load it moves. Returns the
 * trials left. */
static int64_t reduce_max_load(Search *s, int64_t trials) {
    enum { MAX_IMPROVING = 16, DRAWS = 512 };
    while (trials > 0) {
        int heavy = argmax(s->load, s->G), found = 0;
        if (s->load[heavy] <= s->limit) break;
        Swap best = {0};
        for (int i = 0; i < DRAWS && found < MAX_IMPROVING; i++) {
            Swap w = propose(s, heavy);
            if (w.overload_cut <= 0) continue;
            judge_rows(s, &w);
            if (found++ == 0 || (double)w.rows_added * (double)best.overload_cut <
                                    (double)best.rows_added * (double)w.overload_cut)
                best = w;
        }
        if (found == 0) break; /* no single swap helps any more */
        apply(s, &best);
        trials -= found;
    }
    return trials;
}

/* Brings chunks that read the same keys together; every other swap is of the group with the most
 * remote rows. */
static void reduce_max_remote_rows(Search *s, int64_t trials, int64_t patience) {
    int most = argmax(s->rows, s->G);
    for (int64_t t = 0, idle = 0, skipped = 0; t < trials && idle < patience; t++) {
        Swap w = propose(s, t % 2 ? most : (int)draw(s, s->G));
        if (w.overload_cut < 0 && skipped++ < 16 * trials) { /* not worth counting rows */
            t--;
            continue;
        }
        judge_rows(s, &w);
        int64_t max_rows = i64_max(w.rows[0], w.rows[1]);
        for (int g = 0; g < s->G; g++)
            if (g != w.g[0] && g != w.g[1]) max_rows = i64_max(max_rows, s->rows[g]);
        bool nearer = w.rows_added + s->G * (max_rows - s->rows[most]) < 0;
        idle++;
        if (w.overload_cut < 0 || (w.overload_cut == 0 && !nearer)) continue;
        apply(s, &w);
        most = argmax(s->rows, s->G);
        idle = 0;
    }
}

void balance_local_search(const BalanceInput *in, const int32_t *ids, int64_t n_ids, int G,
                          double slack, int64_t trials, int32_t *group) {
    int64_t m = n_ids / G, total = 0, n_keys = 0;
    for (int64_t k = 0; k < n_ids; k++) {
        total += in->load[ids[k]];
        n_keys += in->first_key[ids[k] + 1] - in->first_key[ids[k]];
    }
    Search s = {.in = in,
                .G = G,
                .m = m,
                .members = NEW(int32_t, n_ids),
                .trial = NEW(int32_t, m),
                .load = NEW(int64_t, G),
                .rows = NEW(int64_t, G),
                .limit = (int64_t)((1 + slack) * (double)total / G),
                .scratch = NEW(Range, n_keys)};
    int64_t *filled = NEW(int64_t, G);
    int32_t *place = NEW(int32_t, in->n); /* of a chunk in ids */
    for (int64_t k = 0; k < n_ids; k++) {
        s.members[group[k] * m + filled[group[k]]++] = ids[k];
        s.load[group[k]] += in->load[ids[k]];
        place[ids[k]] = (int32_t)k;
    }
    for (int g = 0; g < G; g++) s.rows[g] = group_rows(&s, s.members + g * m);
    if (G > 1) reduce_max_remote_rows(&s, reduce_max_load(&s, trials), 4 * n_ids);
    for (int64_t i = 0; i < n_ids; i++) group[place[s.members[i]]] = (int32_t)(i / m);
    free(s.members);
    free(s.trial);
    free(s.load);
    free(s.rows);
    free(s.scratch);
    free(filled);
    free(place);
}
