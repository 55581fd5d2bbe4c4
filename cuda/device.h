/* device.h: what every file of cuda/ shares: the seams of src/ with C linkage, the device side of
 * the opaque types that ops.h only names, the functions of the Ops table, and deferred errors.
 *
 * Ops return nothing, so the first CUDA error of the process is recorded with its place; the next
 * stream_sync() returns it as ERR_ENV. */
#ifndef CRIA_CUDA_DEVICE_H
#define CRIA_CUDA_DEVICE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime.h>

#ifdef __cplusplus
#define _Noreturn [[noreturn]] /* base.h is C11 */
extern "C" {
#endif
#include "base/base.h"
#include "ops/ops.h"

struct Event {
    cudaEvent_t e;
};

/* cuda_rmsnorm_fwd and so on, as in ops.def */
#define OP(result, name, class, parameters, arguments, cost) result cuda_##name parameters;
#define HOST_OP(result, name, parameters)                    result cuda_##name parameters;
#include "ops/ops.def"

/* Records the first CUDA error; returns true on success. `op` names the call in the message. */
bool cuda_check_deferred(cudaError_t error, const char *op, const char *file, int line);
#define CUDA_CHECK_DEFERRED(call) cuda_check_deferred((call), #call, __FILE__, __LINE__)
/* After a kernel launch. `op` names the kernel. */
#define CUDA_CHECK_LAUNCH(op) cuda_check_deferred(cudaGetLastError(), (op), __FILE__, __LINE__)
/* Records an error of a library. The texts must be literals: they are not copied. */
void cuda_record_error(const char *op, const char *reason, const char *file, int line);
/* OK, or ERR_ENV with the first recorded error. */
Status cuda_deferred_error(void);

/* Stream-ordered device memory, valid until cuda_scratch_free(). On failure records the error and
 * returns NULL. */
void *cuda_scratch_new(int64_t bytes, const char *op, cudaStream_t stream);
void cuda_scratch_free(void *scratch, cudaStream_t stream);

/* upload.cu: before the first cuda_mem_upload(). ERR_ENV: no page-locked memory. */
Status cuda_upload_open(void);

int cuda_sm_count(void);
/* The entry point of a driver function (libcuda is not linked) in the version given, such as 12000;
 * NULL when the driver lacks it. */
void *cuda_driver_entry(const char *name, unsigned version);

/* Makes `local_rank`'s GPU the current one and says in the table which it is. ERR_ENV when no GPU
 * can run this binary. */
Status cuda_device_open(Ops *ops, int local_rank);
/* gemm.cu: before the first matrix product */
Status cuda_gemm_open(void);

#ifdef __cplusplus
}
#endif

#endif
