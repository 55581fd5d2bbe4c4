/* gpu_cp.c: every runtime on GPUs against dense attention in fp64: mpiexec -n {1,2,4,8} gpu_cp [N],
 * a GPU for each rank. MagiAttention's mask cases (scaled down) and N random band lists (default
 * 20), forward and backward, with head dims of the portable and of the sm_90a kernels, by NCCL and
 * from memory to memory. `gpu_cp N small`: for ranks that share GPUs, where kernels that fill one
 * and wait for another rank were seen to wait forever. */
#include <omp.h>

#include "cp_dense.h"
#include "gpu_open.h"

/* Every arena of a test is the same registered buffer. */
enum { POOL_BYTES = 512 << 20 };
static void *pool;
static Status pool_alloc(void **ptr, int64_t bytes, const char *what) {
    EXPECT(bytes <= POOL_BYTES, "%s needs %lld bytes", what, (long long)bytes);
    *ptr = pool;
    return OK;
}
static void pool_free(void *ptr) {
    (void)ptr;
}

static void run_side(Side *side, uint64_t lists, bool direct, bool large) {
    static const int dims[] = {32, 64, 128};
    CommSet set;
    EXPECT_OK(comm_open(&set, side->ops, comm_world_size()));
    side->comm = set.cp;
    if (direct) EXPECT_OK(comm_register_buffer(set.cp, pool, POOL_BYTES));
    for (int i = 0; i < 3; i++) {
        side->D = dims[i];
        side->worst = 0;
        double begin = time_now();
        dense_run_cases(side, lists);
        if (direct && large && side->D >= 64) dense_run_large(side);
        if (set.cp->rank == 0)
            printf("%s, D = %d: within %.1e of dense attention, %.1f s\n",
                   direct ? "direct" : "NCCL", side->D, side->worst, time_now() - begin);
    }
    comm_close(&set);
}

int main(int argc, char **argv) {
    uint64_t lists = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
    bool large = argc < 3 || strcmp(argv[2], "small") != 0;
    const Ops *gpu;
    comm_start();
    omp_set_num_threads(comm_local_cores());
    gpu_open_ranks(&gpu);
    EXPECT_OK(gpu->mem_alloc(&pool, POOL_BYTES, "pool of the test"));
    Ops ops = *gpu;
    ops.mem_alloc = pool_alloc;
    ops.mem_free = pool_free;
    ops.deterministic = true;
    /* P and dS are rounded to bf16, o too: 2^-9 each, times sums of a few terms of size 1 to 10 */
    Side side = {.ops = &ops, .tolerance = 4e-2};
    EXPECT_OK(ops.stream_create(&ops, &side.stream));
    run_side(&side, lists, false, large);
    run_side(&side, lists, true, large);
    if (comm_world_rank() == 0) printf("%lld passed, 0 failed\n", (long long)side.runs);
    ops.stream_free(side.stream);
    gpu->mem_free(pool);
    comm_finish(0);
    return 0;
}
