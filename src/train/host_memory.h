/* host_memory.h: how much memory this host can still give to this process. */
#ifndef CRIA_TRAIN_HOST_MEMORY_H
#define CRIA_TRAIN_HOST_MEMORY_H

#include <stdint.h>

/* Bytes, as far as the kernel tells: what is available on the host, and what the limits of this
 * process's control groups (version 1 or 2) and of those above them leave. INT64_MAX: nothing is
 * known. `root` goes before "/proc" and "/sys", "" outside tests. */
int64_t host_memory_available(const char *root);

#endif
