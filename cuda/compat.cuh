/* compat.cuh: calls of CUDA 13.0 that older toolkits, from 12.4 on, have in another form or lack.
 *
 *   cudaGetDriverEntryPointByVersion        from 12.5; before: cudaGetDriverEntryPoint
 *   cudaMemcpyBatchAsync                    from 12.8; before: a cudaMemcpyAsync for each copy
 *   cudaMemcpyBatchAsync without `failIdx`  from 13.0; before: with it
 *   nvcc --compress-mode                    from 12.8; the Makefile leaves it out
 *
 * A program of 12.x runs with every driver of 12.x, which may lack what the toolkit has. */
#ifndef CRIA_CUDA_COMPAT_CUH
#define CRIA_CUDA_COMPAT_CUH

#include <cuda_runtime.h>

#if CUDART_VERSION < 12040
#error "cria needs CUDA 12.4 or newer"
#endif

/* What stands in, for `cria version`; "": nothing. */
#if CUDART_VERSION >= 12080
#define COMPAT_REPLACED ""
#elif CUDART_VERSION >= 12050
#define COMPAT_REPLACED "copies one by one, not in batches (12.8); larger machine code (12.8)"
#else
#define COMPAT_REPLACED                                                                            \
    "copies one by one, not in batches (12.8); larger machine code (12.8); driver calls "          \
    "found without a version (12.5)"
#endif

/* The entry point of a driver function in the version given; NULL when the driver lacks it. */
static inline void *compat_driver_entry(const char *name, unsigned version) {
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, &entry, version, cudaEnableDefault, &found);
#else
    /* The newest form that the toolkit knows: that of `version`, as those that cria calls have not
     * changed since. */
    if (version > CUDART_VERSION) return NULL;
    cudaError_t error = cudaGetDriverEntryPoint(name, &entry, cudaEnableDefault, &found);
#endif
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? entry : NULL;
}

/* Whether compat_copy_batch() enqueues a batch, which copy engines carry out, also inside one GPU.
 * Single copies inside one GPU may be kernels. */
static inline bool compat_has_batches(void) {
#if CUDART_VERSION >= 12080
    int driver = 0;
    return cudaDriverGetVersion(&driver) == cudaSuccess && driver >= 12080;
#else
    return false;
#endif
}

/* n > 0 copies of sizes[i] bytes that may be done in any order, after what `stream` holds. */
static inline cudaError_t compat_copy_batch(void **to, const void **from, size_t *sizes, size_t n,
                                            cudaStream_t stream) {
#if CUDART_VERSION >= 12080
    static const bool has_batches = compat_has_batches();
    if (has_batches) {
        cudaMemcpyAttributes attributes = {};
        size_t first = 0;
        attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
        attributes.flags = cudaMemcpyFlagPreferOverlapWithCompute;
#if CUDART_VERSION >= 13000
        return cudaMemcpyBatchAsync(to, from, sizes, n, &attributes, &first, 1, stream);
#else
        size_t failed = 0;
        return cudaMemcpyBatchAsync(to, const_cast<void **>(from), sizes, n, &attributes, &first, 1,
                                    &failed, stream);
#endif
    }
#endif
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; i < n && error == cudaSuccess; i++)
        error = cudaMemcpyAsync(to[i], from[i], sizes[i], cudaMemcpyDefault, stream);
    return error;
}

#endif
