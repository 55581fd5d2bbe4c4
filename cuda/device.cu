/* device.cu: which GPU, its memory, streams and events, and the first error of the process. */
#include "device.h"

#include <atomic>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>

#include "compat.cuh"

/* ---- errors --------------------------------------------------------------------------------- */

/* One GPU and one first error per process, whichever thread records it. */
static struct {
    std::atomic<bool> claimed, written;
    const char *op, *reason, *file;
    int line;
} first_error;

void cuda_record_error(const char *op, const char *reason, const char *file, int line) {
    if (first_error.claimed.exchange(true)) return;
    first_error.op = op;
    first_error.reason = reason;
    first_error.file = file;
    first_error.line = line;
    first_error.written.store(true, std::memory_order_release);
}

bool cuda_check_deferred(cudaError_t error, const char *op, const char *file, int line) {
    if (error == cudaSuccess) return true;
    cuda_record_error(op, cudaGetErrorString(error), file, line);
    return false;
}

Status cuda_deferred_error(void) {
    if (!first_error.written.load(std::memory_order_acquire)) return OK;
    return status_fail(ERR_ENV, "the GPU failed in %s: %s (%s:%d)", first_error.op,
                       first_error.reason, first_error.file, first_error.line);
}

/* ---- memory --------------------------------------------------------------------------------- */

typedef struct Allocation {
    struct Allocation *next;
    void *ptr;
    int64_t bytes;
} Allocation;

static struct {
    std::mutex lock;
    Allocation *first;
    int64_t held, peak;
} memory;

Status cuda_mem_alloc(void **ptr, int64_t bytes, const char *what) {
    *ptr = NULL;
    cudaError_t error = cudaMalloc(ptr, (size_t)i64_max(bytes, 1));
    if (error != cudaSuccess) {
        size_t unused = 0, total = 0;
        cudaGetLastError(); /* the caller reports it: it is no fault of the device */
        cudaMemGetInfo(&unused, &total);
        return status_fail(ERR_ENV,
                           "%s: no GPU memory for %.2f GiB (%.2f of %.2f GiB are free): %s; use "
                           "memory.recompute=layer, a smaller batch.micro or more ranks",
                           what, (double)bytes / 0x1p30, (double)unused / 0x1p30,
                           (double)total / 0x1p30, cudaGetErrorString(error));
    }
    Allocation *a = NEW(Allocation, 1);
    std::lock_guard<std::mutex> guard(memory.lock);
    a->ptr = *ptr;
    a->bytes = bytes;
    a->next = memory.first;
    memory.first = a;
    memory.held += bytes;
    memory.peak = i64_max(memory.peak, memory.held);
    return OK;
}

void cuda_mem_free(void *ptr) {
    if (ptr == NULL) return;
    CUDA_CHECK_DEFERRED(cudaFree(ptr));
    std::lock_guard<std::mutex> guard(memory.lock);
    Allocation **link = &memory.first;
    while ((*link)->ptr != ptr) link = &(*link)->next;
    Allocation *a = *link;
    *link = a->next;
    memory.held -= a->bytes;
    free(a);
}

static cudaMemPool_t scratch_pool(void) {
    int device = 0;
    cudaMemPool_t pool = NULL;
    CUDA_CHECK_DEFERRED(cudaGetDevice(&device));
    CUDA_CHECK_DEFERRED(cudaDeviceGetDefaultMemPool(&pool, device));
    return pool;
}

int64_t cuda_mem_peak(void) {
    uint64_t scratch = 0;
    CUDA_CHECK_DEFERRED(
        cudaMemPoolGetAttribute(scratch_pool(), cudaMemPoolAttrUsedMemHigh, &scratch));
    std::lock_guard<std::mutex> guard(memory.lock);
    return memory.peak + (int64_t)scratch;
}

void *cuda_scratch_new(int64_t bytes, const char *op, cudaStream_t stream) {
    void *p = NULL;
    cudaError_t error = cudaMallocAsync(&p, (size_t)i64_max(bytes, 1), stream);
    return cuda_check_deferred(error, op, __FILE__, __LINE__) ? p : NULL;
}

void cuda_scratch_free(void *scratch, cudaStream_t stream) {
    CUDA_CHECK_DEFERRED(cudaFreeAsync(scratch, stream));
}

Status cuda_host_alloc(void **ptr, int64_t bytes, const char *what) {
    *ptr = NULL;
    cudaError_t error = cudaMallocHost(ptr, (size_t)i64_max(bytes, 1));
    if (error == cudaSuccess) return OK;
    cudaGetLastError();
    return status_fail(ERR_ENV,
                       "%s: no page-locked host memory for %lld bytes (%.2f GiB): %s; raise the "
                       "limit (ulimit -l) or use fewer ranks on this host",
                       what, (long long)bytes, (double)bytes / 0x1p30, cudaGetErrorString(error));
}

void cuda_host_free(void *ptr) {
    if (ptr != NULL) CUDA_CHECK_DEFERRED(cudaFreeHost(ptr));
}

void cuda_mem_zero(void *ptr, int64_t bytes, Stream *stream) {
    if (bytes > 0) CUDA_CHECK_DEFERRED(cudaMemsetAsync(ptr, 0, (size_t)bytes, stream->s));
}

void cuda_mem_copy(void *dst, const void *src, int64_t bytes, Stream *stream) {
    if (bytes > 0)
        CUDA_CHECK_DEFERRED(cudaMemcpyAsync(dst, src, (size_t)bytes, cudaMemcpyDefault, stream->s));
}

/* ---- streams and events --------------------------------------------------------------------- */

Status cuda_stream_create(const Ops *ops, Stream **stream) {
    *stream = NEW(Stream, 1);
    (*stream)->ops = ops;
    CUDA_CHECK_DEFERRED(cudaStreamCreateWithFlags(&(*stream)->s, cudaStreamNonBlocking));
    return cuda_deferred_error();
}

void cuda_stream_free(Stream *stream) {
    if (stream == NULL) return;
    if (stream->workspace != NULL) cuda_scratch_free(stream->workspace, stream->s);
    CUDA_CHECK_DEFERRED(cudaStreamSynchronize(stream->s));
    CUDA_CHECK_DEFERRED(cudaStreamDestroy(stream->s));
    free(stream);
}

Status cuda_stream_sync(Stream *stream) {
    CUDA_CHECK_LAUNCH("a launch before stream_sync");
    cuda_check_deferred(cudaStreamSynchronize(stream->s), "work queued before stream_sync",
                        __FILE__, __LINE__);
    return cuda_deferred_error();
}

Status cuda_event_create(Event **event) {
    *event = NEW(Event, 1);
    CUDA_CHECK_DEFERRED(cudaEventCreate(&(*event)->e));
    return cuda_deferred_error();
}

void cuda_event_free(Event *event) {
    if (event == NULL) return;
    CUDA_CHECK_DEFERRED(cudaEventDestroy(event->e));
    free(event);
}

void cuda_event_record(Event *event, Stream *stream) {
    CUDA_CHECK_DEFERRED(cudaEventRecord(event->e, stream->s));
}

void cuda_event_wait(Event *event, Stream *stream) {
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream->s, event->e, 0));
}

double cuda_event_ms(Event *begin, Event *end) {
    float ms = 0;
    CUDA_CHECK_DEFERRED(cudaEventElapsedTime(&ms, begin->e, end->e));
    return (double)ms;
}

/* ---- the device ----------------------------------------------------------------------------- */

static __global__ void probe_kernel(void) {}

void *cuda_driver_entry(const char *name, unsigned version) {
    return compat_driver_entry(name, version);
}

int cuda_sm_count(void) {
    int device = 0, count = 1;
    CUDA_CHECK_DEFERRED(cudaGetDevice(&device));
    CUDA_CHECK_DEFERRED(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

static Status no_device(cudaError_t error) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (error == cudaErrorInsufficientDriver && driver > 0)
        return status_fail(ERR_ENV,
                           "the NVIDIA driver is too old: it runs CUDA up to %d.%d, this cria was "
                           "built with CUDA %d.%d; update the driver",
                           driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                           CUDART_VERSION % 1000 / 10);
    const char *reason = driver == 0            ? "no driver is loaded"
                         : error == cudaSuccess ? "none is visible"
                                                : cudaGetErrorString(error);
    return status_fail(
        ERR_ENV, "no usable NVIDIA GPU: %s; check nvidia-smi and CUDA_VISIBLE_DEVICES", reason);
}

static Status fill_properties(GpuProperties *gpu, const cudaDeviceProp *p) {
    gpu->name = p->name;
    gpu->capability = 10 * p->major + p->minor;
    snprintf(gpu->pci_bus_id, sizeof gpu->pci_bus_id, "%04x:%02x:%02x.0", p->pciDomainID,
             p->pciBusID, p->pciDeviceID);
    gpu->shared_bytes = (int64_t)p->sharedMemPerBlockOptin;
    if (gpu->capability >= GPU_CAPABILITY_MIN) return OK;
    return status_fail(
        ERR_USER, "%s has compute capability %d.%d; cria's kernels need %d.%d or newer", gpu->name,
        p->major, p->minor, GPU_CAPABILITY_MIN / 10, GPU_CAPABILITY_MIN % 10);
}

/* A launcher may show each rank its own GPU only: then that one is meant, whatever the rank. */
static Status pick_device(int local_rank) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) return no_device(error);
    if (local_rank >= count && count > 1)
        return status_fail(ERR_ENV,
                           "rank %d of this host has no GPU: %d are visible; start at most %d "
                           "ranks per host (CUDA_VISIBLE_DEVICES may hide some)",
                           local_rank, count, count);
    error = cudaSetDevice(count == 1 ? 0 : local_rank);
    return error == cudaSuccess ? OK : no_device(error);
}

Status cuda_device_open(Ops *ops, int local_rank) {
    static cudaDeviceProp properties; /* ops keeps the name */
    static GpuProperties gpu;
    CHECK(pick_device(local_rank));
    int device = 0;
    cudaFuncAttributes attributes;
    cudaGetDevice(&device);
    cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) return no_device(error);
    CHECK(fill_properties(&gpu, &properties));
    error = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return status_fail(ERR_ENV,
                           "%s (compute capability %d.%d) cannot run the GPU code of this cria: "
                           "%s; build it for that architecture",
                           properties.name, properties.major, properties.minor,
                           cudaGetErrorString(error));
    }
    /* Scratch of one call serves the next: never hand it back to the driver. */
    uint64_t keep = UINT64_MAX;
    CUDA_CHECK_DEFERRED(
        cudaMemPoolSetAttribute(scratch_pool(), cudaMemPoolAttrReleaseThreshold, &keep));

    ops->device_name = properties.name;
    ops->gpu = &gpu;
    CHECK(cuda_upload_open());
    return cuda_deferred_error();
}
