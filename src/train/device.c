#include "train/device.h"

#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/comm.h"
#include "model/params.h"

/* More weights than this are not trained on a CPU by intention. */
static const int64_t MANY_WEIGHTS = 100 * 1000 * 1000;

char *device_why_cpu(bool built, const char *failure, const char *gpu_file, int64_t weights) {
    const char *remedy =
        "this cria was built without CUDA: put nvcc into PATH and run make, or set "
        "device: cpu";
    if (built) return mem_printf("device: auto takes the CPU: %s", failure);
    if (access(gpu_file, F_OK) == 0)
        return mem_printf("device: auto takes the CPU of a machine with an NVIDIA GPU (%s): %s",
                          gpu_file, remedy);
    if (weights > MANY_WEIGHTS)
        return mem_printf("device: auto takes the CPU for a model of %.4g M weights: %s",
                          (double)weights / 1e6, remedy);
    return NULL;
}

static int64_t count_weights(const ModelConfig *m) {
    ParamTable *table = param_table_create(m, 1);
    int64_t n = table->n_weights;
    param_table_free(table);
    return n;
}

Status device_open(const Ops **ops, DeviceKind want, const ModelConfig *model, char **why) {
    *why = NULL;
    if (want != DEVICE_CPU) {
        Status st = cuda_ops_open(ops, comm_local_rank());
        if (st == OK || want == DEVICE_CUDA) {
            if (st != OK) status_suffix("; device=cpu runs without a GPU");
            return st;
        }
        *why = device_why_cpu(cuda_built, status_message(), "/dev/nvidia0",
                              model != NULL ? count_weights(model) : 0);
        status_ignore(st);
    }
    *ops = cpu_ops();
    /* OpenMP's default is all cores for every rank, whose threads then wait for each other. */
    if (getenv("OMP_NUM_THREADS") == NULL) omp_set_num_threads(comm_local_cores());
    return OK;
}

Status device_check_model(const Config *c, const GpuProperties *gpu) {
    const ModelConfig *m = &c->model;
    if (gpu == NULL) return OK;
    ModelSizes sizes = {.rows = ceil_div(c->batch.micro * m->seq_len, c->parallel.cp),
                        .hidden = m->hidden,
                        .heads = m->heads,
                        .kv_heads = m->kv_heads,
                        .head_dim = m->head_dim,
                        .ffn = m->ffn};
    return gpu_check_model(gpu, &sizes);
}
