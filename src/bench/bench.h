/* bench.h: `cria bench`: what the machine and cria give. Needs no data. Runs on any backend; its
 * default sizes on the CPU are those of a laptop.
 *
 * Inputs are normal(0, 1), the same at every call. FLOPs count allowed pairs only.
 */
#ifndef CRIA_BENCH_BENCH_H
#define CRIA_BENCH_BENCH_H

#include "attn/mask.h"
#include "bench/arguments.h"
#include "bench/timing.h"
#include "comm/comm.h"
#include "ops/ops.h"

typedef struct {
    const Ops *ops;
    Stream *stream;
    bool json;
    BenchState state;
    Timing *timing;
    double gemm_rate; /* FLOP/s of a large square product in this state */
    char *members;    /* of every JSON row */
} Bench;

/* The commands; `cria bench NAME ...` picks one. ERR_USER: nothing was measured. */
Status bench_command(int argc, char **argv);
Status bench_gemm(int argc, char **argv);
Status bench_attention(int argc, char **argv);
Status bench_cp(int argc, char **argv);
Status bench_step(int argc, char **argv);

/* The setting `state`, one value; bench_open takes what was given. */
Setting bench_state_setting(void);
/* Opens the backend and measures gemm_rate. Frees nothing on failure: bench_close does. */
Status bench_open(Bench *b, const char *what, const BenchArguments *a, const Setting *state);
void bench_close(Bench *b);
/* The text that --help prints. */
void bench_print_help(const char *what, const char *text, const Setting *settings);

/* For commands in which all ranks take part. Before they start: all get the worst Status. After
 * they have: a rank that failed alone ends the job, because the others wait for it. */
Status bench_agree(Status mine);
Status bench_finish(Status mine);

typedef struct {
    double area; /* allowed pairs */
    bool fits;   /* false: there is no memory for it */
    BenchTime fwd, bwd;
} AttentionTimes;
/* Attention over the whole mask on this rank's device: forward, and backward with what it needs
 * before (delta). */
Status bench_attention_times(Bench *b, const Mask *mask, int H, int K, int D, AttentionTimes *out);

#endif
