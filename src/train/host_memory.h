/* host_memory.h: host memory that this process can still allocate. */
#ifndef CRIA_TRAIN_HOST_MEMORY_H
#define CRIA_TRAIN_HOST_MEMORY_H

#include <stdint.h>

/* Bytes: the least of what is available on the host and of what the limits of this process's
 * control groups (version 1 or 2) and their parents leave. INT64_MAX: unknown. `root` is a prefix
 * of "/proc" and "/sys", "" outside tests. */
int64_t host_memory_available(const char *root);

#endif
