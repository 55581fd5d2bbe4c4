#include "session/device.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm.h"
#include "base/log.h"
#include "model/params.h"

/* Nobody trains more weights than this on a CPU on purpose. */
static const int64_t MANY_WEIGHTS = 100 * 1000 * 1000;

char *device_why_cpu(bool built, const char *failure, const char *gpu_file, int64_t weights) {
    const char *remedy =
        "this cria was built without CUDA: put nvcc into PATH and run make, or set device: cpu";
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

/* As OpenMP parses it: positive numbers, separated by commas. */
static bool is_thread_count(const char *text) {
    char *end;
    do {
        if (strtol(text, &end, 10) < 1 || end == text) return false;
        text = end + strspn(end, " ") + 1;
    } while (text[-1] == ',');
    return text[-1] == '\0';
}

/* OpenMP's default is all cores for each rank, so that ranks of one host would compete for them. */
static void choose_threads(void) {
    const char *given = getenv("OMP_NUM_THREADS");
    if (given != NULL && is_thread_count(given)) return;
    omp_set_num_threads(comm_local_cores());
    if (given != NULL && given[0] != '\0' && comm_world_rank() == 0)
        log_warn("OMP_NUM_THREADS is '%s', which is not a number of threads: each rank takes its "
                 "share of the cores, here %d",
                 given, comm_local_cores());
}

Status device_open(const Ops **ops, DeviceKind want, bool deterministic, const ModelConfig *model,
                   char **why) {
    *why = NULL;
    if (want != DEVICE_CPU) {
        Status st = cuda_ops_open(ops, comm_local_rank(), deterministic);
        if (st == OK || want == DEVICE_CUDA) {
            if (st != OK) status_suffix("; device=cpu runs without a GPU");
            return st;
        }
        *why = device_why_cpu(cuda_built, status_message(), "/dev/nvidia0",
                              model != NULL ? count_weights(model) : 0);
        status_ignore(st);
    }
    *ops = cpu_ops();
    choose_threads();
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
                        .ffn = m->ffn,
                        .fp8 = c->precision == PRECISION_FP8};
    return gpu_check_model(gpu, &sizes);
}
