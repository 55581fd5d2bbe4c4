/* share.h: read-only memory that the processes of one node have once, however many ranks it runs:
 * tables derived from token files. The first process to ask for a name computes it into a file in
 * $TMPDIR (or /tmp) that the others map; the last to leave deletes it, if share_unlink_all has not.
 * What killed processes left there is deleted by the next to share something. Where sharing is not
 * possible (no room, no rights) each process has its own, with a warning; so it has, without one,
 * where it is small. */
#ifndef CRIA_DATA_SHARE_H
#define CRIA_DATA_SHARE_H

#include "base/base.h"

typedef struct Share Share;

/* `name` must say everything that the bytes depend on. `fill` gets zeroed memory. */
Status share_open(Share **share, const char *name, int64_t bytes,
                  Status (*fill)(void *ctx, void *data), void *ctx);
const void *share_data(const Share *share);
void share_close(Share *share); /* NULL is fine */

/* Deletes the files of all open shares of this process; what is in them stays until the last
 * process closes it, and nothing is left if all are killed. For when every process of the node that
 * is to have them has opened them: others would make their own. */
void share_unlink_all(void);

#endif
