/* device.h: what every file of cuda/ shares: the seams of src/ with C linkage, and the device side of
 * the opaque types that ops.h only names. */
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
#include "base.h"
#include "ops.h"
#ifdef __cplusplus
}
#endif

struct Stream {
    cudaStream_t s;
};

#endif
