/* eval.h: loss on the held-out part: always the same sequences, so that values can be compared. */
#ifndef CRIA_TRAIN_EVAL_H
#define CRIA_TRAIN_EVAL_H

#include "train/session.h"

/* Mean loss over the first run.eval_sequences samples of data.val (fewer if it has fewer); *tokens
 * counts them. Collective. */
Status eval_run(Session *s, int64_t step, double *loss, double *tokens);

#endif
