#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"

const ParamSpec param_specs[PARAMS_PER_LAYER] = {
    [PARAM_INPUT_NORM] = {"input_layernorm", DIM_HIDDEN, DIM_ONE, .module = 7},
    [PARAM_Q] = {"self_attn.q_proj", DIM_HEADS, DIM_HIDDEN, .module = 0},
    [PARAM_K] = {"self_attn.k_proj", DIM_KV_HEADS, DIM_HIDDEN, .fused = true, .module = 1},
    [PARAM_V] = {"self_attn.v_proj", DIM_KV_HEADS, DIM_HIDDEN, .fused = true, .module = 2},
    [PARAM_O] = {"self_attn.o_proj", DIM_HIDDEN, DIM_HEADS, .residual = true, .module = 3},
    [PARAM_POST_NORM] = {"post_attention_layernorm", DIM_HIDDEN, DIM_ONE, .module = 8},
    [PARAM_GATE] = {"mlp.gate_proj", DIM_FFN, DIM_HIDDEN, .module = 4},
    [PARAM_UP] = {"mlp.up_proj", DIM_FFN, DIM_HIDDEN, .fused = true, .module = 5},
    [PARAM_DOWN] = {"mlp.down_proj", DIM_HIDDEN, DIM_FFN, .residual = true, .module = 6}};

static int64_t dim_size(const ModelConfig *m, ParamDim dim) {
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_HIDDEN:
        return m->hidden;
    case DIM_HEADS:
        return (int64_t)m->heads * m->head_dim;
    case DIM_KV_HEADS:
        return (int64_t)m->kv_heads * m->head_dim;
    case DIM_FFN:
        return m->ffn;
    }
    return 0;
}

static void add(ParamTable *t, int layer, int64_t rows, int64_t cols, int64_t rows_in_memory,
                double init_std, const char *name) {
    Param *p = &t->params[t->n_params++];
    *p = (Param){.ndim = cols > 1 ? 2 : 1,
                 .rows = rows,
                 .cols = cols,
                 .count = rows_in_memory * cols,
                 .bucket = t->n_buckets,
                 .layer = layer,
                 .decay = cols > 1,
                 .init_std = init_std};
    if (layer >= 0)
        snprintf(p->name, sizeof p->name, "model.layers.%d.%s.weight", layer, name);
    else
        snprintf(p->name, sizeof p->name, "%s.weight", name);
    /* Neighbours that form one matrix must touch; their sizes keep PARAM_ALIGN in real models, and
     * in models that do not, only the first of them is aligned. */
    p->offset = t->total;
    t->total += p->count;
    t->n_weights += rows * cols;
}

static void add_layer(ParamTable *t, const ModelConfig *m, int layer) {
    /* What writes into the residual stream starts smaller, so that its variance does not grow with
     * depth (GPT-2; Megatron-LM's scaled_init_method_normal). */
    double residual_std = m->init_std / sqrt(2.0 * m->layers);
    for (int i = 0; i < PARAMS_PER_LAYER; i++) {
        const ParamSpec *p = &param_specs[i];
        int64_t rows = dim_size(m, p->rows), cols = dim_size(m, p->cols);
        if (!p->fused) t->total = round_up(t->total, PARAM_ALIGN);
        add(t, layer, rows, cols, rows, p->residual ? residual_std : m->init_std, p->name);
    }
}

static void end_bucket(ParamTable *t) {
    ParamBucket *b = &t->buckets[t->n_buckets];
    b->offset = t->n_buckets > 0
                    ? t->buckets[t->n_buckets - 1].offset + t->buckets[t->n_buckets - 1].count
                    : 0;
    b->count = round_up(t->total - b->offset, (int64_t)t->world * PARAM_ALIGN);
    t->total = b->offset + b->count;
    t->n_buckets++;
}

ModelLinears model_linears(const ModelConfig *m, int64_t S) {
    int64_t C = m->hidden, F = m->ffn, D = m->head_dim, HD = m->heads * D;
    return (ModelLinears){.qkv = {S, HD + 2 * m->kv_heads * D, C},
                          .o = {S, C, HD},
                          .gate_up = {S, 2 * F, C},
                          .down = {S, C, F},
                          .head = {S, round_up(m->vocab, VOCAB_MULTIPLE), C}};
}

ParamTable *param_table_create(const ModelConfig *m, int world) {
    ParamTable *t = NEW(ParamTable, 1);
    t->world = world;
    t->params = NEW(Param, (int64_t)m->layers * PARAMS_PER_LAYER + 3);
    t->buckets = NEW(ParamBucket, m->layers + 2);
    t->vocab_padded = (int)round_up(m->vocab, VOCAB_MULTIPLE);
    int64_t C = m->hidden, V = m->vocab, Vp = t->vocab_padded;
    t->embed = t->n_params;
    add(t, -1, V, C, Vp, m->init_std, "model.embed_tokens");
    end_bucket(t);
    t->layer_first = t->n_params;
    t->layer_stride = PARAMS_PER_LAYER;
    for (int l = 0; l < m->layers; l++) {
        add_layer(t, m, l);
        end_bucket(t);
    }
    t->final_norm = t->n_params;
    add(t, -1, C, 1, C, 0, "model.norm");
    t->head = t->embed;
    if (!m->tie_embeddings) {
        t->total = round_up(t->total, PARAM_ALIGN);
        t->head = t->n_params;
        add(t, -1, V, C, Vp, m->init_std, "lm_head");
    }
    end_bucket(t);
    return t;
}

void param_table_free(ParamTable *t) {
    if (t == NULL) return;
    free(t->params);
    free(t->buckets);
    free(t);
}

int param_table_pieces(const ParamTable *t, int rank, ParamPiece **pieces) {
    REQUIRE(rank >= 0 && rank < t->world);
    /* A block meets a tensor in one piece, so there are at most as many as tensor-block pairs. */
    ParamPiece *out = NEW(ParamPiece, t->n_params);
    int n = 0;
    for (int i = 0; i < t->n_params; i++) {
        const Param *p = &t->params[i];
        const ParamBucket *b = &t->buckets[p->bucket];
        int64_t block = b->count / t->world, start = b->offset + rank * block;
        int64_t first = i64_max(p->offset, start);
        int64_t last = i64_min(p->offset + p->rows * p->cols, start + block);
        if (first >= last) continue;
        out[n++] = (ParamPiece){.param = i,
                                .begin = first - p->offset,
                                .count = last - first,
                                .flat = first,
                                .shard = b->offset / t->world + (first - start)};
    }
    *pieces = out;
    return n;
}

float param_init_value(const ParamTable *t, int i, int64_t index, uint64_t seed) {
    const Param *p = &t->params[i];
    if (p->ndim == 1) return 1.0f;
    return (float)(p->init_std *
                   rng_normal(seed, rng_stream(RNG_INIT, (uint64_t)i), (uint64_t)index));
}

const char *const param_class_names[] = {[CLASS_EMBEDDING] = "embedding",
                                         [CLASS_QKV] = "qkv",
                                         [CLASS_O] = "o",
                                         [CLASS_GATE_UP] = "gate_up",
                                         [CLASS_DOWN] = "down",
                                         [CLASS_NORMS] = "norms",
                                         [CLASS_HEAD] = "head"};

ParamClass param_class(const ParamTable *t, int param) {
    static const ParamClass of_layer[PARAMS_PER_LAYER] = {[PARAM_INPUT_NORM] = CLASS_NORMS,
                                                          [PARAM_Q] = CLASS_QKV,
                                                          [PARAM_K] = CLASS_QKV,
                                                          [PARAM_V] = CLASS_QKV,
                                                          [PARAM_O] = CLASS_O,
                                                          [PARAM_POST_NORM] = CLASS_NORMS,
                                                          [PARAM_GATE] = CLASS_GATE_UP,
                                                          [PARAM_UP] = CLASS_GATE_UP,
                                                          [PARAM_DOWN] = CLASS_DOWN};
    if (param == t->embed) return CLASS_EMBEDDING;
    if (param == t->head) return CLASS_HEAD;
    if (param == t->final_norm) return CLASS_NORMS;
    return of_layer[(param - t->layer_first) % t->layer_stride];
}
