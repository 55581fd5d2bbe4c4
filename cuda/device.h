/* device.h: what every file of cuda/ shares: the seams of src/ with C linkage, the device side of
 * the opaque types that ops.h only names, and the trail of errors.
 *
 * Ops return nothing, so a failed call is noted here: the first one stays, with its place, and
 * comes out of the next stream_sync() as ERR_ENV. */
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

struct Stream {
    cudaStream_t s;
    void *workspace; /* of the matrix products on this stream; made by gemm.cu at the first */
};

struct Event {
    cudaEvent_t e;
};

/* Notes a failure; true when there is none. `op` says what was being done. */
bool cuda_note(cudaError_t error, const char *op, const char *file, int line);
#define CUDA_NOTE(call) cuda_note((call), #call, __FILE__, __LINE__)
/* After a kernel launch. */
#define CUDA_LAUNCHED(op) cuda_note(cudaGetLastError(), (op), __FILE__, __LINE__)
/* A failure of a library, in its own words (literals). */
void cuda_note_text(const char *op, const char *reason, const char *file, int line);
/* OK, or ERR_ENV with the first failure noted so far. */
Status cuda_fault(void);

/* Memory that lives from here to cuda_scratch_free() in the order of the stream; NULL, noted, when
 * there is none. */
void *cuda_scratch_new(int64_t bytes, const char *op, cudaStream_t stream);
void cuda_scratch_free(void *scratch, cudaStream_t stream);

/* upload.cu: mem_upload of the Ops table, and its start, which needs host_alloc (ERR_ENV). */
Status cuda_upload_open(const Ops *ops);
void cuda_upload(void *dst, const void *src, int64_t bytes, Stream *stream);

int cuda_sm_count(void);
/* A function of the driver, which is not linked, as of a version such as 12000; NULL: it has none.
 */
void *cuda_driver_entry(const char *name, unsigned version);

/* Makes `local_rank`'s GPU the current one (ERR_ENV with what to do when there is none that can run
 * this binary) and fills in the rows of the table that deal with memory, streams and events. */
Status cuda_device_open(Ops *ops, int local_rank);

/* gemm.cu. Start; and whether the algorithm of each new shape is chosen by timing (which makes runs
 * differ in their last bits) or is cuBLASLt's first suggestion, the default. The setting forgets
 * what was chosen before. */
Status cuda_gemm_open(void);
void cuda_gemm_autotune(bool on);

#ifdef __cplusplus
}
#endif

#endif
