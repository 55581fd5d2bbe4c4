/* merge.h: the average of checkpoints of one model, as one more checkpoint. */
#ifndef CRIA_CKPT_MERGE_H
#define CRIA_CKPT_MERGE_H

#include "base/base.h"

typedef struct {
    int64_t step, bytes; /* of the average, and of its file */
} Merged;

/* Writes `out`, which must not exist: every weight and moment is the sum of those of the `n` files
 * times their weights (above 0), divided by the sum of the weights, in fp64, rounded to fp32 once.
 * What else the file holds (step, position in the data, configuration) is of the file with most
 * steps, the first of several. Memory: a block of a tensor. ERR_USER when a file is damaged, is no
 * checkpoint, or is of another model than the first; ERR_ENV when `out` cannot be written, which
 * then is not there. */
Status checkpoint_merge(const char *out, char *const *paths, const double *weights, int n,
                        Merged *merged);

#endif
