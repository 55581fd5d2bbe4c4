#include "model/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"

static Param *add(ParamTable *t, int layer, int64_t rows, int64_t cols, int64_t rows_in_memory,
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
    return p;
}

static void align(ParamTable *t) {
    t->total = round_up(t->total, PARAM_ALIGN);
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
    int64_t C = m->hidden, F = m->ffn, V = m->vocab, Vp = t->vocab_padded;
    int64_t HD = (int64_t)m->heads * m->head_dim, KD = (int64_t)m->kv_heads * m->head_dim;
    double std = m->init_std;
    /* What writes into the residual stream starts smaller, so that its variance does not grow with
     * depth (GPT-2; Megatron-LM's scaled_init_method_normal). */
    double out_std = std / sqrt(2.0 * m->layers);

    t->embed = t->n_params;
    add(t, -1, V, C, Vp, std, "model.embed_tokens");
    end_bucket(t);
    t->layer_first = t->n_params;
    t->layer_stride = PARAMS_PER_LAYER;
    for (int l = 0; l < m->layers; l++) {
        add(t, l, C, 1, C, 0, "input_layernorm"), align(t);
        add(t, l, HD, C, HD, std, "self_attn.q_proj");
        add(t, l, KD, C, KD, std, "self_attn.k_proj");
        add(t, l, KD, C, KD, std, "self_attn.v_proj"), align(t);
        add(t, l, C, HD, C, out_std, "self_attn.o_proj"), align(t);
        add(t, l, C, 1, C, 0, "post_attention_layernorm"), align(t);
        add(t, l, F, C, F, std, "mlp.gate_proj");
        add(t, l, F, C, F, std, "mlp.up_proj"), align(t);
        add(t, l, C, F, C, out_std, "mlp.down_proj");
        end_bucket(t);
    }
    t->final_norm = t->n_params;
    add(t, -1, C, 1, C, 0, "model.norm"), align(t);
    t->head = t->embed;
    if (!m->tie_embeddings) {
        t->head = t->n_params;
        add(t, -1, V, C, Vp, std, "lm_head");
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
