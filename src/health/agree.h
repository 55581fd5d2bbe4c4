/* agree.h: checks that ranks are alike: at the start their binary, configuration and arguments,
 * during the run their weights. */
#ifndef CRIA_HEALTH_AGREE_H
#define CRIA_HEALTH_AGREE_H

#include "session/train_state.h"

/* Binary, configuration, arguments. ERR_USER names the first difference. Collective. */
Status agree_start(const Config *c, const char *resume, const char *from, bool dry_run);

/* Compares checksums of everything that is replicated: the weights, without ZeRO also master
 * weights and moments, and the state. ERR_ENV on every rank names the first tensor that differs and
 * the minority of ranks. Reads the weights once. Collective. */
Status agree_weights(Session *s, const TrainState *state);

#endif
