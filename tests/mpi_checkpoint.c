/* One file from many ranks; ranks: 1 2 3 4 8
 * However the tensors are cut and dealt to the ranks, the file is, byte for byte, the one that a
 * world of one writes; every rank reads any range of it; a failure on one rank fails on all and
 * leaves the earlier file. Whether checkpoint_save() or a thread writes does not show. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "ckpt/checkpoint.h"
#include "base/rng.h"

enum { N_TENSORS = 4, ROUNDS = 4 };
static const SafeTensor tensors[N_TENSORS] = {
    {.name = "model.embed_tokens.weight", .dtype = DT_F32, .ndim = 2, .shape = {1021, 1201}},
    {.name = "model.norm.weight", .dtype = DT_BF16, .ndim = 1, .shape = {67}},
    {.name = "nothing", .dtype = DT_F64, .ndim = 2, .shape = {3, 0}},
    {.name = "optim.m.model.norm.weight", .dtype = DT_U8, .ndim = 1, .shape = {301}},
};
static const CkptEntry entries[] = {{"step", "7"}};

static uint64_t draw(uint64_t *counter, int64_t n) {
    return rng_u64(7, rng_stream(RNG_TEST, 1), (*counter)++) % (uint64_t)n;
}

static unsigned char *tensor_bytes(int i) {
    int64_t n = safetensors_count(&tensors[i]) * dtype_bytes(tensors[i].dtype);
    unsigned char *bytes = NEW(unsigned char, n);
    for (int64_t at = 0; at < n; at += 8) {
        uint64_t word = rng_u64(1, rng_stream(RNG_TEST, (uint64_t)i + 2), (uint64_t)at);
        memcpy(bytes + at, &word, (size_t)i64_min(8, n - at));
    }
    return bytes;
}

/* Cuts every tensor at random places and deals the pieces at random: the same on every rank, which
 * takes its own. Each piece is a copy of exactly its bytes. */
static CkptPiece *deal_pieces(unsigned char *const bytes[], uint64_t round, const Comm *c, int *n) {
    CkptPiece *pieces = NULL;
    uint64_t counter = round << 32;
    *n = 0;
    for (int i = 0; i < N_TENSORS; i++) {
        int64_t count = safetensors_count(&tensors[i]), size = dtype_bytes(tensors[i].dtype);
        for (int64_t begin = 0; begin < count;) {
            int64_t longest = 1 + count / (1 + (int64_t)draw(&counter, 4 * c->size));
            int64_t len = i64_min(count - begin, 1 + (int64_t)draw(&counter, longest));
            if ((int)draw(&counter, c->size) == c->rank) {
                void *copy = mem_new(len, (size_t)size);
                memcpy(copy, bytes[i] + begin * size, (size_t)(len * size));
                pieces = mem_grow(pieces, *n + 1, sizeof *pieces);
                pieces[(*n)++] = (CkptPiece){i, begin, len, copy};
            }
            begin += len;
        }
    }
    return pieces;
}

typedef struct {
    CkptSave *save;
    const CkptPiece *pieces;
    int n;
    Status status;
    char *sentence;
} Writing;

static void *write_all(void *arg) {
    Writing *w = arg;
    for (int i = 0; i < w->n && w->status == OK; i++)
        w->status = checkpoint_write(w->save, &w->pieces[i]);
    if (w->status == OK) w->status = checkpoint_flush(w->save);
    w->sentence = mem_strdup(status_message());
    return NULL;
}

/* checkpoint_save() step by step, its writes on a thread while this one communicates. */
static Status save_beside(const char *path, const CkptPiece *pieces, int n, Comm *c,
                          int64_t *size) {
    Writing w = {.pieces = pieces, .n = n};
    pthread_t thread;
    CHECK(checkpoint_begin(&w.save, path, tensors, N_TENSORS, entries, 1, c));
    EXPECT_EQ(pthread_create(&thread, NULL, write_all, &w), 0);
    for (int i = 0; i < 100; i++) EXPECT_OK(comm_barrier(c));
    EXPECT_EQ(pthread_join(thread, NULL), 0);
    if (w.status != OK) status_fail(w.status, "%s", w.sentence);
    Status st = comm_agree(c, w.status);
    if (st == OK) st = checkpoint_gather(w.save, c);
    if (st == OK) st = comm_agree(c, c->rank == 0 ? checkpoint_publish(w.save) : OK);
    *size = checkpoint_size(w.save);
    checkpoint_end(w.save);
    free(w.sentence);
    return st;
}

static Status save_dealt(const char *path, unsigned char *const bytes[], uint64_t round, Comm *c,
                         int64_t *size) {
    int n;
    CkptPiece *pieces = deal_pieces(bytes, round, c, &n);
    Status st = round % 2 == 0
                    ? checkpoint_save(path, tensors, N_TENSORS, entries, 1, pieces, n, c, size)
                    : save_beside(path, pieces, n, c, size);
    for (int i = 0; i < n; i++) free((void *)pieces[i].data);
    free(pieces);
    return st;
}

static void expect_same_files(const char *a, const char *b, int64_t size) {
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    EXPECT_EQ(fa != NULL && fb != NULL, 1);
    for (int64_t i = 0; i <= size; i++) {
        int ca = getc(fa), cb = getc(fb);
        if (ca != cb || (ca == EOF) != (i == size)) EXPECT_EQ(i, -1);
    }
    fclose(fa);
    fclose(fb);
}

static void read_ranges(const char *path, unsigned char *const bytes[], int rank) {
    Checkpoint *ck;
    uint64_t counter = (uint64_t)(100 + rank) << 32;
    EXPECT_OK(checkpoint_open(&ck, path));
    EXPECT_OK(checkpoint_verify(ck));
    for (int i = 0; i < 200; i++) {
        int t = (int)draw(&counter, N_TENSORS);
        int64_t total = safetensors_count(&tensors[t]), size = dtype_bytes(tensors[t].dtype);
        int64_t begin = (int64_t)draw(&counter, total + 1);
        int64_t count = (int64_t)draw(&counter, total - begin + 1);
        void *buf = mem_new(count, (size_t)size);
        EXPECT_OK(checkpoint_read(ck, tensors[t].name, begin, count, buf));
        EXPECT_EQ(memcmp(buf, bytes[t] + begin * size, (size_t)(count * size)), 0);
        free(buf);
    }
    checkpoint_close(ck);
}

/* The last rank may not write past half of the file; in a larger world the others can. */
static void failures_are_everyones(const char *path, unsigned char *const bytes[], int64_t size,
                                   Comm *c) {
    struct rlimit limit;
    int64_t saved;
    char *tmp = mem_printf("%s.tmp", path);
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
    signal(SIGXFSZ, SIG_IGN);
    if (c->rank == c->size - 1)
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)size / 2, limit.rlim_max});
    Status st = save_dealt(path, bytes, 1, c, &saved);
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    EXPECT_FAILS(st, ERR_ENV, "File too large");
    EXPECT_OK(comm_barrier(c));
    EXPECT_EQ(access(tmp, F_OK), -1);
    read_ranges(path, bytes, c->rank);
    EXPECT_FAILS(save_dealt("/no/such/dir/x.safetensors", bytes, 1, c, &saved), ERR_ENV,
                 "No such file");
    if (c->size > 1) {
        CkptEntry mine = {"rank", c->rank == 0 ? "0" : "1"};
        EXPECT_FAILS(checkpoint_save(path, NULL, 0, &mine, 1, NULL, 0, c, &saved), ERR_ENV,
                     "the checkpoint's header");
        EXPECT_EQ(access(tmp, F_OK), -1);
    }
    free(tmp);
    EXPECT_OK(comm_barrier(c));
}

int main(void) {
    Comm *host, *self = comm_self_create();
    comm_start();
    EXPECT_OK(comm_mpi_create(&host));
    char dir[64] = "/tmp/mpi_checkpoint.XXXXXX";
    if (host->rank == 0) EXPECT_EQ(mkdtemp(dir) != NULL, 1);
    EXPECT_OK(comm_broadcast(host, dir, sizeof dir, DT_U8, 0, NULL));
    char *path = checkpoint_path(dir, 7), *reference = checkpoint_path(dir, 8);
    unsigned char *bytes[N_TENSORS];
    int64_t size = 0, reference_size = 0;
    for (int i = 0; i < N_TENSORS; i++) bytes[i] = tensor_bytes(i);
    if (host->rank == 0) EXPECT_OK(save_dealt(reference, bytes, 0, self, &reference_size));
    for (uint64_t round = 0; round < ROUNDS; round++) {
        EXPECT_OK(save_dealt(path, bytes, round, host, &size));
        if (host->rank == 0) {
            EXPECT_EQ(size, reference_size);
            expect_same_files(path, reference, size);
        }
        EXPECT_OK(comm_barrier(host));
    }
    read_ranges(path, bytes, host->rank);
    failures_are_everyones(path, bytes, size, host);

    if (host->rank == 0) {
        unlink(path);
        unlink(reference);
        EXPECT_EQ(rmdir(dir), 0); /* nothing else was left */
        printf("mpi_checkpoint: %d ranks passed\n", host->size);
    }
    for (int i = 0; i < N_TENSORS; i++) free(bytes[i]);
    free(path);
    free(reference);
    comm_free(host);
    comm_free(self);
    comm_finish(0);
    return 0;
}
