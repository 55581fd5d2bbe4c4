/* nvtx.cu: ranges for NVIDIA's profilers. nvtx3 is headers alone: they look for a profiler in the
 * process once, and return at once where there is none. */
#include "device.h"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#define CRIA_CUDA
extern "C" {
#include "ops/nvtx.h"
}

extern "C" void nvtx_push(const char *name, int64_t number) {
    nvtxEventAttributes_t range = {};
    range.version = NVTX_VERSION;
    range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    range.messageType = NVTX_MESSAGE_TYPE_ASCII;
    range.message.ascii = name;
    if (number >= 0) {
        range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
        range.payload.llValue = number;
    }
    nvtxRangePushEx(&range);
}

extern "C" void nvtx_pop(void) {
    nvtxRangePop();
}

extern "C" void nvtx_profiler_start(void) {
    CUDA_CHECK_DEFERRED(cudaProfilerStart());
}

extern "C" void nvtx_profiler_stop(void) {
    CUDA_CHECK_DEFERRED(cudaProfilerStop());
}
