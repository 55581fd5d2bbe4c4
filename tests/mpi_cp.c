/* ranks: 1 2 3 4 5 7 8 -- timeout: 600
 * Every runtime over MPI against dense attention in fp64: MagiAttention's mask cases (scaled down)
 * and random band lists, forward and backward. `mpi_cp N` draws N lists (default 300). */
#include "cp_dense.h"

int main(int argc, char **argv) {
    EXPECT_OK(comm_start(&argc, &argv));
    Side side = {.ops = cpu_ops(), .D = 4, .tolerance = 1e-5};
    EXPECT_OK(comm_mpi_create(&side.comm));
    dense_run_cases(&side, argc > 1 ? strtoull(argv[1], NULL, 10) : 300);
    if (side.comm->rank == 0)
        printf("%lld runs on %d ranks agree with dense attention within %.1e\n",
               (long long)side.runs, side.comm->size, side.worst);
    comm_free(side.comm);
    comm_finish();
    return 0;
}
