/* agree.h: what must be the same on every rank. At the start: binary, configuration, arguments, device
 * and data; during the run: the weights. */
#ifndef CRIA_TRAIN_AGREE_H
#define CRIA_TRAIN_AGREE_H

#include "session/train_state.h"

/* ERR_USER on every rank when `mine` (lines of text) is not everywhere what it is on rank 0; the
 * sentence names the rank and the first line that differs. Collective over `host`. */
Status agree_text(Comm *host, const char *what, const char *mine);

/* ERR_USER on every rank when one computes on another kind of device than rank 0, a GPU of another
 * name for example; the sentence names the rank and both. Collective over `host`. */
Status agree_device(Comm *host, const Ops *ops);

/* *text (NULL: none) becomes, on every rank, that of the lowest rank that has one, with "rank N: " before
 * it in a larger world. Collective; the caller frees it. */
Status agree_first(Session *s, char **text);

/* What this process was started as. Collective over all ranks. */
Status agree_start(const Config *c, const char *resume, bool dry_run);

/* Compares checksums of everything that all ranks hold alike: the weights, without ZeRO also master
 * weights and moments, and the state. ERR_ENV on every rank names the first tensor that differs and the
 * ranks that are in the minority. Collective; reads the weights once. What only one
 * rank holds, such as its share of the master weights under ZeRO, has nothing to be compared with. */
Status agree_weights(Session *s, const TrainState *state);

#endif
