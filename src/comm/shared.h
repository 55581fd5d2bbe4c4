/* shared.h: host memory shared by the ranks of one machine (POSIX shared memory). */
#ifndef CRIA_COMM_SHARED_H
#define CRIA_COMM_SHARED_H

#include "comm/comm.h"

/* Collective over `host`. Sets *memory to `bytes` zeroed bytes that the ranks of this machine
 * share, and here[r] (size entries) to whether rank r is one of them, this one included. Where
 * shm_open fails, *memory is NULL and here is all false; this may happen on some ranks of a machine
 * only, so a caller must check with rank r before it relies on here[r]. */
Status comm_shared_open(void **memory, int64_t bytes, bool *here, Comm *host);
void comm_shared_close(void *memory, int64_t bytes);

#endif
