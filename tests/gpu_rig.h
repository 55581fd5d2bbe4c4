/* gpu_rig.h: a LLaMA with its optimizer and one hand-made micro-batch on either backend, one rank.
 */
#ifndef CRIA_TESTS_GPU_RIG_H
#define CRIA_TESTS_GPU_RIG_H

#include "gpu.h"

#include "comm/comm.h"
#include "cp/cp.h"
#include "model/llama.h"
#include "optim/optimizer.h"

typedef struct {
    const Ops *ops;
    Stream *stream;
    Comm *comm;
    ParamTable *table;
    Arena arena;
    CpOptions cp_options;
    CpRuntime *cp;
    Llama *llama;
    Optimizer *optimizer;
    MicroBatch mb;
    CpBatch *batch;
    double *loss; /* device */
} Rig;

static inline void rig_make_batch(Rig *r, const ModelConfig *m, int64_t B) {
    int64_t T = m->seq_len, S = B * T;
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
        mb->tokens[s] = (int32_t)(draw % 8 == 0 ? 1 : (draw >> 8) % (uint64_t)m->vocab);
        mb->labels[s] = (mb->tokens[s] * 7 + 3) % m->vocab;
        mb->positions[s] = (int32_t)(s % T);
        mb->weights[s] = s % 5 == 3 ? 0.0f : 1.0f;
        bool starts = s % T == 0 || (r->cp_options.mask == MASK_DOCUMENT && draw % 100 == 0);
        if (starts) mb->doc_begin[mb->n_docs++] = (int32_t)s;
    }
    r->batch = cp_batch_create(&r->cp_options, mb);
}

static inline void rig_open(Rig *r, const Ops *ops, const ModelConfig *m, int64_t B, MaskKind mask,
                            Recompute recompute) {
    static const OptimConfig optim = {
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
    *r = (Rig){.ops = ops, .comm = comm_self_create(), .table = param_table_create(m, 1)};
    r->cp_options = (CpOptions){.size = 1,
                                .tokens = B * m->seq_len,
                                .seq_len = m->seq_len,
                                .mask = mask,
                                .H = m->heads,
                                .K = m->kv_heads,
                                .D = m->head_dim};
    MUST(ops->stream_create(&r->stream));
    MUST(cp_create(&r->cp, &r->cp_options, ops, r->comm, &r->arena));
    LlamaOptions o = {.ops = ops,
                      .model = m,
                      .table = r->table,
                      .cp = r->cp,
                      .S = B * m->seq_len,
                      .recompute = recompute};
    r->llama = llama_create(&o, &r->arena);
    r->optimizer = optimizer_create(&optim, 1, r->table, ops, r->comm, &r->arena);
    arena_reserve(&r->arena, "test", "loss", sizeof(double), (void **)&r->loss);
    MUST(arena_commit(&r->arena, ops));
    MUST(optimizer_start(r->optimizer, llama_weights(r->llama), llama_gradients(r->llama)));
    MUST(llama_start(r->llama, r->stream));
    rig_make_batch(r, m, B);
    MUST(cp_begin(r->cp, r->batch, r->stream));
}

/* Loss summed over the micro-batch; gradients are made anew. */
static inline double rig_run(Rig *r) {
    double loss;
    r->ops->mem_zero(r->loss, sizeof loss, r->stream);
    llama_zero_gradients(r->llama, r->stream);
    MUST(llama_run(r->llama, r->batch, true, r->loss, NULL, NULL, r->stream));
    r->ops->mem_copy(&loss, r->loss, sizeof loss, r->stream);
    MUST(r->ops->stream_sync(r->stream));
    return loss;
}

static inline void rig_close(Rig *r) {
    int32_t *ints[] = {r->mb.tokens, r->mb.labels, r->mb.positions, r->mb.doc_begin};
    for (int i = 0; i < 4; i++) free(ints[i]);
    free(r->mb.weights);
    cp_batch_free(r->batch);
    optimizer_free(r->optimizer);
    llama_free(r->llama);
    cp_free(r->cp);
    arena_free(&r->arena);
    param_table_free(r->table);
    comm_free(r->comm);
    r->ops->stream_free(r->stream);
}

#endif
