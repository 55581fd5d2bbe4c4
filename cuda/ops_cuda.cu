/* ops_cuda.cu: the CUDA row of the Ops table. */
#include "attention.h"
#include "common.cuh"

extern "C" const bool cuda_built = true;

static void set_deterministic(bool on) {
    cuda_attention_deterministic(on);
    cuda_gemm_autotune(!on); /* what is fastest may differ from run to run */
}

extern "C" Status cuda_ops_open(const Ops **out, int local_rank) {
    static Ops ops;
    ops.name = "cuda";
    ops.act_bytes = sizeof(bf16);
    ops.act_dtype = DT_BF16;
    ops.host_memory = false;
#define X(op) ops.op = cuda_##op;
    CUDA_OP_LIST(X)
#undef X
    ops.attn_work_create = cuda_attn_work_create;
    ops.attn_work_free = cuda_attn_work_free;
    ops.attention_fwd = cuda_attention_fwd;
    ops.attention_delta = cuda_attention_delta;
    ops.attention_bwd = cuda_attention_bwd;
    ops.set_deterministic = set_deterministic;
    CHECK(cuda_device_open(&ops, local_rank));
    CHECK(cuda_gemm_open());
    set_deterministic(false);
    *out = &ops;
    return OK;
}
