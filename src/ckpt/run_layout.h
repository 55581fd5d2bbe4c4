/* run_layout.h: the tensors of a run's checkpoint: the weights under their Hugging Face names, then
 * each further state of the optimizer, all in fp32 and the shapes of the weights. Training writes
 * and reads it, an import writes it. */
#ifndef CRIA_CKPT_RUN_LAYOUT_H
#define CRIA_CKPT_RUN_LAYOUT_H

#include "ckpt/safetensors.h"
#include "optim/optimizer.h"

typedef struct {
    const ParamTable *table;
    const OptimDesc *optim;
} RunLayout;

/* Their number. Tensor i is state i / n_params of parameter i % n_params. */
int run_layout_count(const RunLayout *l);
static inline const Param *run_layout_param(const RunLayout *l, int i) {
    return &l->table->params[i % l->table->n_params];
}
char *run_layout_name(const RunLayout *l, int i); /* free it */
/* All of them, for checkpoint_begin; run_layout_free frees. */
SafeTensor *run_layout_tensors(const RunLayout *l);
void run_layout_free(const RunLayout *l, SafeTensor *tensors);

#endif
