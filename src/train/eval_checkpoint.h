/* eval_checkpoint.h: `cria eval`, one evaluation of a checkpoint without training. */
#ifndef CRIA_TRAIN_EVAL_CHECKPOINT_H
#define CRIA_TRAIN_EVAL_CHECKPOINT_H

#include "config/config.h"

/* Changes what the number of ranks and the lack of training ask for and no result depends on: the
 * batch is one that these ranks can share, and run.eval_every is not 0. */
void eval_fit_ranks(Config *c, int world);

/* Evaluates a checkpoint, or the newest one of a folder, on data.val as training does after its
 * step, and prints the result on rank 0; json: the record of log.jsonl, on one line, with `path`
 * and `weights_crc`. ERR_USER when it is damaged or of another model, or there is nothing to
 * evaluate on. Collective. */
Status eval_checkpoint(const Config *c, const char *given, bool json);

#endif
