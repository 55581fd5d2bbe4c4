/* One layer, rows of S tokens:
 *   n1 = rmsnorm(x)     q, kv = rope(split(n1 Wqkv^T))     o = attention(q, kv)     y = x + o Wo^T
 *   n2 = rmsnorm(y)     gu = n2 Wgu^T     h = swiglu(gu)     next x = y + h Wdown^T
 * Kept for the backward: x, q, kv, o, lse, y, gu and the norms' rstd. n1, n2 and h are cheap and
 * are made again from them. With recompute = layer only x is kept, and the rest of a layer is run
 * again by the same code from the same inputs, so it is the same to the bit. A linear layer in FP8
 * keeps its input itself (linears.h). */
#include "model/llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/rope.h"
#include "ops/nvtx.h"
#include "ops/phases.h"

typedef struct {
    void *x, *q, *kv, *o, *y, *gu;
    float *lse, *rstd1, *rstd2;
} LayerActs;

struct Llama {
    LlamaOptions opt;
    int C, H, K, D, F, V, Vp, L;
    int64_t chunk;
    void *weights;
    float *grads;
    Linears *linears;
    float *inv_freq;
    int32_t *tokens, *labels, *positions;
    float *token_weights;
    LayerActs *layers; /* [L]; with recompute all but x point at the same memory */
    void *x_final;     /* input of the final norm */
    float *rstd_final, *losses, *z_losses; /* z_losses NULL: there is no z-loss */
    /* scratch */
    void *qkv, *norm, *h, *dh, *dx, *dnorm, *logits;
    float *dq, *dkv;
};

static void *weight(const Llama *m, int64_t offset) {
    return (char *)m->weights + offset * m->opt.ops->act_bytes;
}

static void *rows(const Llama *m, void *base, int64_t row, int64_t width) {
    return (char *)base + row * width * m->opt.ops->act_bytes;
}

static void reserve(Arena *a, const char *region, int layer, const char *name, int64_t bytes,
                    void **slot) {
    char full[64];
    if (layer >= 0)
        snprintf(full, sizeof full, "layer %d %s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    arena_reserve(a, region, full, bytes, slot);
}

/* Logits as large as one layer's gate_up do not set the peak; fewer than 2048 rows at a time would
 * read and write the head's gradient too often. */
static int64_t rows_of_head(const Llama *m, int64_t S) {
    int64_t rows = m->opt.lm_head_chunk > 0
                       ? m->opt.lm_head_chunk
                       : i64_max(round_up(ceil_div(S * 2 * m->F, m->Vp), 128), 2048);
    return i64_max(1, i64_min(rows, S));
}

Llama *llama_create(const LlamaOptions *options, Arena *arena) {
    const ModelConfig *c = options->model;
    Llama *m = NEW(Llama, 1);
    m->opt = *options;
    m->C = c->hidden, m->H = c->heads, m->K = c->kv_heads, m->D = c->head_dim, m->F = c->ffn;
    m->V = c->vocab, m->Vp = options->table->vocab_padded, m->L = c->layers;
    int64_t S = options->S, act = options->ops->act_bytes, f32 = sizeof(float);
    int64_t qkv_width = (int64_t)(m->H + 2 * m->K) * m->D;
    m->chunk = rows_of_head(m, S);

    arena_reserve(arena, "weights", "all", options->table->total * act, &m->weights);
    arena_reserve(arena, "gradients", "all", options->table->total * f32, (void **)&m->grads);

    LinearsOptions linears = {.ops = options->ops,
                              .model = c,
                              .table = options->table,
                              .fp8 = options->fp8,
                              .S = S,
                              .head_rows = m->chunk,
                              .share_layers = options->recompute == RECOMPUTE_LAYER};
    m->linears = linears_create(&linears, arena);

    m->layers = NEW(LayerActs, m->L);
    bool keep = options->recompute == RECOMPUTE_NONE;
    for (int l = 0; l < m->L; l++) {
        LayerActs *a = &m->layers[l];
        reserve(arena, "activations", l, "input", S * m->C * act, &a->x);
        if (!keep && l > 0) continue; /* llama_start shares layer 0's */
        reserve(arena, "activations", l, "q", S * m->H * m->D * act, &a->q);
        reserve(arena, "activations", l, "kv", S * 2 * m->K * m->D * act, &a->kv);
        reserve(arena, "activations", l, "attention output", S * m->H * m->D * act, &a->o);
        reserve(arena, "activations", l, "mlp input", S * m->C * act, &a->y);
        reserve(arena, "activations", l, "gate and up", S * 2 * m->F * act, &a->gu);
        reserve(arena, "activations", l, "lse", S * m->H * f32, (void **)&a->lse);
        reserve(arena, "activations", l, "norm 1", S * f32, (void **)&a->rstd1);
        reserve(arena, "activations", l, "norm 2", S * f32, (void **)&a->rstd2);
    }
    const char *A = "activations", *W = "workspace";
    arena_reserve(arena, A, "final input", S * m->C * act, &m->x_final);
    arena_reserve(arena, A, "final norm", S * f32, (void **)&m->rstd_final);
    arena_reserve(arena, A, "losses", S * f32, (void **)&m->losses);
    if (options->z_loss > 0) arena_reserve(arena, A, "z-losses", S * f32, (void **)&m->z_losses);
    arena_reserve(arena, A, "tokens", S * 4, (void **)&m->tokens);
    arena_reserve(arena, A, "labels", S * 4, (void **)&m->labels);
    arena_reserve(arena, A, "positions", S * 4, (void **)&m->positions);
    arena_reserve(arena, A, "token weights", S * f32, (void **)&m->token_weights);
    arena_reserve(arena, A, "rope frequencies", m->D / 2 * f32, (void **)&m->inv_freq);
    arena_reserve(arena, W, "qkv", S * qkv_width * act, &m->qkv);
    arena_reserve(arena, W, "normalised", S * m->C * act, &m->norm);
    arena_reserve(arena, W, "swiglu output", S * m->F * act, &m->h);
    arena_reserve(arena, W, "swiglu gradient", S * m->F * act, &m->dh);
    arena_reserve(arena, W, "residual gradient", S * m->C * act, &m->dx);
    arena_reserve(arena, W, "branch gradient", S * i64_max(m->C, (int64_t)m->H * m->D) * act,
                  &m->dnorm);
    arena_reserve(arena, W, "logits", m->chunk * m->Vp * act, &m->logits);
    arena_reserve(arena, W, "dq", S * m->H * m->D * f32, (void **)&m->dq);
    arena_reserve(arena, W, "dkv", S * 2 * m->K * m->D * f32, (void **)&m->dkv);
    return m;
}

void llama_free(Llama *m) {
    if (m == NULL) return;
    linears_free(m->linears);
    free(m->layers);
    free(m);
}

void *llama_weights(Llama *m) {
    return m->weights;
}
float *llama_gradients(Llama *m) {
    return m->grads;
}

Status llama_start(Llama *m, Stream *stream) {
    for (int l = 1; l < m->L && m->opt.recompute == RECOMPUTE_LAYER; l++) {
        void *x = m->layers[l].x;
        m->layers[l] = m->layers[0];
        m->layers[l].x = x;
    }
    linears_start(m->linears, m->weights, stream);
    return llama_set_stage(m, m->opt.model, m->opt.cp, m->opt.S, stream);
}

Status llama_set_stage(Llama *m, const ModelConfig *model, CpRuntime *cp, int64_t S,
                       Stream *stream) {
    REQUIRE(S <= m->opt.S);
    m->opt.model = model;
    m->opt.cp = cp;
    m->chunk = rows_of_head(m, S);
    float *inv = NEW(float, m->D / 2);
    rope_inv_freq(inv, model);
    m->opt.ops->mem_copy(m->inv_freq, inv, m->D / 2 * (int64_t)sizeof *inv, stream);
    Status st = m->opt.ops->stream_sync(stream);
    free(inv);
    return st;
}

void llama_zero_gradients(Llama *m, Stream *stream) {
    m->opt.ops->mem_zero(m->grads, m->opt.table->total * (int64_t)sizeof(float), stream);
}

void llama_cast_weights(Llama *m, Stream *stream) {
    linears_cast_weights(m->linears, stream);
}

Linears *llama_linears(Llama *m) {
    return m->linears;
}

/* For the op that makes an operand of a product of layer l. */
#define ABSMAX(l, kind, operand) linears_absmax(m->linears, l, LINEAR_##kind, OPERAND_##operand)

/* From a->x to `out` (the next layer's input). */
static Status layer_forward(Llama *m, int l, void *out, bool train, int64_t S, Stream *stream) {
    const Ops *ops = m->opt.ops;
    const ParamTable *t = m->opt.table;
    LayerActs *a = &m->layers[l];
    float eps = (float)m->opt.model->norm_eps;
    Rope rope = {m->positions, m->inv_freq, S, m->H, m->K, m->D};
#define AT(kind) ((LinearAt){l, LINEAR_##kind, S})
#define W(which) weight(m, param_layer_offset(t, l, which))
    ops->rmsnorm_fwd(m->norm, a->rstd1, ABSMAX(l, QKV, INPUT), a->x, W(PARAM_INPUT_NORM), S, m->C,
                     eps, stream);
    linears_fwd(m->linears, AT(QKV), m->qkv, m->norm, NULL, train, stream);
    ops->rope_split_fwd(a->q, a->kv, m->qkv, &rope, stream);
    AttnFwd call = {.o = a->o, .lse = a->lse, .q = a->q, .kv = a->kv};
    CHECK(cp_forward(m->opt.cp, &call, stream));
    linears_fwd(m->linears, AT(O), a->y, a->o, a->x, train, stream);
    ops->rmsnorm_fwd(m->norm, a->rstd2, ABSMAX(l, GATE_UP, INPUT), a->y, W(PARAM_POST_NORM), S,
                     m->C, eps, stream);
    linears_fwd(m->linears, AT(GATE_UP), a->gu, m->norm, NULL, train, stream);
    ops->swiglu_fwd(m->h, ABSMAX(l, DOWN, INPUT), a->gu, S, m->F, stream);
    linears_fwd(m->linears, AT(DOWN), out, m->h, a->y, train, stream);
    return OK;
}

/* m->dx: gradient of the layer's output on entry, of its input on return. */
static Status layer_backward(Llama *m, int l, int64_t S, Stream *stream) {
    const Ops *ops = m->opt.ops;
    const ParamTable *t = m->opt.table;
    LayerActs *a = &m->layers[l];
    Rope rope = {m->positions, m->inv_freq, S, m->H, m->K, m->D};
#define G(which) (m->grads + param_layer_offset(t, l, which))
/* x of a product, where its gradient with respect to w will read it */
#define AGAIN(kind, x) (linears_is_fp8(m->linears, l, LINEAR_##kind) ? NULL : (x))
    CHECK(cp_prefetch(m->opt.cp, a->kv, stream)); /* travels under the MLP's backward */
    linears_dgrad(m->linears, AT(DOWN), m->dh, m->dx, stream);
    ops->swiglu_bwd(a->gu, AGAIN(DOWN, m->h), ABSMAX(l, GATE_UP, GRADIENT), m->dh, a->gu, S, m->F,
                    stream); /* a->gu is its gradient now */
    linears_wgrad(m->linears, AT(DOWN), G(PARAM_DOWN), m->dx, m->h, stream);
    linears_dgrad(m->linears, AT(GATE_UP), m->dnorm, a->gu, stream);
    ops->rmsnorm_bwd(&(RmsnormBwd){.dx = m->dx,
                                   .absmax = ABSMAX(l, O, GRADIENT),
                                   .dw = G(PARAM_POST_NORM),
                                   .y = AGAIN(GATE_UP, m->norm),
                                   .dy = m->dnorm,
                                   .x = a->y,
                                   .w = W(PARAM_POST_NORM),
                                   .rstd = a->rstd2,
                                   .dres = m->dx,
                                   .S = S,
                                   .C = m->C},
                     stream);
    linears_wgrad(m->linears, AT(GATE_UP), G(PARAM_GATE), a->gu, m->norm, stream);

    linears_dgrad(m->linears, AT(O), m->dnorm, m->dx, stream);
    linears_wgrad(m->linears, AT(O), G(PARAM_O), m->dx, a->o, stream);
    AttnBwd call = {
        .dq = m->dq, .dkv = m->dkv, .d_o = m->dnorm, .q = a->q, .kv = a->kv, .lse = a->lse};
    CHECK(cp_backward(m->opt.cp, &call, a->o, stream));
    ops->rope_split_bwd(m->qkv, ABSMAX(l, QKV, GRADIENT), m->dq, m->dkv, &rope, stream);
    linears_dgrad(m->linears, AT(QKV), m->dnorm, m->qkv, stream);
    ops->rmsnorm_bwd(&(RmsnormBwd){.dx = m->dx,
                                   .absmax = l > 0 ? ABSMAX(l - 1, DOWN, GRADIENT) : NULL,
                                   .dw = G(PARAM_INPUT_NORM),
                                   .y = AGAIN(QKV, m->norm),
                                   .dy = m->dnorm,
                                   .x = a->x,
                                   .w = W(PARAM_INPUT_NORM),
                                   .rstd = a->rstd1,
                                   .dres = m->dx,
                                   .S = S,
                                   .C = m->C},
                     stream);
    linears_wgrad(m->linears, AT(QKV), G(PARAM_Q), m->qkv, m->norm, stream);
    return OK;
#undef AGAIN
#undef G
#undef W
#undef AT
}

/* Final norm, head and loss in chunks of rows, so that no more than chunk * Vp logits exist. With
 * train it leaves the gradient of the last layer's output in m->dx. */
static void head(Llama *m, bool train, double *sums, int64_t S, Stream *stream) {
    const Ops *ops = m->opt.ops;
    const ParamTable *t = m->opt.table;
    const Param *norm = &t->params[t->final_norm], *out = &t->params[t->head];
    bool z_loss = train && m->z_losses != NULL;
    ops->rmsnorm_fwd(m->norm, m->rstd_final, NULL, m->x_final, weight(m, norm->offset), S, m->C,
                     (float)m->opt.model->norm_eps, stream);
    for (int64_t s = 0; s < S; s += m->chunk) {
        int64_t n = i64_min(m->chunk, S - s);
        LinearAt at = {m->L, LINEAR_HEAD, n};
        void *x = rows(m, m->norm, s, m->C);
        linears_fwd(m->linears, at, m->logits, x, NULL, train, stream);
        ops->cross_entropy(&(CrossEntropy){.loss = m->losses + s,
                                           .z_loss = z_loss ? m->z_losses + s : NULL,
                                           .logits = m->logits,
                                           .labels = m->labels + s,
                                           .weights = m->token_weights + s,
                                           .z_coef = (float)m->opt.z_loss,
                                           .grad = train,
                                           .S = n,
                                           .V = m->V,
                                           .Vp = m->Vp},
                           stream);
        if (!train) continue;
        phase_enter(stream, PHASE_BACKWARD);
        linears_dgrad(m->linears, at, rows(m, m->dnorm, s, m->C), m->logits, stream);
        linears_wgrad(m->linears, at, m->grads + out->offset, m->logits, x, stream);
        phase_enter(stream, PHASE_FORWARD);
    }
    ops->sum_f32(&sums[LLAMA_CE], m->losses, S, stream);
    if (z_loss) ops->sum_f32(&sums[LLAMA_Z_LOSS], m->z_losses, S, stream);
    if (train) phase_enter(stream, PHASE_BACKWARD);
    if (train)
        ops->rmsnorm_bwd(&(RmsnormBwd){.dx = m->dx,
                                       .absmax = ABSMAX(m->L - 1, DOWN, GRADIENT),
                                       .dw = m->grads + norm->offset,
                                       .dy = m->dnorm,
                                       .x = m->x_final,
                                       .w = weight(m, norm->offset),
                                       .rstd = m->rstd_final,
                                       .S = S,
                                       .C = m->C},
                         stream);
}

static Status report(LlamaBucketReady ready, void *ctx, int bucket) {
    return ready != NULL ? ready(ctx, bucket) : OK;
}

Status llama_run(Llama *m, const CpBatch *batch, bool train, double *sums, LlamaBucketReady ready,
                 void *ready_ctx, Stream *stream) {
    const Ops *ops = m->opt.ops;
    const ParamTable *t = m->opt.table;
    const Param *embed = &t->params[t->embed];
    int64_t S = batch->S;
    REQUIRE(S <= m->opt.S);
    ops->mem_upload(m->tokens, batch->tokens, S * 4, stream);
    ops->mem_upload(m->labels, batch->labels, S * 4, stream);
    ops->mem_upload(m->positions, batch->positions, S * 4, stream);
    ops->mem_upload(m->token_weights, batch->weights, S * 4, stream);

    linears_begin(m->linears, stream);
    ops->embedding_fwd(m->layers[0].x, m->tokens, weight(m, embed->offset), S, m->C, stream);
    for (int l = 0; l < m->L; l++) {
        nvtx_push("forward of layer", l);
        CHECK(
            layer_forward(m, l, l + 1 < m->L ? m->layers[l + 1].x : m->x_final, train, S, stream));
        nvtx_pop();
    }
    nvtx_push("head and loss", -1);
    head(m, train, sums, S, stream);
    nvtx_pop();
    if (!train) return OK;

    CHECK(report(ready, ready_ctx, t->n_buckets - 1));
    for (int l = m->L - 1; l >= 0; l--) {
        /* The last layer's activations are still those of the forward. Rerunning a layer overwrites
         * the output buffer with the same bits. */
        nvtx_push("backward of layer", l);
        if (m->opt.recompute == RECOMPUTE_LAYER && l + 1 < m->L)
            CHECK(layer_forward(m, l, m->layers[l + 1].x, train, S, stream));
        CHECK(layer_backward(m, l, S, stream));
        nvtx_pop();
        CHECK(report(ready, ready_ctx, t->params[t->layer_first + l * t->layer_stride].bucket));
    }
    ops->embedding_bwd(m->grads + embed->offset, m->dx, m->tokens, S, m->C, m->V, stream);
    return report(ready, ready_ctx, t->params[t->embed].bucket);
}

Status llama_losses(Llama *m, int64_t S, float *losses, Stream *stream) {
    m->opt.ops->mem_copy(losses, m->losses, S * (int64_t)sizeof *losses, stream);
    return m->opt.ops->stream_sync(stream);
}

/* fp32 and bf16 keep sign and exponent in their last two bytes (little-endian). */
static bool all_finite(const unsigned char *x, int64_t n, int act_bytes) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t upper;
        memcpy(&upper, x + (i + 1) * act_bytes - 2, sizeof upper);
        if ((upper & 0x7f80) == 0x7f80) return false;
    }
    return true;
}

Status llama_first_nonfinite(Llama *m, int64_t S, Stream *stream, int *layer) {
    int64_t n = S * m->C, bytes = n * m->opt.ops->act_bytes;
    unsigned char *host = mem_new(bytes, 1);
    *layer = -1;
    Status st = OK;
    for (int l = 0; l <= m->L && *layer < 0; l++) {
        m->opt.ops->mem_copy(host, l < m->L ? m->layers[l].x : m->x_final, bytes, stream);
        CHECK_GOTO(m->opt.ops->stream_sync(stream), done);
        if (!all_finite(host, n, m->opt.ops->act_bytes)) *layer = l;
    }
done:
    free(host);
    return st;
}
