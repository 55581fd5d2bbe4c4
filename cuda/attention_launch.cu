/* attention_launch.cu: creates the work of attention calls, chooses the kernels, and launches them.
 */
#include "attention.h"
#include "tuning.h"

#include <stdlib.h>
#include <string.h>

/* ---- work lists ------------------------------------------------------------------------------ */

static int64_t list_bytes(const AttnTiles *list) {
    return (int64_t)sizeof(AttnTile) * list->n_tiles + (int64_t)sizeof(AttnRun) * list->n_runs;
}

/* Appends the list to `image`, which will lie at `device`; returns the bytes used. */
static int64_t list_place(AttnList *out, const AttnTiles *list, char *image, char *device) {
    int64_t tiles = (int64_t)sizeof(AttnTile) * list->n_tiles;
    memcpy(image, list->tiles, (size_t)tiles);
    if (list->n_runs) memcpy(image + tiles, list->runs, sizeof(AttnRun) * (size_t)list->n_runs);
    out->tiles = (const AttnTile *)device;
    out->runs = (const AttnRun *)(device + tiles);
    out->n_tiles = (int32_t)list->n_tiles;
    out->n_busy = (int32_t)list->n_busy;
    for (int64_t i = 0; i < list->n_tiles; i++) {
        for (int g = list->tiles[i].schedule_group; g < ATTN_SCHEDULE_GROUPS; g++)
            out->group_end[g]++;
        out->n_steps += list->tiles[i].n_steps;
        out->longest =
            list->tiles[i].n_steps > out->longest ? list->tiles[i].n_steps : out->longest;
    }
    return list_bytes(list);
}

static AttnTuning fwd_tuning(const AttnWork *work) {
    AttnTuning t = {};
    t.ctas = work->sm_count;
    t.step_us = work->shape.D == 128 ? FWD_STEP_US_D128 : FWD_STEP_US_D64;
    t.item_steps = FWD_ITEM_STEPS;
    t.split_pass_us = FWD_SPLIT_PASS_US;
    t.min_split_steps = FWD_MIN_SPLIT_STEPS;
    t.min_gain = FWD_MIN_GAIN;
    t.min_gain_us = FWD_MIN_GAIN_US;
    return t;
}

/* Hopper's forward; the portable one, the oracle, never splits. */
static AttnTiles tiles_by_q(const AttnWork *work, const Band *bands, int64_t n_bands,
                            AttnGrid grid) {
    const AttnTuning tuning = fwd_tuning(work);
    const int32_t Sq = (int32_t)work->shape.Sq;
    if (!work->sm90) return attn_tiles_by_q(bands, n_bands, Sq, grid, &work->remote, NULL, &tuning);
    double us;
    return attn_tiles_fwd(bands, n_bands, Sq, grid, &work->remote, work->shape.H, &tuning, &us);
}

static void describe_device(AttnWork *work, AttnKernels kernels) {
    int device = 0, major = 0, minor = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    cudaDeviceGetAttribute(&work->sm_count, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&work->l2_bytes, cudaDevAttrL2CacheSize, device);
    work->sm90 =
        kernels != ATTN_PORTABLE && gpu_hopper_attention(10 * major + minor, work->shape.D);
}

static void count_range_tiles(AttnWork *work, const AttnTiles *by_k) {
    for (int64_t t = 0; t < by_k->n_tiles; t++) {
        int range = by_k->tiles[t].schedule_group - 1;
        if (range >= 0 && range < work->remote.n) work->range_tiles[range]++;
    }
}

/* Device memory of the work: counters and semaphores, zeroed, then the lists. */
static Status upload_work(AttnWork *work, const AttnTiles *by_q, const AttnTiles *by_k,
                          Stream *stream) {
    const int64_t counters = 4 + ATTN_REMOTE_RANGES, dkv_order = by_k->n_tiles * work->shape.K;
    const int64_t split_done = by_q->n_split_tiles * work->shape.H * ATTN_WARPS;
    int64_t zero_bytes = round_up(4 * (counters + dkv_order + split_done), 64);
    int64_t list_at = zero_bytes + round_up(attn_dq_order_bytes(work), 64);
    int64_t bytes = list_bytes(by_q) + list_bytes(by_k);
    cudaError_t error = cudaMallocAsync(&work->memory, (size_t)(list_at + bytes), stream->s);
    if (error != cudaSuccess) {
        cudaGetLastError(); /* the caller reports it */
        return status_fail(ERR_ENV, "attention work list: no %lld bytes of device memory: %s",
                           (long long)(list_at + bytes), cudaGetErrorString(error));
    }
    char *base = (char *)work->memory, *image = NEW(char, bytes + 1);
    work->counters = (int32_t *)base;
    work->range_warps_done = work->counters + 4;
    work->dkv_order = work->counters + counters;
    work->split_done = (uint32_t *)(work->dkv_order + dkv_order);
    work->dq_order = (int32_t *)(base + zero_bytes);
    int64_t used = list_place(&work->by_q, by_q, image, base + list_at);
    list_place(&work->by_k, by_k, image + used, base + list_at + used);
    CUDA_CHECK_DEFERRED(cudaMemsetAsync(base, 0, (size_t)zero_bytes, stream->s));
    cuda_mem_upload(base + list_at, image, bytes, stream);
    free(image);
    return OK;
}

extern "C" Status cuda_attn_work_create_as(AttnKernels kernels, AttnWork **out, const Band *bands,
                                           int64_t n_bands, AttnShape shape, const RemoteKv *remote,
                                           Stream *stream) {
    CHECK(gpu_check_head_dim(shape.D));
    REQUIRE(shape.H % shape.K == 0);
    for (int64_t i = 0; i < n_bands; i++)
        REQUIRE(bands[i].q_begin >= 0 && bands[i].q_end <= shape.Sq && bands[i].k_begin >= 0 &&
                bands[i].k_end <= shape.Sk);
    AttnWork *work = NEW(AttnWork, 1);
    work->shape = shape;
    work->stream = stream->s;
    if (remote != NULL) work->remote = *remote;
    describe_device(work, kernels);
    AttnGrid grid_q, grid_k;
    if (work->sm90)
        attn_sm90_grids(shape.D, &grid_q, &grid_k);
    else
        attn_portable_grids(&grid_q, &grid_k);
    AttnBlocks dq_blocks = attn_dq_blocks(bands, n_bands, (int32_t)shape.Sq, grid_k.step);
    AttnTiles by_q = tiles_by_q(work, bands, n_bands, grid_q);
    AttnTiles by_k =
        attn_tiles_by_k(bands, n_bands, (int32_t)shape.Sk, grid_k, &dq_blocks, &work->remote);
    work->split_kv = by_q.n_split_tiles > 0;
    work->n_dq_blocks = (int32_t)dq_blocks.n;
    count_range_tiles(work, &by_k);
    Status st = upload_work(work, &by_q, &by_k, stream);
    free(dq_blocks.at);
    attn_tiles_free(&by_q);
    attn_tiles_free(&by_k);
    if (st == OK)
        *out = work;
    else
        free(work);
    return st;
}

extern "C" Status cuda_attn_work_create(AttnWork **work, const Band *bands, int64_t n_bands,
                                        AttnShape shape, const RemoteKv *remote, Stream *stream) {
    return cuda_attn_work_create_as(ATTN_BEST, work, bands, n_bands, shape, remote, stream);
}

extern "C" void cuda_attn_work_free(AttnWork *work) {
    if (work == NULL) return;
    CUDA_CHECK_DEFERRED(cudaFreeAsync(work->memory, work->stream));
    free(work);
}

/* ---- calls ----------------------------------------------------------------------------------- */

extern "C" void cuda_attention_fwd(const AttnFwd *a, Stream *stream) {
    const AttnWork *work = a->work;
    if (work->shape.Sq == 0) return;
    REQUIRE(work->remote.n == 0 || (!a->resume && a->o != NULL && a->o_acc != NULL));
    (work->sm90 ? attn_sm90_fwd : attn_portable_fwd)(a, stream->s);
    CUDA_CHECK_LAUNCH("attention_fwd");
}

/* Deterministic: dq is added up in a fixed order. Everything else always is. */
extern "C" void cuda_attention_bwd(const AttnBwd *a, Stream *stream) {
    REQUIRE(!(a->accumulate_dq || a->accumulate_dkv) || a->work->remote.n == 0);
    if (a->work->sm90)
        attn_sm90_bwd(a, stream->ops->deterministic, stream->s);
    else
        attn_portable_bwd(a, stream->s);
    CUDA_CHECK_LAUNCH("attention_bwd");
}
