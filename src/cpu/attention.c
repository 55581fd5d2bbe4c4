/* attention.c: softmax attention over a band list, forward 4 D and backward 10 D FLOPs per allowed
 * (query head, row, key). Rows are cut in tiles; each band of a tile is walked in blocks of keys,
 * each block a product of packed factors (gemm.h) over the rows and keys that the band touches in
 * it, and nothing else is read: rows of the buffers outside every band may hold anything.
 * Online softmax: Milakov and Gimelshein, 2018; backward by recomputation: Dao et al., 2022. */
#include <math.h>
#include <stdlib.h>

#include "cpu/cpu.h"
#include "cpu/gemm.h"

enum { TILE_ROWS = 48, TILE_KEYS = 96 };

struct AttnWork {
    AttnShape shape;
    int64_t n_tiles; /* of TILE_ROWS rows */
    int64_t *first;  /* [n_tiles + 1]: tile t has bands first[t] .. first[t + 1] - 1 */
    Band *bands;     /* cut to the rows of their tile, in the order of the caller's list */
};

/* The block of a tile's band that starts at key k */
static Band block_of(Band band, int32_t k) {
    return band_cut_k(band, (Range){k, k + TILE_KEYS});
}

Status cpu_attn_work_create(AttnWork **out, const Band *bands, int64_t n_bands, AttnShape shape,
                            const RemoteKv *remote, Stream *stream) {
    (void)stream;
    REQUIRE(remote == NULL);
    REQUIRE(shape.H > 0 && shape.K > 0 && shape.H % shape.K == 0);
    AttnWork *work = NEW(AttnWork, 1);
    work->shape = shape;
    work->n_tiles = ceil_div(shape.Sq, TILE_ROWS);
    work->first = NEW(int64_t, work->n_tiles + 1);
    int64_t *next = NEW(int64_t, work->n_tiles + 1);
    Range keys = {0, (int32_t)shape.Sk};
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (int64_t i = 0; i < n_bands; i++) {
            Band band = band_cut_k(band_cut_q(bands[i], (Range){0, (int32_t)shape.Sq}), keys);
            for (int32_t t = band.q_begin / TILE_ROWS; t * TILE_ROWS < band.q_end; t++) {
                Range rows = {t * TILE_ROWS, (t + 1) * TILE_ROWS};
                if (pass == 1) work->bands[next[t]] = band_cut_q(band, rows);
                next[t]++;
            }
        }
        if (pass == 1) break;
        for (int64_t t = 0; t < work->n_tiles; t++) {
            work->first[t + 1] = work->first[t] + next[t];
            next[t] = work->first[t];
        }
        work->bands = NEW(Band, work->first[work->n_tiles]);
    }
    free(next);
    *out = work;
    return OK;
}

void cpu_attn_work_free(AttnWork *work) {
    if (work == NULL) return;
    free(work->first);
    free(work->bands);
    free(work);
}

/* ---- one thread's buffers ----------------------------------------------------------------- */
typedef struct {
    float *pack_a, *pack_b; /* one packed factor each */
    float *score, *dscore;  /* [TILE_ROWS, TILE_KEYS] */
    float max[TILE_ROWS];   /* of the scores of a row so far */
    double sum[TILE_ROWS];  /* of exp(score - max) */
} Buffers;

static Buffers buffers_new(int D) {
    int64_t side = TILE_KEYS, depth = round_up(i64_max(D, TILE_KEYS), GEMM_COLS);
    return (Buffers){.pack_a = cpu_scratch(side * depth),
                     .pack_b = cpu_scratch(depth * depth),
                     .score = cpu_scratch(TILE_ROWS * TILE_KEYS),
                     .dscore = cpu_scratch(TILE_ROWS * TILE_KEYS)};
}

static void buffers_free(Buffers *b) {
    free(b->pack_a);
    free(b->pack_b);
    free(b->score);
    free(b->dscore);
}

/* c[m,n] = a b, or c += a b; at most TILE_KEYS rows, and n and k at most TILE_KEYS or D */
static void product(Buffers *buf, float *c, int64_t ldc, bool add, GemmFactor a, GemmFactor b,
                    int64_t m, int64_t n, int64_t k) {
    gemm_pack_a(buf->pack_a, a, m, k);
    gemm_pack_b(buf->pack_b, b, n, k);
    gemm_packed(c, add ? c : NULL, ldc, buf->pack_a, buf->pack_b, m, n, k);
}

/* Keys that a row may see, from the first key of its block */
static Range row_keys(Band block, int32_t row) {
    Range keys = band_row(block, row);
    return (Range){keys.begin - block.k_begin, keys.end - block.k_begin};
}

/* ---- forward ------------------------------------------------------------------------------ */
/* One row of scores becomes exp(scale score - max), 0 where not allowed; max and sum go on, and
 * what the row has accumulated is rescaled to the new max. */
static CPU_CLONES void softmax_row(float *score, Range allowed, int64_t keys, float scale,
                                   float *max, double *sum, float *acc, int D) {
    float top = cpu_max(score + allowed.begin, allowed.end - allowed.begin) * scale;
    top = top > *max ? top : *max;
    double more = 0;
    for (int64_t j = 0; j < allowed.begin; j++) score[j] = 0;
#pragma omp simd reduction(+ : more)
    for (int64_t j = allowed.begin; j < allowed.end; j++) {
        score[j] = cpu_expf(score[j] * scale - top);
        more += (double)score[j];
    }
    for (int64_t j = allowed.end; j < keys; j++) score[j] = 0;
    float shrink = cpu_expf(*max - top);
    *sum = *sum * (double)shrink + more;
    *max = top;
    for (int d = 0; d < D; d++) acc[d] *= shrink;
}

static void forward_tile(Buffers *buf, const AttnFwd *a, int h, int64_t tile) {
    const AttnWork *work = a->work;
    AttnShape z = work->shape;
    int64_t ldq = (int64_t)z.H * z.D, ldk = 2 * (int64_t)z.K * z.D, to_head = (int64_t)h * z.D;
    int64_t begin = tile * TILE_ROWS, end = i64_min(begin + TILE_ROWS, z.Sq);
    const float *q = (const float *)a->q + to_head;
    const float *k = (const float *)a->kv + (int64_t)(h / (z.H / z.K)) * z.D;
    const float *v = k + (int64_t)z.K * z.D;
    float *o = a->o, *acc = (a->o_acc != NULL ? a->o_acc : o) + to_head;
    float *lse = a->lse + h * z.Sq;
    size_t row_bytes = (size_t)z.D * sizeof(float);
    /* An earlier result is a sum of 1 at max = lse. So is none, at -inf: the first key shrinks that
     * sum by exp(-inf), and without keys it ends as o = 0 / 1, lse = -inf + log 1. */
    for (int64_t r = begin; r < end; r++) {
        buf->max[r - begin] = a->resume ? lse[r] : -INFINITY;
        buf->sum[r - begin] = 1;
        if (!a->resume) memset(acc + r * ldq, 0, row_bytes);
    }
    for (int64_t i = work->first[tile]; i < work->first[tile + 1]; i++) {
        Band band = work->bands[i];
        for (int32_t key = band.k_begin; key < band.k_end; key += TILE_KEYS) {
            Band b = block_of(band, key);
            int64_t rows = b.q_end - b.q_begin, keys = b.k_end - b.k_begin;
            product(buf, buf->score, TILE_KEYS, false, (GemmFactor){q + b.q_begin * ldq, ldq, true},
                    (GemmFactor){k + b.k_begin * ldk, ldk, true}, rows, keys, z.D);
            for (int32_t r = b.q_begin; r < b.q_end; r++) {
                softmax_row(buf->score + (r - b.q_begin) * TILE_KEYS, row_keys(b, r), keys, z.scale,
                            &buf->max[r - begin], &buf->sum[r - begin], acc + r * ldq, z.D);
            }
            product(buf, acc + b.q_begin * ldq, ldq, true,
                    (GemmFactor){buf->score, TILE_KEYS, true},
                    (GemmFactor){v + b.k_begin * ldk, ldk, false}, rows, z.D, keys);
        }
    }
    for (int64_t r = begin; r < end; r++) {
        double sum = buf->sum[r - begin];
        float inverse = (float)(1 / sum);
        lse[r] = (float)((double)buf->max[r - begin] + log(sum));
        for (int d = 0; d < z.D; d++) acc[r * ldq + d] *= inverse;
        if (a->o_acc != NULL && o != NULL) memcpy(o + r * ldq + to_head, acc + r * ldq, row_bytes);
    }
}

void cpu_attention_fwd(const AttnFwd *a, Stream *stream) {
    (void)stream;
    REQUIRE(a->o_acc != NULL || (a->o != NULL && !a->resume));
#pragma omp parallel
    {
        Buffers buf = buffers_new(a->work->shape.D);
#pragma omp for collapse(2) schedule(dynamic)
        for (int h = 0; h < a->work->shape.H; h++) {
            for (int64_t t = 0; t < a->work->n_tiles; t++) forward_tile(&buf, a, h, t);
        }
        buffers_free(&buf);
    }
}

/* ---- backward ----------------------------------------------------------------------------- */
static CPU_CLONES float dot(const float *a, const float *b, int n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return (float)sum;
}

void cpu_attention_delta(float *delta, const void *d_o, const void *o, int64_t S, int H, int D,
                         Stream *stream) {
    (void)stream;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < S; s++) {
        for (int h = 0; h < H; h++) {
            int64_t at = (s * H + h) * D;
            delta[h * S + s] = dot((const float *)d_o + at, (const float *)o + at, D);
        }
    }
}

/* score becomes p = exp(scale score - lse); dp becomes ds = scale p (dp - delta) */
static CPU_CLONES void softmax_row_bwd(float *score, float *dp, Range allowed, int64_t keys,
                                       float scale, float lse, float delta) {
    for (int64_t j = 0; j < allowed.begin; j++) score[j] = dp[j] = 0;
    for (int64_t j = allowed.begin; j < allowed.end; j++) {
        score[j] = cpu_expf(score[j] * scale - lse);
        dp[j] = score[j] * (dp[j] - delta) * scale;
    }
    for (int64_t j = allowed.end; j < keys; j++) score[j] = dp[j] = 0;
}

/* One head of q over the bands of one tile of rows, added to dq and dkv */
static void backward_tile(Buffers *buf, const AttnBwd *a, int h, int64_t tile) {
    const AttnWork *work = a->work;
    AttnShape z = work->shape;
    const float *d_o = a->d_o, *q = a->q, *kv = a->kv;
    const float *lse = a->lse + h * z.Sq, *delta = a->delta + h * z.Sq;
    int64_t ldq = (int64_t)z.H * z.D, ldk = 2 * (int64_t)z.K * z.D;
    int64_t to_head = (int64_t)h * z.D, to_k = (int64_t)(h / (z.H / z.K)) * z.D;
    int64_t to_v = to_k + (int64_t)z.K * z.D;
    for (int64_t i = work->first[tile]; i < work->first[tile + 1]; i++) {
        Band band = work->bands[i];
        for (int32_t key = band.k_begin; key < band.k_end; key += TILE_KEYS) {
            Band b = block_of(band, key);
            int64_t rows = b.q_end - b.q_begin, keys = b.k_end - b.k_begin;
            int64_t at_q = b.q_begin * ldq + to_head, at_kv = b.k_begin * ldk;
            product(buf, buf->score, TILE_KEYS, false, (GemmFactor){q + at_q, ldq, true},
                    (GemmFactor){kv + at_kv + to_k, ldk, true}, rows, keys, z.D);
            product(buf, buf->dscore, TILE_KEYS, false, (GemmFactor){d_o + at_q, ldq, true},
                    (GemmFactor){kv + at_kv + to_v, ldk, true}, rows, keys, z.D);
            for (int32_t r = b.q_begin; r < b.q_end; r++) {
                int64_t at = (r - b.q_begin) * TILE_KEYS;
                softmax_row_bwd(buf->score + at, buf->dscore + at, row_keys(b, r), keys, z.scale,
                                lse[r], delta[r]);
            }
            product(buf, a->dkv + at_kv + to_v, ldk, true,
                    (GemmFactor){buf->score, TILE_KEYS, false},
                    (GemmFactor){d_o + at_q, ldq, false}, keys, z.D, rows);
            product(buf, a->dkv + at_kv + to_k, ldk, true,
                    (GemmFactor){buf->dscore, TILE_KEYS, false}, (GemmFactor){q + at_q, ldq, false},
                    keys, z.D, rows);
            product(buf, a->dq + at_q, ldq, true, (GemmFactor){buf->dscore, TILE_KEYS, true},
                    (GemmFactor){kv + at_kv + to_k, ldk, false}, rows, z.D, keys);
        }
    }
}

/* Threads split the kv heads: with one of them go its dkv and the dq of the heads that read it, so
 * every sum has one owner and one order. */
void cpu_attention_bwd(const AttnBwd *a, Stream *stream) {
    AttnShape z = a->work->shape;
    int64_t row_bytes = (int64_t)z.D * (int64_t)sizeof(float);
    int group = z.H / z.K;
    if (!a->accumulate_dq) cpu_mem_zero(a->dq, z.Sq * z.H * row_bytes, stream);
    if (!a->accumulate_dkv) cpu_mem_zero(a->dkv, 2 * z.Sk * z.K * row_bytes, stream);
#pragma omp parallel
    {
        Buffers buf = buffers_new(z.D);
#pragma omp for schedule(dynamic)
        for (int g = 0; g < z.K; g++) {
            for (int64_t t = 0; t < a->work->n_tiles; t++) {
                for (int h = g * group; h < (g + 1) * group; h++) backward_tile(&buf, a, h, t);
            }
        }
        buffers_free(&buf);
    }
}
