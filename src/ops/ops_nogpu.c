/* Stands in for cuda/ in a build without it (make GPU=0). */
#include "ops/ops.h"

const bool cuda_built = false;
const char cuda_replaced[] = "";
const int cuda_toolkit = 0;

Status cuda_ops_open(const Ops **ops, int local_rank, bool deterministic) {
    (void)ops, (void)local_rank, (void)deterministic;
    return status_fail(ERR_USER, "this cria was built without CUDA (make GPU=1 needs nvcc)");
}
