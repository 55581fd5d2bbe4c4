/* gpu_comm.c: the NCCL backend against locally computed expectations: mpiexec -n {1,2,4,8}
 * gpu_comm, a GPU for each rank. `gpu_comm time` prints what transfers cost. */
#include "gpu.h"

#include "comm/comm.h"
#include "session/hardware.h"
#include "session/peers.h"

static const Ops *gpu;
static Stream *stream;

/* The registered buffer, which all buffers of groups lie in; NULL: each is allocated separately. */
static char *pool;
enum { POOL_BYTES = 128 << 20 };

static void *device_new(int64_t bytes) {
    void *p;
    if (pool != NULL) {
        EXPECT_EQ(bytes <= POOL_BYTES, true);
        return pool;
    }
    EXPECT_OK(gpu->mem_alloc(&p, bytes, "buffer of the test"));
    return p;
}

static void copy_now(void *dst, const void *src, int64_t bytes) {
    gpu->mem_copy(dst, src, bytes, stream);
    EXPECT_OK(gpu->stream_sync(stream));
}

/* Small integers, so that sums are exact in every type and order. */
static int64_t number(int rank, int64_t i) {
    return (int64_t)(rng_u64(3, (uint64_t)rank, (uint64_t)i) % 2001) - 1000;
}

static void put(void *buf, int64_t i, Dtype t, int64_t x) {
    if (t == DT_F32) ((float *)buf)[i] = (float)x;
    if (t == DT_F64) ((double *)buf)[i] = (double)x;
    if (t == DT_I64) ((int64_t *)buf)[i] = x;
    if (t == DT_I32) ((int32_t *)buf)[i] = (int32_t)x;
    if (t == DT_BF16) ((uint16_t *)buf)[i] = (uint16_t)x;
    if (t == DT_U8) ((uint8_t *)buf)[i] = (uint8_t)x;
}

static int64_t reduced(int size, int64_t i, CommOp op) {
    int64_t all = number(0, i);
    for (int r = 1; r < size; r++) {
        int64_t x = number(r, i);
        all = op == COMM_SUM ? all + x : op == COMM_MAX ? i64_max(all, x) : i64_min(all, x);
    }
    return all;
}

static void expect_bytes(const void *device, const void *want, int64_t bytes) {
    char *got = NEW(char, bytes);
    copy_now(got, device, bytes);
    EXPECT_EQ(memcmp(got, want, (size_t)bytes), 0);
    free(got);
}

static void test_collectives(Comm *c, int64_t n) {
    static const Dtype types[] = {DT_F32, DT_F64, DT_I64, DT_I32, DT_BF16, DT_U8};
    for (int k = 0; k < 6; k++) {
        Dtype t = types[k];
        int64_t total = n * c->size, width = dtype_bytes(t), own = c->rank * n;
        char *host = NEW(char, total *width), *want = NEW(char, total *width);
        char *buf = device_new(total * width);
        for (CommOp op = COMM_SUM; op <= COMM_MIN && k < 4; op++) {
            for (int64_t i = 0; i < total; i++) put(host, i, t, number(c->rank, i));
            for (int64_t i = 0; i < total; i++) put(want, i, t, reduced(c->size, i, op));
            copy_now(buf, host, total * width);
            EXPECT_OK(comm_all_reduce(c, buf, total, t, op, COMM_KIND_OTHER, stream));
            expect_bytes(buf, want, total * width);
            if (op != COMM_SUM) continue;
            copy_now(buf, host, total * width);
            EXPECT_OK(comm_reduce_scatter(c, buf, n, t, COMM_KIND_GRAD, stream));
            expect_bytes(buf + own * width, want + own * width, n * width);
        }
        for (int64_t i = 0; i < total; i++) put(want, i, t, number((int)(i / n), i));
        memset(host, 0, (size_t)(total * width));
        memcpy(host + own * width, want + own * width, (size_t)(n * width));
        copy_now(buf, host, total * width);
        EXPECT_OK(comm_all_gather(c, buf, n, t, COMM_KIND_PARAM, stream));
        expect_bytes(buf, want, total * width);
        int root = k % c->size;
        if (c->rank != root) gpu->mem_zero(buf, total * width, stream);
        EXPECT_OK(comm_broadcast(c, buf, total, t, root, stream));
        expect_bytes(buf, want, total * width);
        gpu->mem_free(buf);
        free(host);
        free(want);
    }
    EXPECT_OK(comm_barrier(c));
}

/* Groups in flight, more than the communicator has events for, each sending a row of `n` bytes to
 * every rank, itself too. What is sent is written on the stream just before and overwritten just
 * after the wait: the transfers must fall in between. */
static void test_groups(Comm *c, int64_t n) {
    enum { GROUPS = 40 };
    int64_t row = n * c->size, bytes = GROUPS * row;
    char *out = device_new(2 * bytes), *in = out + bytes, *host = NEW(char, bytes);
    char *want = NEW(char, bytes);
    CommTicket tickets[GROUPS];
    gpu->mem_zero(in, bytes, stream);
    for (int g = 0; g < GROUPS; g++) {
        for (int64_t i = 0; i < row; i++) host[g * row + i] = (char)(g + 3 * c->rank + 7 * i);
        gpu->mem_copy(out + g * row, host + g * row, row, stream);
        EXPECT_OK(comm_group_begin(c));
        for (int p = 0; p < c->size; p++) {
            EXPECT_OK(comm_send(c, out + g * row + p * n, n, DT_U8, p, COMM_KIND_KV));
            EXPECT_OK(comm_recv(c, in + g * row + p * n, n, DT_U8, p));
        }
        EXPECT_OK(comm_group_end(c, stream, &tickets[g]));
        EXPECT_EQ(tickets[g].id > 0, 1);
    }
    for (int g = GROUPS - 1; g >= 0; g--) {
        EXPECT_OK(comm_wait(c, tickets[g], stream));
        gpu->mem_zero(out + g * row, row, stream);
    }
    for (int g = 0; g < GROUPS; g++)
        for (int p = 0; p < c->size; p++)
            for (int64_t i = 0; i < n; i++)
                want[g * row + p * n + i] = (char)(g + 3 * p + 7 * (c->rank * n + i));
    expect_bytes(in, want, bytes);
    EXPECT_OK(comm_group_begin(c));
    EXPECT_OK(comm_group_end(c, stream, &tickets[0])); /* nothing in it, nothing to wait for */
    EXPECT_OK(comm_wait(c, tickets[0], stream));
    if (pool == NULL) gpu->mem_free(out);
    free(host);
    free(want);
}

/* Events around the next group that is not empty lie between the work before it and after it. */
static void test_trace(Comm *c, int64_t n) {
    char *out = device_new(n * c->size), *in = device_new(n * c->size);
    Event *at[4];
    CommTicket ticket;
    for (int i = 0; i < 4; i++) EXPECT_OK(gpu->event_create(&at[i]));
    gpu->mem_zero(out, n * c->size, stream);
    gpu->event_record(at[0], stream);
    c->table->trace(c, at[1], at[2]);
    EXPECT_OK(comm_group_begin(c));
    EXPECT_OK(comm_group_end(c, stream, &ticket));
    EXPECT_OK(comm_group_begin(c));
    for (int p = 0; p < c->size; p++) {
        EXPECT_OK(comm_send(c, out + p * n, n, DT_U8, p, COMM_KIND_KV));
        EXPECT_OK(comm_recv(c, in + p * n, n, DT_U8, p));
    }
    EXPECT_OK(comm_group_end(c, stream, &ticket));
    EXPECT_OK(comm_wait(c, ticket, stream));
    gpu->event_record(at[3], stream);
    EXPECT_OK(gpu->stream_sync(stream));
    EXPECT_EQ(gpu->event_ms(at[0], at[1]) >= 0, 1);
    EXPECT_EQ(gpu->event_ms(at[1], at[2]) > 0, 1);
    EXPECT_EQ(gpu->event_ms(at[2], at[3]) >= 0, 1);
    for (int i = 0; i < 4; i++) gpu->event_free(at[i]);
    gpu->mem_free(out);
    gpu->mem_free(in);
}

/* Groups of two messages that wait for a counter in device memory and set a flag as each message
 * arrives. The pool holds the send buffer, the receive buffer, {counter, two flags}. */
static void test_flags(Comm *c, int64_t n) {
    enum { ROUNDS = 3 };
    if (!c->has_flags) return;
    int left = (c->rank + c->size - 1) % c->size, right = (c->rank + 1) % c->size;
    uint8_t *host = NEW(uint8_t, n);
    char *out = pool, *in = pool + n;
    uint32_t *flags = (uint32_t *)(pool + round_up(2 * n, 4)), words[3] = {0};
    copy_now(flags, words, sizeof words);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        CommTicket ticket;
        for (int64_t i = 0; i < n; i++) host[i] = (uint8_t)number(c->rank + 100 * (int)round, i);
        gpu->mem_zero(in, n, stream);
        gpu->mem_zero(flags + 1, 8, stream);
        gpu->mem_upload(out, host, n, stream);
        gpu->mem_upload(flags, &round, 4, stream);
        EXPECT_OK(comm_group_begin(c));
        EXPECT_OK(comm_group_wait_value(c, flags, round));
        for (int64_t half = 0, begin = 0, end = n / 2; half < 2; half++, begin = end, end = n) {
            EXPECT_OK(comm_send(c, out + begin, end - begin, DT_U8, right, COMM_KIND_KV));
            EXPECT_OK(comm_recv(c, in + begin, end - begin, DT_U8, left));
            EXPECT_OK(comm_group_set_flag_on_recv(c, flags + 1 + half));
        }
        EXPECT_OK(comm_group_end(c, stream, &ticket));
        EXPECT_OK(comm_wait(c, ticket, stream));
        copy_now(host, in, n);
        copy_now(words, flags, sizeof words);
        for (int64_t i = 0; i < n; i++)
            EXPECT_EQ(host[i], (uint8_t)number(left + 100 * (int)round, i));
        EXPECT_EQ(words[0], round);
        EXPECT_EQ(words[1], 1);
        EXPECT_EQ(words[2], 1);
    }
    free(host);
}

/* cuda/comm_ipc.h */
extern int ipc_test_corrupt_rank;

/* Registering a buffer leaves its bytes as they were; where copies arrive corrupted, all ranks use
 * NCCL instead. */
static void test_corrupted_copies(Comm *c) {
    enum { WORDS = 8192 };
    int64_t *words = NEW(int64_t, WORDS), bytes = WORDS * (int64_t)sizeof *words;
    bool had_flags = c->has_flags;
    if (c->size == 1) return;
    for (int64_t i = 0; i < WORDS; i++) words[i] = number(c->rank, i);
    copy_now(pool, words, bytes);
    ipc_test_corrupt_rank = c->size - 1;
    EXPECT_OK(comm_register_buffer(c, pool, POOL_BYTES));
    expect_bytes(pool, words, bytes);
    EXPECT_EQ(c->has_flags, false);
    test_groups(c, 100003);
    ipc_test_corrupt_rank = -1;
    EXPECT_OK(comm_register_buffer(c, pool, POOL_BYTES));
    EXPECT_EQ(c->has_flags, had_flags);
    test_groups(c, 100003);
    free(words);
}

static void print_time(Comm *c, const char *what, int64_t bytes, double factor, int times,
                       double begin) {
    EXPECT_OK(gpu->stream_sync(stream));
    double ms = 1e3 * (time_now() - begin) / times;
    if (c->rank == 0)
        printf("%-16s %10lld bytes on %d ranks: %8.3f ms %7.1f GB/s\n", what, (long long)bytes,
               c->size, ms, 1e-6 * factor * (double)bytes / ms);
}

static void print_group_times(Comm *c) {
    int64_t most = POOL_BYTES / 2;
    char *buf = device_new(2 * most);
    int left = (c->rank + c->size - 1) % c->size, right = (c->rank + 1) % c->size;
    for (int64_t bytes = 1 << 18; bytes <= most; bytes <<= 4) {
        double begin = 0;
        for (int i = -3; i < 20; i++) {
            CommTicket ticket;
            if (i == 0) EXPECT_OK(gpu->stream_sync(stream));
            if (i == 0) begin = time_now();
            EXPECT_OK(comm_group_begin(c));
            EXPECT_OK(comm_recv(c, buf + most, bytes, DT_U8, left));
            EXPECT_OK(comm_send(c, buf, bytes, DT_U8, right, COMM_KIND_KV));
            EXPECT_OK(comm_group_end(c, stream, &ticket));
            EXPECT_OK(comm_wait(c, ticket, stream));
        }
        print_time(c, pool != NULL ? "ring, direct" : "ring, NCCL", bytes, 1, 20, begin);
    }
    if (pool == NULL) gpu->mem_free(buf);
}

/* A device that adds up its product wrongly: without its last word. */
static void wrong_checksum(uint64_t *out, const void *x, int64_t bytes, Stream *s) {
    gpu->checksum(out, x, bytes - 8, s);
}

static void test_hardware_check(Comm *host) {
    Ops wrong = *gpu;
    wrong.checksum = wrong_checksum;
    double begin = time_now();
    EXPECT_OK(hardware_check(gpu, host));
    if (host->rank == 0) printf("check of the hardware in %.2f s\n", time_now() - begin);
    for (int bad = 0; bad < host->size; bad++) {
        char text[32];
        snprintf(text, sizeof text, "rank %d on node ", bad);
        EXPECT_FAILS(hardware_check(bad == host->rank ? &wrong : gpu, host), ERR_ENV, text);
    }
}

static const Comm *watched; /* whose copies are wrong while its memory is registered */

static void wrong_while_direct(uint64_t *out, const void *x, int64_t bytes, Stream *s) {
    bool direct = false;
    for (int r = 0; r < watched->size; r++)
        direct |= r != watched->rank && comm_is_direct(watched, r);
    gpu->checksum(out, x, bytes - (direct ? 8 : 0), s);
}

/* What rank `bad` receives is right by NCCL only: no rank copies directly from there on. */
static void test_fallback(Ops *wrong, Comm *group, Comm *host, int bad) {
    watched = group;
    wrong->checksum = wrong_while_direct;
    EXPECT_OK(peers_check(bad == host->rank ? wrong : gpu, group, host, pool, POOL_BYTES, stream));
    wrong->checksum = wrong_checksum;
    EXPECT(!group->has_flags);
    for (int r = 0; r < group->size; r++) EXPECT(!comm_is_direct(group, r));
    EXPECT_OK(comm_register_buffer(group, pool, POOL_BYTES));
}

/* In the registered pool. Ranks may share a GPU: slow pairs are no failure. */
static void test_peers_check(Comm *group, Comm *host) {
    Ops wrong = *gpu;
    wrong.checksum = wrong_checksum;
    double begin = time_now();
    EXPECT_OK(peers_check(gpu, group, host, pool, POOL_BYTES, stream));
    if (host->rank == 0) printf("check of copies in %.2f s\n", time_now() - begin);
    bool direct = false;
    for (int r = 0; r < group->size; r++) direct |= r != group->rank && comm_is_direct(group, r);
    for (int bad = 0; bad < host->size; bad++) {
        char text[32];
        int32_t expected = direct && bad == host->rank;
        EXPECT_OK(comm_all_reduce(host, &expected, 1, DT_I32, COMM_MAX, COMM_KIND_OTHER, NULL));
        snprintf(text, sizeof text, "rank %d from rank ", bad);
        Status st =
            peers_check(bad == host->rank ? &wrong : gpu, group, host, pool, POOL_BYTES, stream);
        if (expected)
            EXPECT_FAILS(st, ERR_ENV, text);
        else
            EXPECT_OK(st);
        EXPECT_OK(comm_register_buffer(group, pool, POOL_BYTES));
        if (expected) test_fallback(&wrong, group, host, bad);
    }
}

static void print_times(Comm *c) {
    int64_t most = 1 << 30;
    char *buf = device_new(2 * most);
    double share = (double)(c->size - 1) / c->size;
    gpu->mem_zero(buf, 2 * most, stream);
    for (int64_t bytes = 1 << 20; bytes <= most && c->size > 1; bytes <<= 5) {
        int64_t part = bytes / 4 / c->size;
        for (int what = 0; what < 3; what++) {
            static const char *const names[] = {"all_reduce", "reduce_scatter", "all_gather"};
            double begin = 0;
            for (int i = -3; i < 10; i++) {
                if (i == 0) EXPECT_OK(gpu->stream_sync(stream));
                if (i == 0) begin = time_now();
                EXPECT_OK(what == 0 ? comm_all_reduce(c, buf, bytes / 4, DT_F32, COMM_SUM,
                                                      COMM_KIND_OTHER, stream)
                          : what == 1
                              ? comm_reduce_scatter(c, buf, part, DT_F32, COMM_KIND_GRAD, stream)
                              : comm_all_gather(c, buf, part, DT_F32, COMM_KIND_PARAM, stream));
            }
            print_time(c, names[what], bytes, what == 0 ? 2 * share : share, 10, begin);
        }
    }
    gpu->mem_free(buf);
    print_group_times(c);
}

int main(int argc, char **argv) {
    CommSet set;
    comm_start();
    gpu_open_ranks(&gpu);
    EXPECT_OK(gpu->stream_create(gpu, &stream));
    int rank = comm_world_rank(), size = comm_world_size();
    for (int cp = 1; cp <= size; cp *= 2) {
        if (size % cp != 0) continue;
        double begin = time_now();
        EXPECT_OK(comm_open(&set, gpu, cp));
        if (rank == 0) printf("cp=%d: communicators in %.2f s\n", cp, time_now() - begin);
        EXPECT_EQ(set.cp->rank, rank % cp);
        if (cp == 1) test_hardware_check(set.host);
        Comm *comms[] = {set.world, set.cp};
        for (int i = 0; i < 2; i++) {
            test_collectives(comms[i], 1);
            test_collectives(comms[i], 4099);
            test_groups(comms[i], 1);
            test_groups(comms[i], 100003);
            if (comms[i]->table->trace != NULL) test_trace(comms[i], 1 << 20);
        }
        if (cp == size) test_collectives(set.world, (1 << 20) + 5);
        if (cp == size && argc > 1 && strcmp(argv[1], "time") == 0) print_times(set.world);
        EXPECT_OK(gpu->stream_sync(stream));
        comm_close(&set);
        EXPECT_OK(comm_open(&set, gpu, cp));
        EXPECT_OK(gpu->mem_alloc((void **)&pool, POOL_BYTES, "pool of the test"));
        EXPECT_OK(comm_register_buffer(set.cp, pool, POOL_BYTES));
        test_groups(set.cp, 1);
        test_groups(set.cp, 100003);
        test_flags(set.cp, 5);
        test_flags(set.cp, 3000001);
        test_peers_check(set.cp, set.host);
        if (cp == size) test_corrupted_copies(set.cp);
        if (cp == size && argc > 1 && strcmp(argv[1], "time") == 0) print_group_times(set.cp);
        comm_close(&set);
        gpu->mem_free(pool);
        pool = NULL;
    }
    gpu->stream_free(stream);
    comm_finish(0);
    if (rank == 0) puts("gpu_comm: ok");
    return 0;
}
