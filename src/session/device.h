/* device.h: which backend a process computes on, and whether it can run the model. */
#ifndef CRIA_SESSION_DEVICE_H
#define CRIA_SESSION_DEVICE_H

#include "config/config.h"
#include "ops/ops.h"

/* Opens the backend that `want` names on this rank's device. auto: the CPU where no GPU can be
 * used; *why is then a message for the user (who frees it), or NULL where a CPU is no surprise:
 * this binary holds no CUDA, the machine shows no GPU, and the model (NULL: none) is small. */
Status device_open(const Ops **ops, DeviceKind want, bool deterministic, const ModelConfig *model,
                   char **why);

/* ERR_USER when a GPU of these properties (NULL: a CPU, which runs any) cannot run the model; the
 * message names the keys. */
Status device_check_model(const Config *c, const GpuProperties *gpu);

/* The message of device_open. built: this binary holds CUDA; failure: why no GPU could be opened;
 * gpu_file: is there when the machine has a GPU. */
char *device_why_cpu(bool built, const char *failure, const char *gpu_file, int64_t weights);

#endif
