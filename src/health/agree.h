/* agree.h: what must be the same on every rank: at the start the binary, the configuration and the
 * arguments, during the run the weights. */
#ifndef CRIA_HEALTH_AGREE_H
#define CRIA_HEALTH_AGREE_H

#include "session/train_state.h"

/* What this process was started as. Collective over all ranks. */
Status agree_start(const Config *c, const char *resume, bool dry_run);

/* Compares checksums of everything that all ranks hold alike: the weights, without ZeRO also master
 * weights and moments, and the state. ERR_ENV on every rank names the first tensor that differs and
 * the ranks that are in the minority. Collective; reads the weights once. What only one rank holds,
 * such as its share of the master weights under ZeRO, has nothing to be compared with. */
Status agree_weights(Session *s, const TrainState *state);

#endif
