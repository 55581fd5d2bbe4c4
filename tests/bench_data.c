/* bench_data.c: how fast the loader delivers tokens from the page cache, and how fast and small it
 * starts on 8 million documents. Writes 0.4 GB under $TMPDIR (or /tmp) and deletes it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "data/loader.h"
#include "base/rng.h"

enum { T = 8192, EOD = 50256, RANKS = 8 };

static char folder[256];

static char *in_folder(const char *name) {
    return mem_printf("%s/%s", folder, name);
}

static void must(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s: %s\n", what, status_message());
    exit(1);
}

/* 64 M ids, a document about every 1100, as in OpenWebText. */
static void write_tokens(const char *path) {
    enum { BLOCK = 1 << 20, BLOCKS = 64 };
    uint16_t *ids = NEW(uint16_t, BLOCK);
    FILE *f = fopen(path, "wb");
    must(f != NULL, path);
    for (uint64_t b = 0; b < BLOCKS; b++) {
        for (uint64_t i = 0; i < BLOCK; i++) {
            uint32_t r = (uint32_t)(i * 2654435761u + b * 40503u);
            ids[i] = (uint16_t)(r % 1103 == 0 ? EOD : r >> 17);
        }
        must(fwrite(ids, sizeof *ids, BLOCK, f) == BLOCK, path);
    }
    must(fclose(f) == 0, path);
    free(ids);
}

/* An index of n documents and a sparse .bin of their size. */
static void write_pair(const char *prefix, int64_t n) {
    char *bin = mem_printf("%s.bin", prefix), *idx = mem_printf("%s.idx", prefix);
    FILE *f = fopen(idx, "wb");
    int64_t numbers[] = {1, n, n + 1}, tokens = 0;
    unsigned char code = 4;
    must(f != NULL, idx);
    fwrite("MMIDIDX\0\0", 1, 9, f);
    fwrite(&numbers[0], 8, 1, f);
    fwrite(&code, 1, 1, f);
    fwrite(&numbers[1], 8, 2, f);
    int32_t *lengths = NEW(int32_t, n);
    for (int64_t i = 0; i < n; i++) lengths[i] = 128 + (int32_t)((uint64_t)i * 2654435761u % 2000);
    fwrite(lengths, 4, (size_t)n, f);
    for (int64_t i = 0; i < n; tokens += lengths[i++]) {
        int64_t pointer = 4 * tokens;
        fwrite(&pointer, 8, 1, f);
    }
    for (int64_t i = 0; i <= n; i++) fwrite(&i, 8, 1, f);
    must(fclose(f) == 0, idx);
    int fd = open(bin, O_CREAT | O_RDWR, 0600);
    must(fd >= 0 && ftruncate(fd, (off_t)(4 * tokens)) == 0, bin);
    close(fd);
    free(lengths);
    free(bin);
    free(idx);
}

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What the loader's thread has used of its core: a busy machine leaves that comparable. */
static double loader_seconds(void) {
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID) - seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

static void measure_loader(const char *what, Dataset *d, bool documents) {
    LoaderOptions o = {.global = 16,
                       .micro = 1,
                       .dp_size = 1,
                       .seq_len = T,
                       .eod = EOD,
                       .documents = documents,
                       .reset_positions = documents};
    double best = 0;
    for (int round = 0; round < 5; round++) {
        Loader *l;
        const MicroBatch *mb;
        must(loader_create(&l, d, &o, round * 1000) == OK, what);
        must(loader_next(l, &mb, NULL) == OK, what);
        double start = time_now(), cpu = loader_seconds();
        int64_t n = 0;
        for (; time_now() - start < 0.4; n += T) must(loader_next(l, &mb, NULL) == OK, what);
        double rate = (double)n / (loader_seconds() - cpu);
        best = rate > best ? rate : best;
        loader_free(l);
    }
    printf("%-52s %8.0f M tokens/s of a core\n", what, best / 1e6);
}

static Dataset *open_data(const char *path, DataOrder order) {
    DataSource s = {.path = (char *)(uintptr_t)path};
    Dataset *d;
    DatasetOptions o = {.sources = &s,
                        .n_sources = 1,
                        .seq_len = T,
                        .vocab = 65536,
                        .seed = 1234,
                        .shuffle = true,
                        .split = order == ORDER_MEGATRON ? "94,5,1" : "",
                        .order = order,
                        .samples = 1600000};
    must(dataset_open(&d, &o) == OK, path);
    return d;
}

static int64_t pss_kib(void) {
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long long kib = 0;
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "Pss: %lld", &kib) == 1) break;
    if (f != NULL) fclose(f);
    return kib;
}

/* All ranks of a node open the data at once; the time of the slowest, the memory of all. */
static void measure_start(const char *prefix, DataOrder order, const char *what) {
    int ready[2], all_open[2], all_done[2];
    must(pipe(ready) == 0 && pipe(all_open) == 0 && pipe(all_done) == 0, "pipe");
    fflush(stdout);
    int64_t before = pss_kib();
    for (int r = 0; r < RANKS; r++) {
        if (fork() != 0) continue;
        double start = time_now(), seconds;
        Dataset *d = open_data(prefix, order);
        int32_t ids[T + 1];
        must(dataset_sample(d, r, ids) == OK, prefix);
        seconds = time_now() - start;
        int64_t report[2] = {(int64_t)(1e6 * seconds), 0};
        char token;
        must(write(ready[1], report, sizeof report) == sizeof report, "pipe");
        must(read(all_open[0], &token, 1) == 1,
             "pipe"); /* all are open: now the shared pages count once */
        report[1] = pss_kib();
        must(write(ready[1], report, sizeof report) == sizeof report, "pipe");
        must(read(all_done[0], &token, 1) == 1, "pipe");
        dataset_close(d);
        _exit(0);
    }
    int64_t slowest = 0, kib = 0, report[2];
    for (int r = 0; r < RANKS; r++) {
        must(read(ready[0], report, sizeof report) == sizeof report, "pipe");
        slowest = i64_max(slowest, report[0]);
    }
    must(write(all_open[1], "12345678", RANKS) == RANKS, "pipe");
    for (int r = 0; r < RANKS; r++) {
        must(read(ready[0], report, sizeof report) == sizeof report, "pipe");
        kib += report[1] - before / (RANKS + 1);
    }
    must(write(all_done[1], "12345678", RANKS) == RANKS, "pipe");
    for (int r = 0; r < RANKS; r++) wait(NULL);
    printf("%-52s %8.2f s, %lld MB\n", what, (double)slowest / 1e6, (long long)(kib >> 10));
}

int main(void) {
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(folder, sizeof folder, "%s/cria_bench_XXXXXX", base);
    must(mkdtemp(folder) != NULL, folder);
    char *raw = in_folder("raw.bin"), *pair = in_folder("pair"), *few = in_folder("few"), *command;
    write_tokens(raw);
    write_pair(few, 30000); /* fits the page cache */
    write_pair(pair, 8013769);
    Dataset *d = open_data(raw, ORDER_CRIA);
    measure_loader("nanogpt, T = 8192, causal", d, false);
    measure_loader("nanogpt, T = 8192, documents, positions reset", d, true);
    dataset_close(d);
    d = open_data(few, ORDER_CRIA);
    measure_loader("megatron int32, documents, positions reset", d, true);
    dataset_close(d);
    d = open_data(few, ORDER_MEGATRON);
    measure_loader("the same in Megatron's order", d, true);
    dataset_close(d);
    command = mem_printf("gzip -1 %s", raw);
    must(system(command) == 0, command);
    free(command);
    command = mem_printf("%s.gz", raw);
    double start = time_now();
    d = open_data(command, ORDER_CRIA);
    printf("%-52s %8.2f s for %.0f MB\n", "gzip: making the index", time_now() - start,
           (double)dataset_tokens(d) * 2 / 1e6);
    measure_loader("nanogpt, gzip, random access", d, false);
    dataset_close(d);
    measure_start(pair, ORDER_CRIA, "start, 8 M documents, 8 ranks, order cria");
    measure_start(pair, ORDER_MEGATRON, "start, 8 M documents, 8 ranks, order megatron");
    free(command);
    command = mem_printf("rm -r %s", folder);
    return system(command);
}
