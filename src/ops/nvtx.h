/* nvtx.h: names what the host queues, for NVIDIA's profilers (Nsight Systems), which show the GPU's
 * work under these ranges. Without a profiler a call costs some nanoseconds; without CUDA nothing.
 */
#ifndef CRIA_OPS_NVTX_H
#define CRIA_OPS_NVTX_H

#include <stdint.h>

#ifdef CRIA_CUDA
/* Ranges nest. name: a literal; number: which layer, step, ..., shown beside it; -1: none. */
void nvtx_push(const char *name, int64_t number);
void nvtx_pop(void);
/* cudaProfilerStart() and cudaProfilerStop(): between them records `nsys profile -c
 * cudaProfilerApi`. */
void nvtx_profiler_start(void);
void nvtx_profiler_stop(void);
#else
static inline void nvtx_push(const char *name, int64_t number) {
    (void)name;
    (void)number;
}
static inline void nvtx_pop(void) {}
static inline void nvtx_profiler_start(void) {}
static inline void nvtx_profiler_stop(void) {}
#endif

#endif
