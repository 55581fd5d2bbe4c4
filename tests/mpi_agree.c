/* What all ranks must hold alike: mpirun -n {1,2,3,4} mpi_agree
 * ranks: 1 2 3 4
 * Weights, moments or state that differ by one bit on one rank are found and named, on every rank;
 * ZeRO changes no bit. What one rank works at for long is progress of all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/progress.h"
#include "base/rng.h"
#include "comm/agree.h"
#include "comm/work.h"
#include "health/agree.h"
#include "check.h"

static void expect_fails(Status st, Status code, const char *text) {
    EXPECT(status_is_agreed());
    EXPECT_FAILS(st, code, text);
}

/* On rank `bad` alone, one bit of the state. */
static void flip(Session *s, int bad, void *at) {
    if (s->rank == bad) *(unsigned char *)at ^= 0x10;
}

static void expect_named(Session *s, const TrainState *state, int bad, void *at, const char *name) {
    if (s->world == 1) return;
    char text[160], rank[80];
    flip(s, bad, at);
    snprintf(text, sizeof text, "step 7: the ranks no longer agree: the checksum of %s is ", name);
    /* Of two, nobody knows which one is wrong: rank 0's is as common, and comes first. */
    snprintf(rank, sizeof rank, "on rank %d, ", s->world == 2 ? 1 : bad);
    Status st = agree_weights(s, state);
    EXPECT(strstr(status_message(), rank) != NULL);
    expect_fails(st, ERR_ENV, text);
    flip(s, bad, at);
    EXPECT_OK(agree_weights(s, state));
}

static void weights_are_compared(const char *zero) {
    Config config = {0};
    Session s;
    char *overrides[] = {(char *)(uintptr_t)zero, (char *)(uintptr_t) "batch.global=24"};
    EXPECT_OK(config_load(&config, "tests/e2e/micro.yaml", 2, overrides));
    EXPECT_OK(session_open(&s, &config, NULL));
    EXPECT_OK(session_start(&s));
    EXPECT_OK(optimizer_init(s.optimizer, 1, s.stream));
    TrainState state = {.step = 7, .tokens = 1792, .guard = {.seen = 7}};
    EXPECT_OK(agree_weights(&s, &state));
    char *weights = llama_weights(s.llama);
    for (int i = 0; i < s.table->n_params; i += 3) {
        const Param *p = &s.table->params[i];
        int64_t last = p->offset + p->rows * p->cols - 1;
        expect_named(&s, &state, i % s.world, weights + p->offset * s.ops->act_bytes, p->name);
        expect_named(&s, &state, (i + 1) % s.world, weights + last * s.ops->act_bytes + 3, p->name);
    }
    expect_named(&s, &state, s.world - 1, &state.guard.losses[6], "the state of the run");
    if (!config.parallel.zero) {
        ParamPiece *own; /* every rank holds the moments of all */
        int n = param_table_pieces(s.table, 0, &own);
        expect_named(&s, &state, 0, optimizer_state(s.optimizer, OPTIM_V, &own[n - 1]),
                     "the second moments of model.norm.weight");
        free(own);
    }
    session_close(&s);
    config_free(&config);
}

/* A GPU of another name, or a CPU, on the last rank. */
static void devices_are_compared(void) {
    Comm *host;
    EXPECT_OK(comm_mpi_create(&host));
    GpuProperties a100 = {"NVIDIA A100-SXM4-80GB", 80, 163 << 10, ""};
    Ops h100 = {.name = "cuda", .device_name = gpu_h100.name, .gpu = &gpu_h100};
    Ops other = {.name = "cuda", .device_name = a100.name, .gpu = &a100};
    const Ops *others[] = {&other, cpu_ops()};
    const char *const found[] = {"cuda (NVIDIA A100-SXM4-80GB, compute capability 8.0)", "cpu"};
    int last = host->size - 1;
    EXPECT_OK(agree_device(host, &h100));
    EXPECT_OK(agree_device(host, cpu_ops()));
    for (int i = 0; i < 2 && last > 0; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "rank %d: the device differs from that of rank 0: found %s, expected cuda (H100, "
                 "compute capability 9.0); choose",
                 last, found[i]);
        expect_fails(agree_device(host, host->rank == last ? others[i] : &h100), ERR_USER, text);
    }
    comm_free(host);
}

static void texts_are_compared(void) {
    Comm *host;
    EXPECT_OK(comm_mpi_create(&host));
    bool last = host->rank == host->size - 1 && host->size > 1;
    EXPECT_OK(agree_text(host, "it", "a=1\nb=2\n"));
    EXPECT_OK(agree_text(host, "it", ""));
    char sentence[120];
    snprintf(sentence, sizeof sentence,
             "rank %d: it differs from that of rank 0: found b=3, "
             "expected b=2; start",
             host->size - 1);
    if (host->size > 1) {
        expect_fails(agree_text(host, "it", last ? "a=1\nb=3\n" : "a=1\nb=2\n"), ERR_USER,
                     sentence);
        expect_fails(agree_text(host, "it", last ? "a=1\n" : "a=1\nb=2\n"), ERR_USER,
                     "found nothing, expected b=2;");
        expect_fails(agree_text(host, "it", last ? "a=1\nb=2\nc" : "a=1\nb=2\n"), ERR_USER,
                     "found c, expected nothing;");
    }
    comm_free(host);
}

static Status forbidden(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream) {
    (void)c, (void)buf, (void)n, (void)t, (void)op, (void)stream;
    return status_fail(ERR_ENV, "an all-reduce adds in an order of its own");
}

/* Three updates with gradients that differ between ranks; the checksum of the weights. */
static uint32_t train_without_all_reduce(const char *zero) {
    Config config = {0};
    Session s;
    char *overrides[] = {(char *)(uintptr_t)zero, (char *)(uintptr_t) "batch.global=24"};
    EXPECT_OK(config_load(&config, "tests/e2e/micro.yaml", 2, overrides));
    EXPECT_OK(session_open(&s, &config, NULL));
    CommTable table = *s.comm.world->table;
    table.all_reduce = forbidden;
    s.comm.world->table = &table;
    EXPECT_OK(session_start(&s));
    EXPECT_OK(optimizer_init(s.optimizer, 1, s.stream));
    for (int step = 1; step <= 3; step++) {
        float *grads = llama_gradients(s.llama);
        for (int64_t i = 0; i < s.table->total; i++)
            grads[i] = (float)rng_normal((uint64_t)step, (uint64_t)s.rank, (uint64_t)i);
        for (int b = 0; b < s.table->n_buckets; b++)
            EXPECT_OK(optimizer_reduce_bucket(s.optimizer, b, s.stream));
        double norm;
        EXPECT_OK(optimizer_grad_norm(s.optimizer, &norm, s.stream));
        EXPECT_OK(optimizer_step(s.optimizer, step, 1e-3, 1 / norm, s.stream));
    }
    uint32_t crc;
    EXPECT_OK(optimizer_weights_crc(s.optimizer, s.comm.host, s.stream, &crc));
    session_close(&s);
    config_free(&config);
    return crc;
}

/* ZeRO reduces as training without it does, so that no order of sums can tell them apart. */
static void zero_changes_no_bit(void) {
    uint32_t on = train_without_all_reduce("parallel.zero=1");
    EXPECT(on == train_without_all_reduce("parallel.zero=0"));
}

/* On the last rank it takes a while, in small parts, and fails. */
static Status work_slowly(void *size) {
    enum { PARTS = 8, PART_NS = 30 * 1000 * 1000 };
    if (comm_world_rank() + 1 < *(int *)size) return OK;
    for (int i = 0; i < PARTS; i++) {
        nanosleep(&(struct timespec){.tv_nsec = PART_NS}, NULL);
        progress_note();
    }
    return status_fail(ERR_USER, "the last rank's work fails");
}

/* Every rank sees the progress of the one that works, and its failure. */
static void work_is_agreed_on(void) {
    Comm *host;
    EXPECT_OK(comm_mpi_create(&host));
    int size = comm_world_size(), larger = size + 1;
    int64_t before = progress_read().beats;
    expect_fails(comm_agree_on_work(host, "working", work_slowly, &size), ERR_USER,
                 size > 1 ? ": the last rank's work fails" : "the last rank's work fails");
    EXPECT(progress_read().beats >= before + 3);
    EXPECT(strcmp(progress_read().phase, "working") == 0);
    EXPECT_OK(comm_agree_on_work(host, "working", work_slowly, &larger));
    comm_free(host);
}

int main(void) {
    comm_start();
    work_is_agreed_on();
    texts_are_compared();
    devices_are_compared();
    weights_are_compared("parallel.zero=1");
    weights_are_compared("parallel.zero=0");
    zero_changes_no_bit();
    if (comm_world_rank() == 0) printf("mpi_agree: %d ranks passed\n", comm_world_size());
    comm_finish(0);
    return 0;
}
