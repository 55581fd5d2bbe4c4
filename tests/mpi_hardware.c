/* The check of devices before a run: mpirun -n {1,2,3} mpi_hardware
 * ranks: 1 2 3
 * A backend that multiplies right passes, with every number of threads; one whose products have one
 * wrong bit on one rank is named on every rank. */
#include <omp.h>

#include "ops/linear.h"
#include "session/hardware.h"
#include "check.h"

static int64_t flip_at; /* element of the product */
static int flip_in;     /* products from now on */

/* The least bit of one element of one product. */
static void flip(const Matmul *p, Stream *stream) {
    cpu_ops()->linear_wgrad(p, stream);
    if (flip_in-- == 0) ((uint32_t *)p->d)[flip_at] ^= 1;
}

int main(void) {
    comm_start();
    Comm *host;
    EXPECT_OK(comm_mpi_create(&host));
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        EXPECT_OK(hardware_check(cpu_ops(), host));
    }
    Ops faulty = *cpu_ops();
    faulty.linear_wgrad = flip;
    for (int bad = 0; bad < host->size; bad++) {
        char text[32];
        snprintf(text, sizeof text, "rank %d on node ", bad);
        flip_at = bad * 96 * 17 + 5;
        flip_in = 2 * bad + 1;
        Status st = hardware_check(bad == host->rank ? &faulty : cpu_ops(), host);
        EXPECT(status_is_agreed());
        EXPECT(strstr(status_message(), "came out wrong") != NULL);
        EXPECT_FAILS(st, ERR_ENV, text);
    }
    if (host->rank == 0) printf("mpi_hardware: %d ranks passed\n", host->size);
    comm_free(host);
    comm_finish(0);
    return 0;
}
