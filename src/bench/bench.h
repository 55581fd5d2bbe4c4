/* bench.h: `cria bench`: what the machine and cria give. Needs no data. Runs on any backend; its
 * default sizes on the CPU are those of a laptop.
 *
 * Timing. Inputs are normal(0, 1), the same at every call. "single" is one call between two
 * synchronisations, "stream" what a training step sees: calls back to back, the device held busy
 * first so that the host runs ahead. Both are medians over events. FLOPs count allowed pairs only.
 */
#ifndef CRIA_BENCH_BENCH_H
#define CRIA_BENCH_BENCH_H

#include "attn/mask.h"
#include "bench/arguments.h"
#include "comm/comm.h"
#include "ops/ops.h"

enum { BENCH_EVENTS = 32 };

typedef struct {
    const Ops *ops;
    Stream *stream;
    Comm *host; /* all ranks; NULL: rank 0 measures alone */
    bool json;
    double gemm_rate; /* FLOP/s of a large square product, measured by bench_open */
    char *members;    /* of every JSON row */
    /* private */
    Event *events[BENCH_EVENTS];
    void *block, *normals;
    int64_t n_normals;
} Bench;

/* The commands; `cria bench NAME ...` picks one. ERR_USER: nothing was measured. */
Status bench_command(int argc, char **argv);
Status bench_gemm(int argc, char **argv);
Status bench_attention(int argc, char **argv);
Status bench_cp(int argc, char **argv);
Status bench_step(int argc, char **argv);

/* Opens the backend and measures gemm_rate. Frees nothing on failure: bench_close does. */
Status bench_open(Bench *b, const char *what, const BenchArguments *a);
void bench_close(Bench *b);
/* The text that --help prints. */
void bench_print_help(const char *what, const char *text, const Setting *settings);

/* For commands in which all ranks take part. Before they start: all get the worst Status. After
 * they have: a rank that failed alone ends the job, because the others wait for it. */
Status bench_agree(Status mine);
Status bench_finish(Status mine);

typedef Status (*BenchCall)(void *ctx);
typedef struct {
    double single, stream; /* ms */
} BenchTimes;
/* With b->host the ranks measure together (collective): "stream" only (single is NaN), each gets
 * its own time. */
Status bench_time(Bench *b, BenchCall call, void *ctx, BenchTimes *out);
/* Keeps the device busy for some 20 ms, so that the host gets ahead of it. */
void bench_hold(Bench *b);

/* n normal numbers in the activation type; `which` names the tensor. */
void bench_fill(Bench *b, void *x, int64_t n, int which);

typedef struct {
    double area; /* allowed pairs */
    bool fits;   /* false: there is no memory for it */
    BenchTimes fwd, bwd;
} AttentionTimes;
/* Attention over the whole mask on this rank's device: forward, and backward with what it needs
 * before (delta). */
Status bench_attention_times(Bench *b, const Mask *mask, int H, int K, int D, AttentionTimes *out);

#endif
