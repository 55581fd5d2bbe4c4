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

static bool is_padding(const RemoteKv &remote, int key) {
    for (int i = 0; i < remote.n; i++)
        if (key >= remote.rows[i].begin - ATTN_PAD_ROWS && key < remote.rows[i].begin) return true;
    return false;
}

/* Every allowed pair is walked once and no other. Every row is written by one tile, or by one whose
 * splits come in order, and no split needs a range of a later schedule group. In each group longer
 * tiles come first. With dq blocks: steps lie on their grid, a block's order counts up one by one,
 * and the tiles of a remote range hold rows of no other and have its group. */
static bool list_is_right(const AttnTileList &list, AttnGrid grid, const AttnBlocks *blocks,
                          int n_rows, int n_columns, const std::vector<uint8_t> &want,
                          const RemoteKv &remote, bool split) {
    std::vector<uint8_t> got(want.size(), 0), written((size_t)n_rows, 0);
    std::vector<int> order(blocks ? (size_t)blocks->n : 0, 0);
    std::vector<const AttnTile *> latest((size_t)list.n_split_tiles, NULL);
    for (int64_t t = 0; t < list.n_tiles; t++) {
        const AttnTile &tile = list.tiles[t];
        HOLDS(tile.rows > 0 && tile.rows <= grid.rows);
        if (tile.kv_splits > 1) {
            HOLDS(tile.kv_split >= 0 && tile.kv_split < tile.kv_splits &&
                  tile.split_tile < list.n_split_tiles);
            const AttnTile *before = latest[(size_t)tile.split_tile];
            HOLDS((before == NULL) == (tile.kv_split == 0));
            HOLDS(!before ||
                  (before->row0 == tile.row0 && before->rows == tile.rows &&
                   before->kv_splits == tile.kv_splits && before->kv_split + 1 == tile.kv_split &&
                   before->schedule_group < tile.schedule_group));
            latest[(size_t)tile.split_tile] = &tile;
        } else {
            HOLDS(tile.kv_split == 0 && tile.kv_splits == 1);
        }
        for (int r = 0; r < tile.rows && tile.kv_split == 0; r++)
            HOLDS(written[(size_t)(tile.row0 + r)]++ == 0);
        int steps = 0;
        for (int i = tile.run_begin; i < tile.run_end; i++) {
            const AttnRun &run = list.runs[i];
            HOLDS(run.n_steps > 0);
            steps += run.n_steps;
            if (split && tile.schedule_group <= remote.n)
                HOLDS(tile.schedule_group == remote.n ||
                      run.band.k_end <= remote.rows[tile.schedule_group].begin - ATTN_PAD_ROWS);
            for (int j = run.n_steps - 1; j >= 0; j--) {
                int c0 = run.first + j * grid.step, block = run.dq_block + j;
                bool full = j >= run.full_begin && j < run.full_end;
                if (blocks) {
                    HOLDS(c0 == blocks->at[block] && order[(size_t)block]++ == run.dq_order);
                    HOLDS(run.band.k_end <= blocks->at[block + 1] ||
                          blocks->at[block + 1] == c0 + grid.step);
                }
                for (int r = 0; r < (blocks ? grid.rows : tile.rows); r++)
                    for (int c = c0; c < c0 + grid.step; c++) {
                        int row = tile.row0 + r;
                        if (!full && !band_has(run.band, row, c)) continue;
                        if (blocks && c >= run.band.k_end) continue; /* its lse is +inf */
                        HOLDS(r < tile.rows && c < n_columns);
                        HOLDS(got[blocks ? (size_t)c * n_rows + row
                                         : (size_t)row * n_columns + c]++ == 0);
                    }
            }
        }
        HOLDS(tile.kv_split + 1 == tile.kv_splits || steps >= 4);
        HOLDS(steps == tile.n_steps && (remote.n || (t < list.n_busy) == (steps > 0)));
        HOLDS(t == 0 || list.tiles[t - 1].schedule_group < tile.schedule_group ||
              (list.tiles[t - 1].schedule_group == tile.schedule_group &&
               list.tiles[t - 1].n_steps >= steps));
        for (int i = 0; blocks && i < remote.n; i++) {
            bool inside = tile.row0 >= remote.rows[i].begin && tile.row0 < remote.rows[i].end;
            HOLDS(inside == (tile.schedule_group == 1 + i));
            HOLDS(!inside || tile.row0 + tile.rows <= remote.rows[i].end);
        }
    }
    for (const AttnTile *tile : latest) HOLDS(tile && tile->kv_split + 1 == tile->kv_splits);
    for (int r = 0; r < n_rows; r++)
        HOLDS(written[(size_t)r] == (blocks && is_padding(remote, r) ? 0 : 1));
    HOLDS(got == want);
    return true;
}

/* One tile with eight steps on local keys and one on those of a range that is ready after 100 us.
 */
static bool check_span() {
    RemoteKv remote = {};
    remote.n = 1;
    remote.rows[0] = Range{1024 + ATTN_PAD_ROWS, 1024 + ATTN_PAD_ROWS + 128};
    remote.est_ready_us[0] = 100;
    const AttnGrid grid = {128, 128};
    Bands bands;
    add_band(bands, 0, 128, 0, 1024, BAND_NO_LO, BAND_NO_HI);
    add_band(bands, 0, 128, remote.rows[0].begin, remote.rows[0].end, BAND_NO_LO, BAND_NO_HI);
    const double steps_before = 9;
    AttnTileList unsplit = attn_tiles_by_q(bands.data(), 2, 128, grid, &remote, NULL);
    AttnTileList split = attn_tiles_by_q(bands.data(), 2, 128, grid, &remote, &steps_before);
    HOLDS(unsplit.n_tiles == 1 && split.n_tiles == 2 && split.n_split_tiles == 1);
    HOLDS(split.tiles[0].n_steps == 8 && split.tiles[0].schedule_group == 0 &&
          split.tiles[1].schedule_group == 1);
    /* half a step for the item, then 2 us each */
    HOLDS(attn_tiles_span_us(&unsplit, 1, 1, 2, NULL) == 19);
    HOLDS(attn_tiles_span_us(&unsplit, 1, 1, 2, &remote) == 102);
    HOLDS(attn_tiles_span_us(&unsplit, 5, 1, 2, &remote) == 102 + 4 * 19);
    /* the local keys of all heads are done before the first range is ready */
    HOLDS(attn_tiles_span_us(&split, 5, 1, 2, &remote) < 102 + 4 * 6);
    HOLDS(attn_tiles_span_us(&split, 5, 10, 2, &remote) == 102);
    attn_tiles_free(&unsplit);
    attn_tiles_free(&split);
    return true;
}

static bool check_lists() {
    int64_t splits = 0;
    for (int trial = 0; trial < 400; trial++) {
        const int Sq = (int)draw(1, 700), local = (int)draw(1, 700);
        RemoteKv remote = {};
        const AttnGrid grid_q = {64 * (int)draw(1, 3), draw(0, 1) ? 80 : 128};
        const AttnGrid grid_k = {128, draw(0, 1) ? 64 : 128};
        Bands bands;
        random_bands(bands, 0, Sq, 0, local, (int)draw(0, 6));
        int Sk = local;
        for (int n = trial % 2 ? (int)draw(1, 3) : 0; remote.n < n; remote.n++) {
            const int begin = Sk + ATTN_PAD_ROWS;
            Sk = begin + (int)draw(0, 300);
            remote.rows[remote.n] = Range{begin, Sk};
            if (begin < Sk) random_bands(bands, 0, Sq, begin, Sk, (int)draw(0, 4));
        }
        const int64_t n = (int64_t)bands.size();
        std::vector<uint8_t> want((size_t)Sq * Sk, 0);
        for (const Band &b : bands)
            for (int q = b.q_begin; q < b.q_end; q++)
                for (int k = b.k_begin; k < b.k_end; k++)
                    want[(size_t)q * Sk + k] |= band_has(b, q, k);
        AttnBlocks dq_blocks = attn_dq_blocks(bands.data(), n, Sq, grid_k.step);
        double steps_before[ATTN_REMOTE_RANGES];
        for (int i = 0; i < remote.n; i++)
            steps_before[i] = (double)draw(0, 60) + (i ? steps_before[i - 1] : 0);
        const bool split = draw(0, 1);
        AttnTileList by_q =
            attn_tiles_by_q(bands.data(), n, Sq, grid_q, &remote, split ? steps_before : NULL);
        AttnTileList unsplit = attn_tiles_by_q(bands.data(), n, Sq, grid_q, &remote, NULL);
        splits += by_q.n_tiles - unsplit.n_tiles;
        AttnTileList by_k = attn_tiles_by_k(bands.data(), n, Sk, grid_k, &dq_blocks, &remote);
        bool ok = list_is_right(by_q, grid_q, NULL, Sq, Sk, want, remote, split) &&
                  list_is_right(unsplit, grid_q, NULL, Sq, Sk, want, remote, false) &&
                  list_is_right(by_k, grid_k, &dq_blocks, Sk, Sq, want, remote, false);
        attn_tiles_free(&by_q);
        attn_tiles_free(&unsplit);
        attn_tiles_free(&by_k);
        free(dq_blocks.at);
        if (!ok) {
            printf("  in trial %d\n", trial);
            return false;
        }
    }
    HOLDS(splits > 0);
    return true;
}

#endif
