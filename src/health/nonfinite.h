/* nonfinite.h: finds the origin of a NaN or infinity. Both searches are collective and set *found,
 * on every rank, to the finding of the lowest rank that has one (the caller frees it), or NULL. */
#ifndef CRIA_HEALTH_NONFINITE_H
#define CRIA_HEALTH_NONFINITE_H

#include "session/session.h"

/* Looks for weights that are not finite. */
Status nonfinite_weights(Session *s, char **found);

/* Runs the step's micro-batches again one by one, and names rank, layer, tensor and samples of the
 * first number that is not finite. *found is never NULL. Overwrites the gradients. */
Status nonfinite_locate(Session *s, int64_t step, char **found);

/* The numbers of a micro-batch's samples: "12, 13". */
void print_samples(const MicroBatch *mb, StrBuf *out);

#endif
