/* The MPI backend against locally computed expectations: mpirun -n {1,2,3,4,8} mpi_comm
 * `mpi_comm abort` instead ends the job from its last rank: mpirun must return 3, and at once.
 * `mpi_comm time` prints what collectives cost. */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "comm/comm.h"
#include "comm/shared.h"
#include "base/rng.h"

static const Dtype all_types[] = {DT_F32, DT_BF16, DT_F64, DT_I64, DT_I32, DT_U8};
static const Dtype sum_types[] = {DT_F32, DT_F64, DT_I64, DT_I32};
enum { ALL_TYPES = 6, SUM_TYPES = 4 };

/* A function of the indices alone, so that any rank can compute what any other holds. */
static void fill_bytes(void *buf, int64_t bytes, uint64_t who) {
    for (int64_t i = 0; i < bytes; i += 8) {
        uint64_t word = checksum_mix(who, i);
        memcpy((char *)buf + i, &word, (size_t)i64_min(8, bytes - i));
    }
}

/* Numbers of many magnitudes, so that the order of a sum shows in its bits. */
static void fill_numbers(void *buf, int64_t n, Dtype t, int rank) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = checksum_mix((uint64_t)rank + 1, i);
        double x = ((double)(bits >> 11) * 0x1p-53 - 0.5) * (double)(1 << bits % 24);
        if (t == DT_F32)
            ((float *)buf)[i] = (float)x;
        else if (t == DT_F64)
            ((double *)buf)[i] = x;
        else if (t == DT_I64)
            ((int64_t *)buf)[i] = (int64_t)(x * 1e9);
        else
            ((int32_t *)buf)[i] = (int32_t)x;
    }
}

/* The reduction in rank order of what fill_numbers gives every rank. */
static void expect_reduced(void *out, int64_t n, Dtype t, CommOp op, int size) {
    char *other = NEW(char, n * 8);
    fill_numbers(out, n, t, 0);
    for (int r = 1; r < size; r++) {
        fill_numbers(other, n, t, r);
#define REDUCED(type)                                                                              \
    for (int64_t i = 0; i < n; i++) {                                                              \
        type a = ((type *)out)[i], b = ((type *)other)[i];                                         \
        ((type *)out)[i] = op == COMM_SUM   ? a + b                                                \
                           : op == COMM_MAX ? (a > b ? a : b)                                      \
                                            : (a < b ? a : b);                                     \
    }
        if (t == DT_F32) REDUCED(float)
        if (t == DT_F64) REDUCED(double)
        if (t == DT_I64) REDUCED(int64_t)
        if (t == DT_I32) REDUCED(int32_t)
#undef REDUCED
    }
    free(other);
}

static void test_reductions(Comm *c, int64_t n) {
    for (int i = 0; i < SUM_TYPES; i++) {
        Dtype t = sum_types[i];
        int64_t total = n * c->size, width = dtype_bytes(t);
        char *buf = NEW(char, total *width), *expected = NEW(char, total *width);
        for (CommOp op = COMM_SUM; op <= COMM_MIN; op++) {
            fill_numbers(buf, n, t, c->rank);
            expect_reduced(expected, n, t, op, c->size);
            EXPECT_OK(comm_all_reduce(c, buf, n, t, op, COMM_KIND_OTHER, NULL));
            EXPECT_BYTES(buf, expected, n * width);
        }
        /* What ZeRO does in place of an all-reduce gives the bits of the all-reduce. */
        fill_numbers(buf, total, t, c->rank);
        expect_reduced(expected, total, t, COMM_SUM, c->size);
        EXPECT_OK(comm_reduce_scatter(c, buf, n, t, COMM_KIND_GRAD, NULL));
        EXPECT_BYTES(buf + c->rank * n * width, expected + c->rank * n * width, n * width);
        EXPECT_OK(comm_all_gather(c, buf, n, t, COMM_KIND_PARAM, NULL));
        EXPECT_BYTES(buf, expected, total * width);
        fill_numbers(buf, total, t, c->rank);
        EXPECT_OK(comm_all_reduce(c, buf, total, t, COMM_SUM, COMM_KIND_OTHER, NULL));
        EXPECT_BYTES(buf, expected, total * width);
        free(buf);
        free(expected);
    }
}

static void test_moves(Comm *c, int64_t n) {
    for (int i = 0; i < ALL_TYPES; i++) {
        int64_t bytes = n * dtype_bytes(all_types[i]);
        char *buf = NEW(char, bytes * c->size), *expected = NEW(char, bytes);
        fill_bytes(buf + c->rank * bytes, bytes, (uint64_t)c->rank);
        EXPECT_OK(comm_all_gather(c, buf, n, all_types[i], COMM_KIND_OTHER, NULL));
        for (int r = 0; r < c->size; r++) {
            fill_bytes(expected, bytes, (uint64_t)r);
            EXPECT_BYTES(buf + r * bytes, expected, bytes);
        }
        int root = i % c->size;
        fill_bytes(buf, bytes, (uint64_t)(c->rank == root ? 77 : 78));
        fill_bytes(expected, bytes, 77);
        EXPECT_OK(comm_broadcast(c, buf, n, all_types[i], root, NULL));
        EXPECT_BYTES(buf, expected, bytes);
        free(buf);
        free(expected);
    }
    EXPECT_OK(comm_barrier(c));
}

/* Several groups in flight, each with messages between random pairs, some to oneself, some empty,
 * some long, waited for in random order with collectives in between. */
enum { GROUPS = 4, MESSAGES = 24 };

static uint64_t draw(uint64_t round, uint64_t group, uint64_t message, uint64_t what,
                     uint64_t below) {
    return rng_u64(4 + what, rng_stream(RNG_TEST, round), group * MESSAGES + message) % below;
}

static int64_t draw_count(uint64_t round, uint64_t group, uint64_t message) {
    uint64_t shape = draw(round, group, message, 0, 40);
    if (shape == 0) return (2 << 20) + 3; /* more than one MPI message for every type but u8 */
    if (shape < 4) return 0;
    return (int64_t)draw(round, group, message, 1, shape < 20 ? 100 : 20000);
}

static void test_groups(Comm *c, uint64_t round) {
    char *sent[GROUPS][MESSAGES] = {0}, *received[GROUPS][MESSAGES] = {0};
    CommTicket tickets[GROUPS];
    for (uint64_t g = 0; g < GROUPS; g++) {
        EXPECT_OK(comm_group_begin(c));
        for (uint64_t m = 0; m < MESSAGES; m++) {
            int from = (int)draw(round, g, m, 2, (uint64_t)c->size);
            int to = (int)draw(round, g, m, 3, (uint64_t)c->size);
            Dtype t = all_types[draw(round, g, m, 4, ALL_TYPES)];
            int64_t n = draw_count(round, g, m), bytes = n * dtype_bytes(t);
            if (from == c->rank) {
                sent[g][m] = NEW(char, bytes);
                fill_bytes(sent[g][m], bytes, g * MESSAGES + m);
                EXPECT_OK(comm_send(c, sent[g][m], n, t, to, COMM_KIND_KV));
            }
            if (to == c->rank) {
                received[g][m] = NEW(char, bytes);
                EXPECT_OK(comm_recv(c, received[g][m], n, t, from));
            }
        }
        EXPECT_OK(comm_group_end(c, NULL, &tickets[g]));
    }
    for (uint64_t i = 0; i < GROUPS; i++) {
        uint64_t g = rng_permute(GROUPS, 5, rng_stream(RNG_TEST, round), i);
        if (i == 1) test_reductions(c, 5);
        EXPECT_OK(comm_wait(c, tickets[g], NULL));
        for (uint64_t m = 0; m < MESSAGES; m++) {
            if (received[g][m] == NULL) continue;
            int64_t bytes =
                draw_count(round, g, m) * dtype_bytes(all_types[draw(round, g, m, 4, ALL_TYPES)]);
            char *expected = NEW(char, bytes);
            fill_bytes(expected, bytes, g * MESSAGES + m);
            EXPECT_BYTES(received[g][m], expected, bytes);
            free(expected);
        }
        EXPECT_OK(comm_wait(c, tickets[g], NULL)); /* again: nothing to wait for */
    }
    for (int g = 0; g < GROUPS; g++) {
        for (int m = 0; m < MESSAGES; m++) {
            free(sent[g][m]);
            free(received[g][m]);
        }
    }
}

/* The caller makes no MPI call until the last byte of 64 MB from its neighbour is there, which
 * would never be without progress beside it. */
static void test_progress_without_the_caller(Comm *c) {
    int64_t n = 64 << 20;
    char *from = NEW(char, n), *to = NEW(char, n);
    memset(from, 1 + c->rank, (size_t)n);
    int left = (c->rank + c->size - 1) % c->size;
    CommTicket ticket;
    EXPECT_OK(comm_barrier(c));
    EXPECT_OK(comm_group_begin(c));
    EXPECT_OK(comm_recv(c, to, n, DT_U8, left));
    EXPECT_OK(comm_send(c, from, n, DT_U8, (c->rank + 1) % c->size, COMM_KIND_KV));
    double begin = time_now();
    EXPECT_OK(comm_group_end(c, NULL, &ticket));
    double posted = time_now(), sum = 0;
    while (__atomic_load_n(&to[n - 1], __ATOMIC_RELAXED) == 0 && time_now() - posted < 300)
        for (int i = 0; i < 20000; i++) sum += sqrt(i);
    double arrived = time_now();
    EXPECT_EQ(to[n - 1], 1 + left);
    EXPECT_OK(comm_wait(c, ticket, NULL));
    double waited = time_now();
    EXPECT_EQ(memchr(to, 1 + left, (size_t)n) == to && memcmp(to, to + 1, (size_t)n - 1) == 0, 1);
    if (c->rank == 0)
        printf(
            "64 MB beside the caller: post %.1f ms, there after %.0f ms (sum %.0e), wait %.1f ms\n",
            1e3 * (posted - begin), 1e3 * (arrived - posted), sum, 1e3 * (waited - arrived));
    free(from);
    free(to);
}

static void test_disagreeing_lengths_are_errors(Comm *c) {
    for (int longer = 0; longer < 2 && c->size > 1; longer++) {
        char buf[64] = {0};
        CommTicket ticket;
        EXPECT_OK(comm_group_begin(c));
        if (c->rank == 0) EXPECT_OK(comm_send(c, buf, longer ? 64 : 16, DT_U8, 1, COMM_KIND_KV));
        if (c->rank == 1) EXPECT_OK(comm_recv(c, buf, 32, DT_U8, 0));
        Status st = comm_group_end(c, NULL, &ticket);
        if (st == OK) st = comm_wait(c, ticket, NULL);
        EXPECT_EQ(st, c->rank == 1 ? ERR_ENV : OK);
        if (c->rank == 1) EXPECT_EQ(strstr(status_message(), "from rank 0") != NULL, 1);
        status_clear();
        EXPECT_OK(comm_barrier(c));
    }
}

static void expect_agreed(Comm *host, Status mine, Status agreed, const char *message) {
    EXPECT_EQ(comm_agree(host, mine), agreed);
    EXPECT(strcmp(status_message(), message) == 0, "expected '%s', found", message);
    status_clear();
}

/* A failure of one rank alone, after one that all had and recovered from. */
static void test_agreed_failure_is_the_last_one(Comm *host) {
    Status st = comm_agree(host, status_fail(ERR_ENV, "no disk"));
    EXPECT_EQ(st == ERR_ENV && status_is_agreed(), 1);
    EXPECT_OK(status_ignore(st));
    EXPECT_EQ(status_fail(ERR_ENV, "no memory"), ERR_ENV);
    EXPECT_EQ(status_is_agreed(), 0);
    status_clear();
}

static void test_agreement(Comm *host) {
    int last = host->size - 1;
    bool is_last = host->rank == last;
    char message[64];
    expect_agreed(host, OK, OK, "");
    expect_agreed(host, status_fail(ERR_USER, "rank %d says so", host->rank), ERR_USER,
                  "rank 0 says so");
    if (last > 0) {
        snprintf(message, sizeof message, "rank %d: no disk", last);
        expect_agreed(host, is_last ? status_fail(ERR_ENV, "no disk") : OK, ERR_ENV, message);
        snprintf(message, sizeof message, "rank %d: signal", last);
        expect_agreed(host, is_last ? status_fail(ERR_STOPPED, "signal") : OK, ERR_STOPPED,
                      message);
        /* the code and the message belong together, though rank 0 has failed as well */
        expect_agreed(
            host, is_last ? status_fail(ERR_ENV, "no disk") : status_fail(ERR_STOPPED, "signal"),
            ERR_ENV, "no disk");
    }
    EXPECT_OK(comm_agree_equal(host, 1234567890123456789u, "the configuration"));
    EXPECT_EQ(comm_agree_equal(host, is_last ? 7 : 8, "the configuration"),
              host->size > 1 ? ERR_ENV : OK);
    snprintf(message, sizeof message, "7 on rank %d;", last);
    if (last > 0) {
        EXPECT_EQ(strstr(status_message(), "the configuration differs") != NULL, 1);
        EXPECT_EQ(strstr(status_message(), message) != NULL, 1);
    }
    status_clear();
}

static void test_set(int cp) {
    Ops ops = {.host_memory = true};
    CommSet set;
    int rank = comm_world_rank(), size = comm_world_size();
    EXPECT_OK(comm_open(&set, &ops, cp));
    EXPECT_EQ(set.host->rank, rank);
    EXPECT_EQ(set.world->size, size);
    EXPECT_EQ(set.cp->size, cp);
    EXPECT_EQ(set.cp->rank, rank % cp);
    EXPECT_EQ(comm_local_rank(), rank); /* the tests run on one host */
    int64_t members = rank;
    EXPECT_OK(comm_all_reduce(set.cp, &members, 1, DT_I64, COMM_MIN, COMM_KIND_OTHER, NULL));
    EXPECT_EQ(members, rank / cp * cp);
    comm_close(&set);
}

static void test_bytes_are_counted(Comm *c) {
    float buf[64] = {0};
    CommTicket ticket;
    memset(c->bytes_sent, 0, sizeof c->bytes_sent);
    EXPECT_OK(comm_reduce_scatter(c, buf, 8, DT_F32, COMM_KIND_GRAD, NULL));
    EXPECT_OK(comm_all_gather(c, buf, 8, DT_BF16, COMM_KIND_PARAM, NULL));
    EXPECT_OK(comm_all_reduce(c, buf, 3 * c->size, DT_F32, COMM_SUM, COMM_KIND_OTHER, NULL));
    EXPECT_OK(comm_all_reduce(c, buf, c->size, DT_F32, COMM_SUM, COMM_KIND_GRAD, NULL));
    EXPECT_OK(comm_group_begin(c));
    EXPECT_OK(comm_recv(c, buf, 5, DT_F32, (c->rank + c->size - 1) % c->size));
    EXPECT_OK(comm_send(c, buf + 32, 5, DT_F32, (c->rank + 1) % c->size, COMM_KIND_DKV));
    EXPECT_OK(comm_group_end(c, NULL, &ticket));
    EXPECT_OK(comm_wait(c, ticket, NULL));
    EXPECT_EQ(c->bytes_sent[COMM_KIND_GRAD], 40 * (c->size - 1));
    EXPECT_EQ(c->bytes_sent[COMM_KIND_PARAM], 16 * (c->size - 1));
    EXPECT_EQ(c->bytes_sent[COMM_KIND_OTHER], 24 * (c->size - 1));
    EXPECT_EQ(c->bytes_sent[COMM_KIND_DKV], c->size > 1 ? 20 : 0);
    EXPECT_EQ(c->bytes_sent[COMM_KIND_KV], 0);
}

/* Names of shared memory, which would outlive ranks that are killed. Other jobs' come and go. */
static int count_names(void) {
    int n = 0;
    for (int tries = 0; tries < 5000 && (tries == 0 || n > 0); tries++) {
        if (tries > 0) usleep(20000);
        DIR *folder = opendir("/dev/shm");
        EXPECT_EQ(folder != NULL, 1);
        n = 0;
        for (struct dirent *e; (e = readdir(folder)) != NULL;)
            n += strncmp(e->d_name, "cria-", 5) == 0;
        closedir(folder);
    }
    return n;
}

static void expect_words(const uint64_t *words, int64_t n) {
    for (int64_t i = 0; i < n; i++) EXPECT_EQ(words[i], checksum_mix(5, i));
}

/* The ranks of the tests are on one machine. */
static void test_shared_memory(Comm *c) {
    enum { WORDS = 100003 };
    void *memory;
    bool *here = NEW(bool, c->size);
    EXPECT_OK(comm_shared_open(&memory, WORDS * 8, here, c));
    EXPECT_EQ(memory != NULL, 1);
    uint64_t *words = memory;
    for (int r = 0; r < c->size; r++) EXPECT_EQ(here[r], 1);
    for (int64_t i = 0; i < WORDS; i++) EXPECT_EQ(words[i], 0);
    EXPECT_OK(comm_barrier(c));
    for (int64_t i = c->rank; i < WORDS; i += c->size) words[i] = checksum_mix(5, i);
    EXPECT_OK(comm_barrier(c));
    expect_words(words, WORDS);
    EXPECT_EQ(count_names(), 0);
    if (c->rank == 0) comm_shared_close(memory, WORDS * 8); /* the others still have it */
    EXPECT_OK(comm_barrier(c));
    if (c->rank != 0) expect_words(words, WORDS);
    if (c->rank != 0) comm_shared_close(memory, WORDS * 8);
    free(here);
}

/* Opens with a limit of this process lowered, or none (-1). What there is must be had by the ranks
 * below `attached`, who know of each other, and by no other. */
static void expect_shared(Comm *c, int limited, rlim_t limit, int64_t bytes, int attached) {
    void *memory = c; /* whatever */
    bool *here = NEW(bool, c->size);
    struct rlimit old, low;
    if (limited >= 0) {
        EXPECT_EQ(getrlimit((unsigned)limited, &old), 0);
        low = (struct rlimit){limit, old.rlim_max};
        EXPECT_EQ(setrlimit((unsigned)limited, &low), 0);
    }
    EXPECT_OK(comm_shared_open(&memory, bytes, here, c));
    if (limited >= 0) EXPECT_EQ(setrlimit((unsigned)limited, &old), 0);
    EXPECT_EQ(memory != NULL, c->rank < attached);
    for (int r = 0; r < c->size; r++) EXPECT_EQ(here[r], c->rank < attached && r < attached);
    comm_shared_close(memory, bytes);
    EXPECT_EQ(count_names(), 0);
    EXPECT_OK(comm_barrier(c));
    free(here);
}

static void test_no_shared_memory(Comm *c) {
    int last = c->size - 1;
    expect_shared(c, -1, 0, (int64_t)1 << 45, 0); /* more than there is */
    void (*old)(int) = signal(SIGXFSZ, SIG_IGN);
    expect_shared(c, c->rank == 0 ? RLIMIT_FSIZE : -1, 4096, 1 << 20, 0); /* rank 0 would make it */
    signal(SIGXFSZ, old);
    if (last > 0) expect_shared(c, c->rank == last ? RLIMIT_NOFILE : -1, 0, 1 << 20, last);
}

static void print_times(Comm *c) {
    static const int64_t counts[] = {1, 1 << 10, 1 << 18, 1 << 22};
    float *buf = NEW(float, 1 << 22);
    for (int i = 0; i < 4; i++) {
        int times = i < 2 ? 200 : 10;
        EXPECT_OK(comm_all_reduce(c, buf, counts[i], DT_F32, COMM_SUM, COMM_KIND_OTHER, NULL));
        double begin = time_now();
        for (int k = 0; k < times; k++)
            EXPECT_OK(comm_all_reduce(c, buf, counts[i], DT_F32, COMM_SUM, COMM_KIND_OTHER, NULL));
        if (c->rank == 0)
            printf("all_reduce of %lld floats on %d ranks: %.3f ms\n", (long long)counts[i],
                   c->size, 1e3 * (time_now() - begin) / times);
    }
    for (int64_t n = 256; n <= 1 << 20; n <<= 6) { /* the steps of a ring */
        double begin = time_now();
        for (int k = 0; k < 50; k++) {
            CommTicket ticket;
            EXPECT_OK(comm_group_begin(c));
            EXPECT_OK(comm_recv(c, buf, n, DT_F32, (c->rank + c->size - 1) % c->size));
            EXPECT_OK(
                comm_send(c, buf + (1 << 21), n, DT_F32, (c->rank + 1) % c->size, COMM_KIND_KV));
            EXPECT_OK(comm_group_end(c, NULL, &ticket));
            EXPECT_OK(comm_wait(c, ticket, NULL));
        }
        if (c->rank == 0)
            printf("ring step of %lld floats on %d ranks: %.3f ms\n", (long long)n, c->size,
                   1e3 * (time_now() - begin) / 50);
    }
    free(buf);
}

int main(int argc, char **argv) {
    Comm *c = NULL;
    comm_start();
    EXPECT_OK(comm_mpi_create(&c));
    int rank = c->rank;
    if (argc > 1 && strcmp(argv[1], "time") == 0) {
        print_times(c);
    } else if (argc > 1 && strcmp(argv[1], "abort") == 0) {
        if (rank == c->size - 1) comm_abort(3);
        EXPECT_OK(comm_barrier(c)); /* which the last rank never enters */
    } else {
        static const int64_t counts[] = {0, 1, 7, 4099};
        for (int i = 0; i < 4; i++) {
            test_reductions(c, counts[i]);
            test_moves(c, counts[i]);
        }
        /* longer than one MPI message and than one pass of the reduction, for the block of a rank
         */
        test_moves(c, (1 << 19) + 5);
        test_reductions(c, (1 << 20) / c->size + 5);
        for (uint64_t round = 0; round < 4; round++) test_groups(c, round);
        test_progress_without_the_caller(c);
        test_disagreeing_lengths_are_errors(c);
        test_agreement(c);
        test_agreed_failure_is_the_last_one(c);
        for (int cp = 1; cp <= c->size; cp++)
            if (c->size % cp == 0) test_set(cp);
        test_bytes_are_counted(c);
        test_shared_memory(c);
        test_no_shared_memory(c);
    }
    comm_free(c);
    comm_finish(0);
    if (rank == 0) puts("ok");
    return 0;
}
