/* agree.h: texts that must be the same on every rank, and one rank's text for all. comm_agree() and
 * comm_agree_equal() of comm.h are in agree.c, too. */
#ifndef CRIA_COMM_AGREE_H
#define CRIA_COMM_AGREE_H

#include "comm/comm.h"

/* ERR_USER on every rank when `mine` (lines of text) of some rank differs from rank 0's; the
 * message names the rank and the first line that differs. Collective over `host`. */
Status agree_text(Comm *host, const char *what, const char *mine);

/* ERR_USER on every rank when the device of some rank differs from rank 0's, for example in the
 * GPU's name; the message names the rank and both. Collective over `host`. */
Status agree_device(Comm *host, const Ops *ops);

/* Sets *text (NULL: none) on every rank to the text of the lowest rank that has one, with "rank N:
 * " before it when there are several ranks. The caller frees it. Collective over `host`. */
Status agree_first(Comm *host, char **text);

#endif
