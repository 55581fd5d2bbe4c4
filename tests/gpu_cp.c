/* gpu_cp.c: every runtime on GPUs against dense attention in fp64: mpiexec -n {1,2,4,8} gpu_cp [N],
 * a GPU for each rank. MagiAttention's mask cases (scaled down) and N random band lists (default
 * 20), forward and backward, with head dims of the portable and of the sm_90a kernels. */
#include "cp_dense.h"

int main(int argc, char **argv) {
    static const int dims[] = {32, 64, 128};
    uint64_t lists = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
    CommSet set;
    /* P and dS are rounded to bf16, o too: 2^-9 each, times sums of a few terms of size 1 to 10 */
    Side side = {.tolerance = 4e-2};
    EXPECT_OK(comm_start(&argc, &argv));
    EXPECT_OK(cuda_ops_open(&side.ops, comm_local_rank()));
    side.ops->set_deterministic(true);
    EXPECT_OK(side.ops->stream_create(&side.stream));
    EXPECT_OK(comm_open(&set, side.ops, comm_world_size()));
    side.comm = set.cp;
    for (int i = 0; i < 3; i++) {
        side.D = dims[i];
        side.worst = 0;
        dense_run_cases(&side, lists);
        if (side.comm->rank == 0)
            printf("D = %d: within %.1e of dense attention\n", side.D, side.worst);
    }
    if (side.comm->rank == 0) printf("%lld passed, 0 failed\n", (long long)side.runs);
    comm_close(&set);
    side.ops->stream_free(side.stream);
    comm_finish();
    return 0;
}
