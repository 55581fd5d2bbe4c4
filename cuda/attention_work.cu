/* attention_work.cu: bands to work lists (host), the choice between the two implementations, and
 * delta = rowsum(dO * O).
 *
 * Tiles are cut where bands begin and end, so that packed documents do not share tiles: a tile of two
 * documents would walk the keys of both. The lists go to the device in one copy. */
#include "attention.h"

#include <cuda_bf16.h>
#include <stdlib.h>
#include <string.h>

/* ---- work lists (host) ---------------------------------------------------------------------- */

typedef struct {
    AttnTile *tiles;
    AttnRun *runs;
    int64_t n_tiles, n_runs, n_busy;
} HostList;

static int compare_int32(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static int compare_tiles(const void *a, const void *b) {
    const AttnTile *x = (const AttnTile *)a, *y = (const AttnTile *)b;
    if (x->n_steps != y->n_steps) return x->n_steps > y->n_steps ? -1 : 1;
    return (x->row0 > y->row0) - (x->row0 < y->row0);
}

static int compare_bands(const void *a, const void *b) {
    const Band *x = (const Band *)a, *y = (const Band *)b;
    if (x->q_begin != y->q_begin) return x->q_begin < y->q_begin ? -1 : 1;
    return (x->k_begin > y->k_begin) - (x->k_begin < y->k_begin);
}

static Band band_transpose(Band b) {
    Band t = {b.k_begin, b.k_end, b.q_begin, b.q_end, -b.hi, -b.lo};
    return t;
}

/* Tiles over rows [0, n_rows): of full height, but ending early where a stretch begins that is worth
 * a tile start of its own. */
static void cut_tiles(HostList *list, const Band *bands, int64_t n_bands, int32_t n_rows,
                      int32_t height) {
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
    list->tiles = NEW(AttnTile, n_rows / height + used + 2);
    int64_t next = 0; /* the first edge after the tile's start */
    for (int32_t row = 0; row < n_rows;) {
        int32_t end = row + height < n_rows ? row + height : n_rows;
        while (next < used && edges[next] <= row) next++;
        for (int64_t i = next; i < used && edges[i] < end; i++)
            if (edges[i + 1] - edges[i] >= height / 2) end = edges[i];
        AttnTile *tile = &list->tiles[list->n_tiles++];
        tile->row0 = row;
        tile->rows = end - row;
        row = end;
    }
    free(edges);
}

/* The run of `band` in `tile`; false when it has no step there. `strict`: a step counts as full only if
 * the band covers all `grid.rows` rows of it, not just those that the tile writes. `open_end`: columns
 * past the band's end do no harm in a full step (the kernel silences them by other means). */
static bool make_run(AttnRun *run, const AttnTile *tile, Band band, AttnGrid grid, bool strict,
                     bool open_end) {
    int64_t row_end = tile->row0 + (strict ? grid.rows : tile->rows);
    int64_t full_lo = i64_max(band.k_begin, row_end - 1 + band.lo);
    int64_t full_hi = i64_min(open_end ? INT32_MAX : band.k_end, (int64_t)tile->row0 + band.hi + 1);
    bool covers = band.q_begin <= tile->row0 && band.q_end >= row_end &&
                  tile->row0 + tile->rows >= row_end;
    /* rows that see at least one key */
    int64_t a = i64_max(i64_max(band.q_begin, tile->row0), (int64_t)band.k_begin - band.hi);
    int64_t b = i64_min(i64_min(band.q_end, tile->row0 + tile->rows),
                        (int64_t)band.k_end - band.lo);
    int64_t first = i64_max(band.k_begin, a + band.lo);
    int64_t last = i64_min(band.k_end, b + band.hi);
    if (a >= b || first >= last || band.lo > band.hi) return false;
    memset(run, 0, sizeof *run);
    int64_t n = ceil_div(last - first, grid.step);
    run->first = (int32_t)first;
    run->n_steps = (int32_t)n;
    if (covers && full_hi > full_lo) {
        int64_t begin = ceil_div(full_lo - first, grid.step);
        int64_t end = i64_min(n, (full_hi - first) / grid.step);
        if (full_hi >= first && begin < end) {
            run->full_begin = (int32_t)begin;
            run->full_end = (int32_t)end;
        }
    }
    run->band = band;
    run->band.q_begin = (int32_t)i64_max(band.q_begin, tile->row0);
    run->band.q_end = (int32_t)i64_min(band.q_end, tile->row0 + tile->rows);
    return true;
}

static int64_t first_tile_past(const HostList *list, int32_t row) { /* whose rows end after row */
    int64_t lo = 0, hi = list->n_tiles;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (list->tiles[mid].row0 + list->tiles[mid].rows <= row) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void build_list(HostList *list, const Band *bands, int64_t n_bands, int32_t n_rows,
                       AttnGrid grid, bool strict, bool open_end) {
    memset(list, 0, sizeof *list);
    cut_tiles(list, bands, n_bands, n_rows, grid.rows);
    int64_t *at = NEW(int64_t, list->n_tiles + 1); /* runs of each tile, then where the next goes */
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n_bands; i++) {
            for (int64_t t = first_tile_past(list, bands[i].q_begin);
                 t < list->n_tiles && list->tiles[t].row0 < bands[i].q_end; t++) {
                AttnRun run;
                if (!make_run(&run, &list->tiles[t], bands[i], grid, strict, open_end)) continue;
                if (pass) {
                    list->runs[at[t]] = run;
                    list->tiles[t].n_steps += run.n_steps;
                }
                at[t]++;
            }
        }
        if (pass) break;
        for (int64_t t = 0; t < list->n_tiles; t++) {
            int64_t count = at[t];
            at[t] = list->n_runs;
            list->tiles[t].run_begin = (int32_t)list->n_runs;
            list->n_runs += count;
            list->tiles[t].run_end = (int32_t)list->n_runs;
        }
        list->runs = NEW(AttnRun, list->n_runs + 1);
    }
    free(at);
    qsort(list->tiles, (size_t)list->n_tiles, sizeof *list->tiles, compare_tiles);
    while (list->n_busy < list->n_tiles && list->tiles[list->n_busy].n_steps > 0) list->n_busy++;
}

static int64_t list_bytes(const HostList *list) {
    return (int64_t)sizeof(AttnTile) * list->n_tiles + (int64_t)sizeof(AttnRun) * list->n_runs;
}

/* Appends the list to `image`, which will lie at `device`; returns the bytes used. */
static int64_t list_place(AttnList *out, const HostList *list, char *image, char *device) {
    int64_t tiles = (int64_t)sizeof(AttnTile) * list->n_tiles;
    memcpy(image, list->tiles, (size_t)tiles);
    memcpy(image + tiles, list->runs, sizeof(AttnRun) * (size_t)list->n_runs);
    out->tiles = (const AttnTile *)device;
    out->runs = (const AttnRun *)(device + tiles);
    out->n_tiles = (int32_t)list->n_tiles;
    out->n_busy = (int32_t)list->n_busy;
    return list_bytes(list);
}

static Status work_create(AttnWork **out, const Band *bands, int64_t n_bands, AttnShape shape,
                          cudaStream_t stream, bool portable) {
    enum { COUNTER_BYTES = 64 };
    REQUIRE(shape.H % shape.K == 0 && shape.D % 16 == 0 && shape.D <= 128);
    AttnWork *work = NEW(AttnWork, 1);
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&work->sm_count, cudaDevAttrMultiProcessorCount, device);
    work->shape = shape;
    work->stream = stream;
    work->sm90 = !portable && major == 9 && (shape.D == 64 || shape.D == 128);
    AttnGrid grid_q, grid_k;
    (work->sm90 ? attn_sm90_grids : attn_portable_grids)(shape.D, &grid_q, &grid_k);

    Band *sorted = NEW(Band, n_bands + 1), *transposed = NEW(Band, n_bands + 1);
    for (int64_t i = 0; i < n_bands; i++) {
        REQUIRE(bands[i].q_begin >= 0 && bands[i].q_end <= shape.Sq && bands[i].k_begin >= 0 &&
                bands[i].k_end <= shape.Sk);
        sorted[i] = bands[i];
        transposed[i] = band_transpose(bands[i]);
    }
    qsort(sorted, (size_t)n_bands, sizeof *sorted, compare_bands);
    qsort(transposed, (size_t)n_bands, sizeof *transposed, compare_bands);
    HostList by_q, by_k;
    build_list(&by_q, sorted, n_bands, (int32_t)shape.Sq, grid_q, false, false);
    build_list(&by_k, transposed, n_bands, (int32_t)shape.Sk, grid_k, true, true);

    int64_t bytes = COUNTER_BYTES + list_bytes(&by_q) + list_bytes(&by_k);
    char *image = NEW(char, bytes);
    cudaError_t error = cudaMallocAsync(&work->memory, (size_t)bytes, stream);
    Status st = OK;
    if (error != cudaSuccess) {
        st = status_fail(ERR_ENV, "attention work list: no %lld bytes of device memory: %s",
                         (long long)bytes, cudaGetErrorString(error));
        free(work);
    } else {
        char *base = (char *)work->memory;
        int64_t at = COUNTER_BYTES;
        work->counters = (int32_t *)base;
        at += list_place(&work->by_q, &by_q, image + at, base + at);
        list_place(&work->by_k, &by_k, image + at, base + at);
        cudaMemcpyAsync(base, image, (size_t)bytes, cudaMemcpyHostToDevice, stream);
        *out = work;
    }
    free(image);
    free(sorted);
    free(transposed);
    free(by_q.tiles);
    free(by_q.runs);
    free(by_k.tiles);
    free(by_k.runs);
    return st;
}

extern "C" Status cuda_attn_work_create(AttnWork **work, const Band *bands, int64_t n_bands,
                                        AttnShape shape, Stream *stream) {
    return work_create(work, bands, n_bands, shape, stream->s, false);
}

extern "C" Status cuda_attn_work_create_portable(AttnWork **work, const Band *bands,
                                                 int64_t n_bands, AttnShape shape,
                                                 Stream *stream) {
    return work_create(work, bands, n_bands, shape, stream->s, true);
}

extern "C" void cuda_attn_work_free(AttnWork *work) {
    if (work == NULL) return;
    cudaFreeAsync(work->memory, work->stream);
    free(work);
}

/* ---- calls ---------------------------------------------------------------------------------- */

extern "C" void cuda_attention_fwd(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                                   const AttnWork *work, bool resume, Stream *stream) {
    if (work->shape.Sq == 0) return;
    (work->sm90 ? attn_sm90_fwd : attn_portable_fwd)(o, o_acc, lse, q, kv, work, resume, stream->s);
}

extern "C" void cuda_attention_bwd(float *dq, float *dkv, const void *d_o, const void *q,
                                   const void *kv, const float *lse, const float *delta,
                                   const AttnWork *work, bool accumulate_dq, bool accumulate_dkv,
                                   Stream *stream) {
    (work->sm90 ? attn_sm90_bwd : attn_portable_bwd)(dq, dkv, d_o, q, kv, lse, delta, work,
                                                     accumulate_dq, accumulate_dkv, stream->s);
}

/* 16 lanes per (row, head), 16 bytes a lane; a block takes 16 rows of one head. */
static __global__ void delta_kernel(float *delta, const __nv_bfloat16 *d_o, const __nv_bfloat16 *o,
                                    int64_t S, int H, int D) {
    int64_t row = (int64_t)blockIdx.x * 16 + threadIdx.x / 16;
    int head = blockIdx.y, lane = threadIdx.x % 16;
    float sum = 0;
    if (row < S && lane * 8 < D) {
        int64_t at = (row * H + head) * D + lane * 8;
        uint4 x = *(const uint4 *)(d_o + at), y = *(const uint4 *)(o + at);
        const __nv_bfloat162 *a = (const __nv_bfloat162 *)&x, *b = (const __nv_bfloat162 *)&y;
        for (int i = 0; i < 4; i++) {
            float2 u = __bfloat1622float2(a[i]), v = __bfloat1622float2(b[i]);
            sum += u.x * v.x + u.y * v.y;
        }
    }
    for (int m = 8; m; m >>= 1) sum += __shfl_xor_sync(0xffffffff, sum, m);
    if (row < S && lane == 0) delta[head * S + row] = sum;
}

extern "C" void cuda_attention_delta(float *delta, const void *d_o, const void *o, int64_t S, int H,
                                     int D, Stream *stream) {
    if (S == 0) return;
    dim3 grid((unsigned)ceil_div(S, 16), (unsigned)H);
    delta_kernel<<<grid, 256, 0, stream->s>>>(delta, (const __nv_bfloat16 *)d_o,
                                              (const __nv_bfloat16 *)o, S, H, D);
}
