/* ops_cuda.cu: the CUDA row of the Ops table. */
#include "compat.cuh"
#include "device.h"

extern "C" const bool cuda_built = true;
extern "C" const char cuda_replaced[] = COMPAT_REPLACED;
extern "C" const int cuda_toolkit = CUDART_VERSION;

extern "C" Status cuda_ops_open(const Ops **out, int local_rank, bool deterministic) {
    static Ops ops;
    ops.name = "cuda";
    ops.act_bytes = sizeof(uint16_t);
    ops.act_dtype = DT_BF16;
    ops.host_memory = false;
    ops.deterministic = deterministic;
#define OP(result, name, class, parameters, arguments, cost) ops.name = cuda_##name;
#define HOST_OP(result, name, parameters)                    ops.name = cuda_##name;
#include "ops/ops.def"
    CHECK(cuda_device_open(&ops, local_rank));
    CHECK(cuda_gemm_open());
    *out = &ops;
    return OK;
}
