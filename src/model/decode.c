#include "model/decode.h"

#include <math.h>
#include <stdlib.h>

#include "model/rope.h"

/* Tokens that one pass takes at most: what is longer is run in parts, with the same result. */
enum { ROWS_MAX = 2048 };

struct Decoder {
    DecodeOptions opt;
    int C, H, K, D, F, V, Vp;
    int64_t rows;   /* of the working memory */
    int64_t n;      /* tokens in the cache */
    int64_t n_keys; /* bytes of a token's keys and values in a layer */
    const void *weights;
    char *cache;
    void *x, *y, *norm, *qkv, *q, *o, *gate_up, *h, *logits;
    float *lse, *inv_freq, *wide;
    int32_t *tokens, *positions;
};

Decoder *decoder_create(const DecodeOptions *options, Arena *arena) {
    const ModelConfig *c = options->model;
    Decoder *d = NEW(Decoder, 1);
    d->opt = *options;
    d->C = c->hidden, d->H = c->heads, d->K = c->kv_heads, d->D = c->head_dim, d->F = c->ffn;
    d->V = c->vocab, d->Vp = options->table->vocab_padded;
    d->rows = i64_min(options->max_tokens, ROWS_MAX);
    int64_t S = d->rows, act = options->ops->act_bytes, f32 = sizeof(float);
    int64_t HD = (int64_t)d->H * d->D, KD = (int64_t)d->K * d->D;
    d->n_keys = 2 * KD * act;
    const char *region = "generation";
    arena_reserve(arena, region, "KV cache", c->layers * options->max_tokens * d->n_keys,
                  (void **)&d->cache);
    arena_reserve(arena, region, "layer input", S * d->C * act, &d->x);
    arena_reserve(arena, region, "mlp input", S * d->C * act, &d->y);
    arena_reserve(arena, region, "normalised", S * d->C * act, &d->norm);
    arena_reserve(arena, region, "qkv", S * (HD + 2 * KD) * act, &d->qkv);
    arena_reserve(arena, region, "q", S * HD * act, &d->q);
    arena_reserve(arena, region, "attention output", S * HD * act, &d->o);
    arena_reserve(arena, region, "lse", S * d->H * f32, (void **)&d->lse);
    arena_reserve(arena, region, "gate and up", S * 2 * d->F * act, &d->gate_up);
    arena_reserve(arena, region, "swiglu output", S * d->F * act, &d->h);
    arena_reserve(arena, region, "logits", d->Vp * act, &d->logits);
    arena_reserve(arena, region, "fp32 logits", d->Vp * f32, (void **)&d->wide);
    arena_reserve(arena, region, "tokens", S * 4, (void **)&d->tokens);
    arena_reserve(arena, region, "positions", S * 4, (void **)&d->positions);
    arena_reserve(arena, region, "rope frequencies", d->D / 2 * f32, (void **)&d->inv_freq);
    return d;
}

void decoder_free(Decoder *d) {
    free(d);
}

Status decoder_start(Decoder *d, const void *weights, Stream *stream) {
    d->weights = weights;
    decoder_set_stage(d, d->opt.model, d->opt.window, stream);
    return OK;
}

void decoder_set_stage(Decoder *d, const ModelConfig *model, int64_t window, Stream *stream) {
    float *inv = NEW(float, d->D / 2);
    d->opt.model = model;
    d->opt.window = window;
    rope_inv_freq(inv, model);
    d->opt.ops->mem_upload(d->inv_freq, inv, d->D / 2 * (int64_t)sizeof *inv, stream);
    free(inv);
}

int decoder_vocab(const Decoder *d) {
    return d->V;
}

void decoder_reset(Decoder *d) {
    d->n = 0;
}

static const void *weight(const Decoder *d, int64_t offset) {
    return (const char *)d->weights + offset * d->opt.ops->act_bytes;
}

/* The same ops as in llama.c, on d->x in place; keys and values go to the cache behind those of the
 * d->n tokens before. */
static void run_layer(Decoder *d, int layer, const AttnWork *work, int64_t S, Stream *stream) {
    const Ops *ops = d->opt.ops;
    char *kv = d->cache + layer * d->opt.max_tokens * d->n_keys;
    float eps = (float)d->opt.model->norm_eps;
    ModelLinears z = model_linears(d->opt.model, S);
    Rope rope = {d->positions, d->inv_freq, S, d->H, d->K, d->D};
#define W(which) weight(d, param_layer_offset(d->opt.table, layer, which))
    ops->rmsnorm_fwd(d->norm, NULL, NULL, d->x, W(PARAM_INPUT_NORM), S, d->C, eps, stream);
    linear_fwd(ops, z.qkv, d->qkv, d->norm, W(PARAM_Q), NULL, stream);
    ops->rope_split_fwd(d->q, kv + d->n * d->n_keys, d->qkv, &rope, stream);
    ops->attention_fwd(&(AttnFwd){.o = d->o, .lse = d->lse, .q = d->q, .kv = kv, .work = work},
                       stream);
    linear_fwd(ops, z.o, d->y, d->o, W(PARAM_O), d->x, stream);
    ops->rmsnorm_fwd(d->norm, NULL, NULL, d->y, W(PARAM_POST_NORM), S, d->C, eps, stream);
    linear_fwd(ops, z.gate_up, d->gate_up, d->norm, W(PARAM_GATE), NULL, stream);
    ops->swiglu_fwd(d->h, NULL, d->gate_up, S, d->F, stream);
    linear_fwd(ops, z.down, d->x, d->h, W(PARAM_DOWN), d->y, stream);
#undef W
}

/* Of the last of S rows. */
static void run_head(Decoder *d, int64_t S, float *logits, Stream *stream) {
    const Ops *ops = d->opt.ops;
    const ParamTable *t = d->opt.table;
    const char *last = (const char *)d->x + (S - 1) * d->C * ops->act_bytes;
    ops->rmsnorm_fwd(d->norm, NULL, NULL, last, weight(d, t->params[t->final_norm].offset), 1, d->C,
                     (float)d->opt.model->norm_eps, stream);
    linear_fwd(ops, model_linears(d->opt.model, 1).head, d->logits, d->norm,
               weight(d, t->params[t->head].offset), NULL, stream);
    ops->widen(d->wide, d->logits, false, d->Vp, stream);
    ops->mem_copy(logits, d->wide, d->V * (int64_t)sizeof *logits, stream);
}

/* The next S tokens see all before them, or the last ones. */
static Band mask(const Decoder *d, int64_t S) {
    int32_t before = (int32_t)d->n, rows = (int32_t)S, window = (int32_t)d->opt.window;
    Band band = band_from_slice((Range){0, rows}, (Range){0, before + rows}, SLICE_CAUSAL);
    if (window > 0 && window < before + rows) band.lo = before - window;
    return band_shrink(band);
}

/* S <= d->rows */
static Status run_part(Decoder *d, const int32_t *tokens, int64_t S, float *logits,
                       Stream *stream) {
    const Ops *ops = d->opt.ops;
    const Param *embed = &d->opt.table->params[d->opt.table->embed];
    int32_t *positions = NEW(int32_t, S);
    for (int64_t s = 0; s < S; s++) positions[s] = (int32_t)(d->n + s);
    ops->mem_upload(d->positions, positions, S * 4, stream);
    ops->mem_upload(d->tokens, tokens, S * 4, stream);
    free(positions);

    Band band = mask(d, S);
    AttnShape shape = {
        .Sq = S, .Sk = d->n + S, .H = d->H, .K = d->K, .D = d->D, .scale = 1 / sqrtf((float)d->D)};
    AttnWork *work;
    CHECK(ops->attn_work_create(&work, &band, 1, shape, NULL, stream));
    ops->embedding_fwd(d->x, d->tokens, weight(d, embed->offset), S, d->C, stream);
    for (int l = 0; l < d->opt.model->layers; l++) run_layer(d, l, work, S, stream);
    run_head(d, S, logits, stream);
    Status st = ops->stream_sync(stream);
    ops->attn_work_free(work);
    d->n += S;
    return st;
}

Status decoder_run(Decoder *d, const int32_t *tokens, int64_t n, float *logits, Stream *stream) {
    REQUIRE(n > 0 && d->n + n <= d->opt.max_tokens);
    for (int64_t i = 0, S; i < n; i += S) {
        S = i64_min(n - i, d->rows);
        CHECK(run_part(d, tokens + i, S, logits, stream));
    }
    for (int v = 0; v < d->V; v++)
        if (!isfinite(logits[v]))
            return status_fail(ERR_ENV,
                               "the model computes NaN or infinity for the token behind %lld",
                               (long long)d->n);
    return OK;
}
