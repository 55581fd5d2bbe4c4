/* model_rig.h: a small LLaMA on the CPU with a hand-made micro-batch, for tests of the model. */
#ifndef CRIA_TESTS_MODEL_RIG_H
#define CRIA_TESTS_MODEL_RIG_H

#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "cp/cp.h"
#include "model/llama.h"
#include "optim/optimizer.h"
#include "rng.h"
#include "test.h"

typedef struct {
    ModelConfig model;
    OptimConfig optim;
    const Ops *ops;
    Comm *comm;
    ParamTable *table;
    Arena arena;
    CpOptions cp_options;
    CpRuntime *cp;
    Llama *llama;
    Optimizer *optimizer;
    double *loss;
    float *weights, *grads;
    MicroBatch mb;
} Rig;

/* Two layers, grouped heads, a vocabulary that is padded; sequences of seq_len tokens. */
static inline ModelConfig rig_model(int64_t seq_len) {
    return (ModelConfig){.layers = 2,
                         .hidden = 24,
                         .heads = 6,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .ffn = 40,
                         .vocab = 61,
                         .seq_len = seq_len,
                         .norm_eps = 1e-5,
                         .init_std = 0.3,
                         .rope_theta = 10000,
                         .rope_scaling = {1, 1, 4, 8192}};
}

static inline void rig_open(Rig *r, int64_t B, int64_t T, Recompute recompute, int64_t head_chunk) {
    r->ops = cpu_ops();
    r->comm = comm_self_create();
    r->table = param_table_create(&r->model, 1);
    r->cp_options = (CpOptions){.size = 1,
                                .tokens = B * T,
                                .seq_len = T,
                                .H = r->model.heads,
                                .K = r->model.kv_heads,
                                .D = r->model.head_dim};
    assert_status_ok(cp_create(&r->cp, &r->cp_options, r->ops, r->comm, &r->arena));
    LlamaOptions o = {.ops = r->ops,
                      .model = &r->model,
                      .table = r->table,
                      .cp = r->cp,
                      .S = B * T,
                      .recompute = recompute,
                      .lm_head_chunk = head_chunk};
    r->llama = llama_create(&o, &r->arena);
    r->optimizer = optimizer_create(&r->optim, 1, r->table, r->ops, r->comm, &r->arena);
    arena_reserve(&r->arena, "test", "loss", sizeof(double), (void **)&r->loss);
    assert_status_ok(arena_commit(&r->arena, r->ops));
    r->weights = llama_weights(r->llama);
    r->grads = llama_gradients(r->llama);
    assert_status_ok(optimizer_start(r->optimizer, r->weights, r->grads));
    assert_status_ok(llama_start(r->llama, NULL));
    assert_status_ok(optimizer_init(r->optimizer, 1, NULL));

    MicroBatch *mb = &r->mb;
    mb->B = B, mb->T = T, mb->n_docs = (int32_t)B;
    mb->tokens = NEW(int32_t, B * T);
    mb->labels = NEW(int32_t, B * T);
    mb->positions = NEW(int32_t, B * T);
    mb->weights = NEW(float, B * T);
    mb->doc_begin = NEW(int32_t, B);
    for (int64_t b = 0; b < B; b++) mb->doc_begin[b] = (int32_t)(b * T);
    for (int64_t s = 0; s < B * T; s++) {
        mb->tokens[s] = (int32_t)(rng_u64(7, 1, (uint64_t)s) % (uint64_t)r->model.vocab);
        mb->labels[s] = (int32_t)(rng_u64(7, 2, (uint64_t)s) % (uint64_t)r->model.vocab);
        mb->positions[s] = (int32_t)(s % T);
        mb->weights[s] = s % 5 == 3 ? 0.0f : 1.0f;
    }
}

/* Sum of weighted losses over the micro-batch; with train the gradients are made anew. */
static inline double rig_run(Rig *r, bool train) {
    CpBatch *batch = cp_batch_create(&r->cp_options, &r->mb);
    *r->loss = 0;
    if (train) llama_zero_gradients(r->llama, NULL);
    assert_status_ok(cp_begin(r->cp, batch, NULL));
    assert_status_ok(llama_run(r->llama, batch, train, r->loss, NULL, NULL, NULL));
    cp_batch_free(batch);
    return *r->loss;
}

static inline void rig_close(Rig *r) {
    free(r->mb.tokens);
    free(r->mb.labels);
    free(r->mb.positions);
    free(r->mb.weights);
    free(r->mb.doc_begin);
    optimizer_free(r->optimizer);
    llama_free(r->llama);
    cp_free(r->cp);
    arena_free(&r->arena);
    param_table_free(r->table);
    comm_free(r->comm);
}

#endif
