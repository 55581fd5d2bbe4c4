/* nonfinite.h: who made the NaN. Both are collective, and set *found on every rank to what the
 * lowest rank that found something has to say, which the caller frees, or NULL. */
#ifndef CRIA_HEALTH_NONFINITE_H
#define CRIA_HEALTH_NONFINITE_H

#include "session/session.h"

/* Are there weights that are not finite? */
Status nonfinite_weights(Session *s, char **found);

/* Runs the step's micro-batches again one by one, each rank looking at its own numbers: rank,
 * layer, tensor and samples of the first number that is not finite. Never NULL. Gradients are lost.
 */
Status nonfinite_locate(Session *s, int64_t step, char **found);

/* The numbers of a micro-batch's samples: "12, 13". */
void print_samples(const MicroBatch *mb, StrBuf *out);

#endif
