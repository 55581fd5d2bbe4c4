/* attention_delta.cu: delta[h,s] = sum over d of dO[s,h,d] O[s,h,d], for the backward. Reads 4 D
 * bytes a row and head once: bound by memory. */
#include <cuda_bf16.h>

#include "attention.h"

/* 16 lanes per (row, head), 16 bytes a lane; a block takes 16 rows of one head. */
static __global__ void delta_kernel(float *delta, const __nv_bfloat16 *d_o, const __nv_bfloat16 *o,
                                    int64_t S, int H, int D) {
    int64_t row = (int64_t)blockIdx.x * 16 + threadIdx.x / 16;
    int head = blockIdx.y, lane = threadIdx.x % 16;
    float sum = 0;
    if (row < S && lane * 8 < D) {
        int64_t at = (row * H + head) * D + lane * 8;
        uint4 x = *(const uint4 *)(d_o + at), y = *(const uint4 *)(o + at);
        const __nv_bfloat162 *a = (const __nv_bfloat162 *)&x, *b = (const __nv_bfloat162 *)&y;
        for (int i = 0; i < 4; i++) {
            float2 u = __bfloat1622float2(a[i]), v = __bfloat1622float2(b[i]);
            sum += u.x * v.x + u.y * v.y;
        }
    }
    for (int m = 8; m; m >>= 1) sum += __shfl_xor_sync(0xffffffff, sum, m);
    if (row < S && lane == 0) delta[head * S + row] = sum;
}

extern "C" void cuda_attention_delta(float *delta, const void *d_o, const void *o, int64_t S, int H,
                                     int D, Stream *stream) {
    if (S == 0) return;
    dim3 grid((unsigned)ceil_div(S, 16), (unsigned)H);
    delta_kernel<<<grid, 256, 0, stream->s>>>(delta, (const __nv_bfloat16 *)d_o,
                                              (const __nv_bfloat16 *)o, S, H, D);
    CUDA_CHECK_LAUNCH("attention_delta");
}
