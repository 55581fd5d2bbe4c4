/* model_rig.h: a small LLaMA with its optimizer and a hand-made micro-batch, one rank on either
 * backend, for tests of the model. */
#ifndef CRIA_TESTS_MODEL_RIG_H
#define CRIA_TESTS_MODEL_RIG_H

#include <string.h>

#include "comm/comm.h"
#include "cp/cp.h"
#include "model/llama.h"
#include "check.h"
#include "optim/optimizer.h"
#include "base/rng.h"

/* The caller sets the first four before rig_open: ops NULL is the CPU, the mask may be left out. */
typedef struct {
    const Ops *ops;
    ModelConfig model;
    const Fp8Config *fp8; /* NULL: none */
    OptimConfig optim;
    CpOptions cp_options;
    Stream *stream;
    Comm *comm;
    ParamTable *table;
    Arena arena;
    CpRuntime *cp;
    Llama *llama;
    Optimizer *optimizer;
    double *losses;         /* [LLAMA_SUMS], where the device has them */
    double z_loss;          /* of the last rig_run() */
    float *weights, *grads; /* likewise; weights are of the activations' type */
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

static inline void rig_make_batch(Rig *r, int64_t B, int64_t T) {
    int64_t S = B * T;
    MicroBatch *mb = &r->mb;
    *mb = (MicroBatch){.B = B, .T = T};
    mb->tokens = NEW(int32_t, S);
    mb->labels = NEW(int32_t, S);
    mb->positions = NEW(int32_t, S);
    mb->weights = NEW(float, S);
    mb->doc_begin = NEW(int32_t, S);
    for (int64_t s = 0; s < S; s++) {
        /* few distinct tokens, so that some are frequent, and labels that can be learnt */
        uint64_t draw = rng_u64(7, 1, (uint64_t)s);
        mb->tokens[s] = (int32_t)(draw % 8 == 0 ? 1 : (draw >> 8) % (uint64_t)r->model.vocab);
        mb->labels[s] = (mb->tokens[s] * 7 + 3) % r->model.vocab;
        mb->positions[s] = (int32_t)(s % T);
        mb->weights[s] = s % 5 == 3 ? 0.0f : 1.0f;
        bool starts = s % T == 0 || (r->cp_options.mask.kind == MASK_DOCUMENT && draw % 100 == 0);
        if (starts) mb->doc_begin[mb->n_docs++] = (int32_t)s;
    }
}

/* B sequences of T tokens, which may be fewer than the model's seq_len. */
static inline void rig_open(Rig *r, int64_t B, int64_t T, Recompute recompute, int64_t head_chunk) {
    if (r->ops == NULL) r->ops = cpu_ops();
    r->comm = comm_self_create();
    r->table = param_table_create(&r->model, 1);
    r->cp_options.size = 1;
    r->cp_options.tokens = B * T;
    r->cp_options.seq_len = T;
    r->cp_options.H = r->model.heads;
    r->cp_options.K = r->model.kv_heads;
    r->cp_options.D = r->model.head_dim;
    EXPECT_OK(r->ops->stream_create(r->ops, &r->stream));
    EXPECT_OK(cp_create(&r->cp, &r->cp_options, r->ops, r->comm, &r->arena));
    LlamaOptions o = {.ops = r->ops,
                      .model = &r->model,
                      .table = r->table,
                      .cp = r->cp,
                      .S = B * T,
                      .recompute = recompute,
                      .lm_head_chunk = head_chunk,
                      .fp8 = r->fp8,
                      .z_loss = r->optim.z_loss};
    r->llama = llama_create(&o, &r->arena);
    r->optimizer = optimizer_create(&r->optim, 1, r->table, r->ops, r->comm, &r->arena);
    arena_reserve(&r->arena, "test", "losses", LLAMA_SUMS * sizeof(double), (void **)&r->losses);
    EXPECT_OK(arena_commit(&r->arena, r->ops));
    r->weights = llama_weights(r->llama);
    r->grads = llama_gradients(r->llama);
    EXPECT_OK(optimizer_start(r->optimizer, r->weights, r->grads));
    EXPECT_OK(llama_start(r->llama, r->stream));
    EXPECT_OK(optimizer_init(r->optimizer, 1, r->stream));
    rig_make_batch(r, B, T);
}

/* Sum of weighted losses over the micro-batch, and r->z_loss; with train the gradients are made
 * anew. */
static inline double rig_run(Rig *r, bool train) {
    CpBatch *batch = cp_batch_create(&r->cp_options, &r->mb);
    double losses[LLAMA_SUMS];
    r->ops->mem_zero(r->losses, sizeof losses, r->stream);
    if (train) llama_zero_gradients(r->llama, r->stream);
    llama_cast_weights(r->llama, r->stream);
    EXPECT_OK(cp_begin(r->cp, batch, r->stream));
    EXPECT_OK(llama_run(r->llama, batch, train, r->losses, NULL, NULL, r->stream));
    r->ops->mem_copy(losses, r->losses, sizeof losses, r->stream);
    EXPECT_OK(r->ops->stream_sync(r->stream));
    cp_batch_free(batch);
    r->z_loss = losses[LLAMA_Z_LOSS];
    return losses[LLAMA_CE];
}

static inline void rig_close(Rig *r) {
    int32_t *ints[] = {r->mb.tokens, r->mb.labels, r->mb.positions, r->mb.doc_begin};
    for (int i = 0; i < 4; i++) free(ints[i]);
    free(r->mb.weights);
    optimizer_free(r->optimizer);
    llama_free(r->llama);
    cp_free(r->cp);
    arena_free(&r->arena);
    param_table_free(r->table);
    comm_free(r->comm);
    r->ops->stream_free(r->stream);
}

#endif
