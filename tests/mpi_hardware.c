/* The checks of devices and of copies between ranks before a run: mpirun -n {1,2,3,4} mpi_hardware
 * ranks: 1 2 3 4
 * A backend that multiplies right passes, with every number of threads; one whose products have one
 * wrong bit on one rank is named on every rank. So is each copy that a rank receives with one wrong
 * bit, in one group of all ranks and in groups of two. */
#include <omp.h>

#include "ops/linear.h"
#include "session/hardware.h"
#include "session/peers.h"
#include "check.h"

static int64_t flip_at; /* element of the product */
static int flip_in;     /* products from now on */

/* The least bit of one element of one product. */
static void flip(const Matmul *p, Stream *stream) {
    cpu_ops()->linear_wgrad(p, stream);
    if (flip_in-- == 0) ((uint32_t *)p->d)[flip_at] ^= 1;
}

enum { BUFFER_BYTES = 5000 };
static char buffer[BUFFER_BYTES];
static const CommTable *inner;

/* The last bit of what a transfer may have brought. */
static Status flip_received(Comm *c, CommTicket ticket, Stream *stream) {
    CHECK(inner->wait(c, ticket, stream));
    int64_t half = BUFFER_BYTES / 2 / 256 * 256;
    buffer[2 * half - 1] ^= 1;
    return OK;
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) n++;
    return n;
}

/* In groups of `size` ranks, which divides their number. */
static void test_peers(Comm *host, int size) {
    Comm *group;
    EXPECT_OK(comm_mpi_split(&group, host->rank / size));
    EXPECT_OK(peers_check(cpu_ops(), group, host, buffer, BUFFER_BYTES, NULL));
    inner = group->table;
    CommTable faulty = *inner;
    faulty.wait = flip_received;
    for (int bad = 0; bad < host->size && size > 1; bad++) {
        char text[32];
        snprintf(text, sizeof text, "rank %d from rank ", bad);
        group->table = bad == host->rank ? &faulty : inner;
        Status st = peers_check(cpu_ops(), group, host, buffer, BUFFER_BYTES, NULL);
        EXPECT(status_is_agreed());
        EXPECT_EQ(count(status_message(), text), size - 1);
        EXPECT_EQ(count(status_message(), "from rank"), size - 1);
        EXPECT_FAILS(st, ERR_ENV, "a pattern copied between their memories came out wrong");
    }
    group->table = inner;
    comm_free(group);
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
    test_peers(host, host->size);
    if (host->size % 2 == 0) test_peers(host, 2);
    if (host->rank == 0) printf("mpi_hardware: %d ranks passed\n", host->size);
    comm_free(host);
    comm_finish(0);
    return 0;
}
