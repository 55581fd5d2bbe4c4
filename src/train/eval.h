/* eval.h: loss on held-out data. */
#ifndef CRIA_TRAIN_EVAL_H
#define CRIA_TRAIN_EVAL_H

#include "session/session.h"

/* Is there an evaluation after `step`? At step 0, every run.eval_every steps and after the last
 * one. */
bool eval_due(const Config *config, int64_t step);
/* The samples of the held-out part that the evaluation after `step` uses: *n of them from number
 * *first on. data.order cria: the first run.eval_sequences every time, so that values can be
 * compared (fewer if there are fewer). megatron: the next ones every time, as Megatron-LM does. */
void eval_samples(const Config *config, const Dataset *val, int64_t step, int64_t *first,
                  int64_t *n);
/* Mean loss over them; *tokens counts their labels. Collective. */
Status eval_run(Session *s, int64_t step, double *loss, double *tokens);

#endif
