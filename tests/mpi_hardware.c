/* The checks of devices and of copies between ranks before a run: mpirun -n {1,2,3,4} mpi_hardware
 * ranks: 1 2 3 4
 * A backend that multiplies right passes, with every number of threads; one whose products have one
 * wrong bit on one rank is named on every rank. So is each copy that a rank receives with one wrong
 * bit, in one group of all ranks and in groups of two; copies that are wrong only while memory is
 * registered end no run. */
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
static bool registered; /* as if copies went from memory to memory, not through a library */

/* The last bit of what a transfer may have brought. */
static Status flip_received(Comm *c, CommTicket ticket, Stream *stream) {
    CHECK(inner->wait(c, ticket, stream));
    int64_t half = BUFFER_BYTES / 2 / 256 * 256;
    buffer[2 * half - 1] ^= 1;
    return OK;
}

static Status flip_while_registered(Comm *c, CommTicket ticket, Stream *stream) {
    return registered ? flip_received(c, ticket, stream) : inner->wait(c, ticket, stream);
}

static Status take_registration(Comm *c, void *base, int64_t bytes) {
    (void)c, (void)bytes;
    registered = base != NULL;
    return OK;
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) n++;
    return n;
}

/* Rank `bad` receives wrong copies while memory is registered, then also without. */
static void test_fallback(Comm *group, Comm *host, int bad) {
    CommTable right = *inner, wrong = *inner;
    right.register_buffer = wrong.register_buffer = take_registration;
    wrong.wait = flip_while_registered;
    group->table = bad == host->rank ? &wrong : &right;
    registered = true;
    EXPECT_OK(peers_check(cpu_ops(), group, host, buffer, BUFFER_BYTES, NULL));
    EXPECT(!registered);
    wrong.wait = flip_received;
    registered = true;
    Status st = peers_check(cpu_ops(), group, host, buffer, BUFFER_BYTES, NULL);
    EXPECT(!registered);
    EXPECT_FAILS(st, ERR_ENV, "came out wrong, directly and by NCCL");
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
    for (int bad = 0; bad < host->size && size > 1; bad++) test_fallback(group, host, bad);
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
