/* nonfinite.h: who made the NaN. */
#ifndef CRIA_TRAIN_NONFINITE_H
#define CRIA_TRAIN_NONFINITE_H

#include "train/session.h"

/* Called on every rank when the loss or gradient norm of `step` is not finite, before any weight is
 * touched. Runs the step's micro-batches again one by one, each rank looking at its own numbers, and
 * returns ERR_ENV whose sentence names rank, layer, tensor and samples. Gradients are lost. */
Status nonfinite_locate(Session *s, int64_t step, double loss, double grad_norm);

#endif
