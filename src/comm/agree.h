/* agree.h: texts that must be the same on every rank, and the text of one rank for all. */
#ifndef CRIA_COMM_AGREE_H
#define CRIA_COMM_AGREE_H

#include "comm/comm.h"

/* ERR_USER on every rank when `mine` (lines of text) is not everywhere what it is on rank 0; the
 * message names the rank and the first line that differs. Collective over `host`. */
Status agree_text(Comm *host, const char *what, const char *mine);

/* ERR_USER on every rank when one computes on another kind of device than rank 0, a GPU of another
 * name for example; the message names the rank and both. Collective over `host`. */
Status agree_device(Comm *host, const Ops *ops);

/* *text (NULL: none) becomes, on every rank, that of the lowest rank that has one, with "rank N: "
 * before it in a larger world. Collective over `host`; the caller frees it. */
Status agree_first(Comm *host, char **text);

#endif
