/* gpu_attention_lists.cuh: the work lists of attention against the masks they came from, on the
 * host. */
#ifndef CRIA_TESTS_GPU_ATTENTION_LISTS_CUH
#define CRIA_TESTS_GPU_ATTENTION_LISTS_CUH

#include "attention_list.h"
#include "gpu_attention.cuh"

#define HOLDS(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            printf("FAIL work lists, line %d: %s\n", __LINE__, #x);                                \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

static bool band_has(const Band &b, int q, int k) {
    return q >= b.q_begin && q < b.q_end && k >= b.k_begin && k < b.k_end && k - q >= b.lo &&
           k - q <= b.hi;
}

static bool lies_between(const AttnSources &sources, int key) {
    for (int i = 0; i < sources.n; i++)
        if (key >= sources.rows[i].begin - ATTN_GAP && key < sources.rows[i].begin) return true;
    return false;
}

/* Every allowed pair is walked once and no other; every row is written by one tile, or by one in
 * parts, in their order, of which none needs a source of a later phase; in each phase longer tiles
 * come first. With slots: steps lie on their grid, a slot's turns count up one by one,
 * and a source's tiles hold rows of no other and have its phase. */
static bool list_is_right(const HostList &list, AttnGrid grid, const Cuts *slots, int n_rows,
                          int n_columns, const std::vector<uint8_t> &want,
                          const AttnSources &sources, bool by_arrival) {
    std::vector<uint8_t> got(want.size(), 0), written((size_t)n_rows, 0);
    std::vector<int> turns(slots ? (size_t)slots->n : 0, 0);
    std::vector<const AttnTile *> latest((size_t)list.n_handovers, NULL);
    for (int64_t t = 0; t < list.n_tiles; t++) {
        const AttnTile &tile = list.tiles[t];
        HOLDS(tile.rows > 0 && tile.rows <= grid.rows);
        if (tile.parts > 1) {
            HOLDS(tile.part >= 0 && tile.part < tile.parts && tile.handover < list.n_handovers);
            const AttnTile *before = latest[(size_t)tile.handover];
            HOLDS((before == NULL) == (tile.part == 0));
            HOLDS(!before || (before->row0 == tile.row0 && before->rows == tile.rows &&
                              before->parts == tile.parts && before->part + 1 == tile.part &&
                              before->phase < tile.phase));
            latest[(size_t)tile.handover] = &tile;
        } else {
            HOLDS(tile.part == 0 && tile.parts == 1);
        }
        for (int r = 0; r < tile.rows && tile.part == 0; r++)
            HOLDS(written[(size_t)(tile.row0 + r)]++ == 0);
        int steps = 0;
        for (int i = tile.run_begin; i < tile.run_end; i++) {
            const AttnRun &run = list.runs[i];
            HOLDS(run.n_steps > 0);
            steps += run.n_steps;
            if (by_arrival && tile.phase <= sources.n)
                HOLDS(tile.phase == sources.n ||
                      run.band.k_end <= sources.rows[tile.phase].begin - ATTN_GAP);
            for (int j = run.n_steps - 1; j >= 0; j--) {
                int c0 = run.first + j * grid.step, slot = run.slot + j;
                bool full = j >= run.full_begin && j < run.full_end;
                if (slots) {
                    HOLDS(c0 == slots->at[slot] && turns[(size_t)slot]++ == run.turn);
                    HOLDS(run.band.k_end <= slots->at[slot + 1] ||
                          slots->at[slot + 1] == c0 + grid.step);
                }
                for (int r = 0; r < (slots ? grid.rows : tile.rows); r++)
                    for (int c = c0; c < c0 + grid.step; c++) {
                        int row = tile.row0 + r;
                        if (!full && !band_has(run.band, row, c)) continue;
                        if (slots && c >= run.band.k_end) continue; /* silenced by its lse */
                        HOLDS(r < tile.rows && c < n_columns);
                        HOLDS(
                            got[slots ? (size_t)c * n_rows + row : (size_t)row * n_columns + c]++ ==
                            0);
                    }
            }
        }
        HOLDS(tile.part + 1 == tile.parts || steps >= 4);
        HOLDS(steps == tile.n_steps && (sources.n || (t < list.n_busy) == (steps > 0)));
        HOLDS(t == 0 || list.tiles[t - 1].phase < tile.phase ||
              (list.tiles[t - 1].phase == tile.phase && list.tiles[t - 1].n_steps >= steps));
        for (int i = 0; slots && i < sources.n; i++) {
            bool inside = tile.row0 >= sources.rows[i].begin && tile.row0 < sources.rows[i].end;
            HOLDS(inside == (tile.phase == 1 + i));
            HOLDS(!inside || tile.row0 + tile.rows <= sources.rows[i].end);
        }
    }
    for (const AttnTile *tile : latest) HOLDS(tile && tile->part + 1 == tile->parts);
    for (int r = 0; r < n_rows; r++)
        HOLDS(written[(size_t)r] == (slots && lies_between(sources, r) ? 0 : 1));
    HOLDS(got == want);
    return true;
}

/* One tile with eight steps on own keys and one on those of a source that comes after 100 us. */
static bool check_span() {
    AttnSources sources = {};
    sources.n = 1;
    sources.rows[0] = Range{1024 + ATTN_GAP, 1024 + ATTN_GAP + 128};
    sources.arrival_us[0] = 100;
    const AttnGrid grid = {128, 128};
    Bands bands;
    add_band(bands, 0, 128, 0, 1024, BAND_NO_LO, BAND_NO_HI);
    add_band(bands, 0, 128, sources.rows[0].begin, sources.rows[0].end, BAND_NO_LO, BAND_NO_HI);
    const double early = 9;
    HostList whole = attn_list_by_q(bands.data(), 2, 128, grid, &sources, NULL);
    HostList cut = attn_list_by_q(bands.data(), 2, 128, grid, &sources, &early);
    HOLDS(whole.n_tiles == 1 && cut.n_tiles == 2 && cut.n_handovers == 1);
    HOLDS(cut.tiles[0].n_steps == 8 && cut.tiles[0].phase == 0 && cut.tiles[1].phase == 1);
    /* half a step for the item, then 2 us each */
    HOLDS(attn_list_span_us(&whole, 1, 1, 2, NULL) == 19);
    HOLDS(attn_list_span_us(&whole, 1, 1, 2, &sources) == 102);
    HOLDS(attn_list_span_us(&whole, 5, 1, 2, &sources) == 102 + 4 * 19);
    /* all heads' own keys are done before the first keys come */
    HOLDS(attn_list_span_us(&cut, 5, 1, 2, &sources) < 102 + 4 * 6);
    HOLDS(attn_list_span_us(&cut, 5, 10, 2, &sources) == 102);
    attn_list_free(&whole);
    attn_list_free(&cut);
    return true;
}

static bool check_lists() {
    int64_t parts = 0;
    for (int trial = 0; trial < 400; trial++) {
        const int Sq = (int)draw(1, 700), own = (int)draw(1, 700);
        AttnSources sources = {};
        const AttnGrid grid_q = {64 * (int)draw(1, 3), draw(0, 1) ? 80 : 128};
        const AttnGrid grid_k = {128, draw(0, 1) ? 64 : 128};
        Bands bands;
        random_bands(bands, 0, Sq, 0, own, (int)draw(0, 6));
        int Sk = own;
        for (int n = trial % 2 ? (int)draw(1, 3) : 0; sources.n < n; sources.n++) {
            const int begin = Sk + ATTN_GAP;
            Sk = begin + (int)draw(0, 300);
            sources.rows[sources.n] = Range{begin, Sk};
            if (begin < Sk) random_bands(bands, 0, Sq, begin, Sk, (int)draw(0, 4));
        }
        const int64_t n = (int64_t)bands.size();
        std::vector<uint8_t> want((size_t)Sq * Sk, 0);
        for (const Band &b : bands)
            for (int q = b.q_begin; q < b.q_end; q++)
                for (int k = b.k_begin; k < b.k_end; k++)
                    want[(size_t)q * Sk + k] |= band_has(b, q, k);
        Cuts slots = attn_slots(bands.data(), n, Sq, grid_k.step);
        double early[ATTN_SOURCES];
        for (int i = 0; i < sources.n; i++) early[i] = (double)draw(0, 60) + (i ? early[i - 1] : 0);
        const bool by_arrival = draw(0, 1);
        HostList by_q =
            attn_list_by_q(bands.data(), n, Sq, grid_q, &sources, by_arrival ? early : NULL);
        HostList whole = attn_list_by_q(bands.data(), n, Sq, grid_q, &sources, NULL);
        parts += by_q.n_tiles - whole.n_tiles;
        HostList by_k = attn_list_by_k(bands.data(), n, Sk, grid_k, &slots, &sources);
        bool ok = list_is_right(by_q, grid_q, NULL, Sq, Sk, want, sources, by_arrival) &&
                  list_is_right(whole, grid_q, NULL, Sq, Sk, want, sources, false) &&
                  list_is_right(by_k, grid_k, &slots, Sk, Sq, want, sources, false);
        attn_list_free(&by_q);
        attn_list_free(&whole);
        attn_list_free(&by_k);
        free(slots.at);
        if (!ok) {
            printf("  in trial %d\n", trial);
            return false;
        }
    }
    HOLDS(parts > 0);
    return true;
}

#endif
