/* shared.h: host memory that the ranks of one machine have in common. */
#ifndef CRIA_COMM_SHARED_H
#define CRIA_COMM_SHARED_H

#include "comm/comm.h"

/* Collective over `host`. *memory gets `bytes` zeroed bytes, the same on all ranks of this machine,
 * and here[r] (size entries) says which ranks those are, this one included. *memory NULL and nobody
 * here when there is no shared memory (POSIX shm_open) to be had; ranks of one machine may then
 * still differ, so whoever relies on here[r] must make sure that r agrees. */
Status comm_shared_open(void **memory, int64_t bytes, bool *here, Comm *host);
void comm_shared_close(void *memory, int64_t bytes);

#endif
