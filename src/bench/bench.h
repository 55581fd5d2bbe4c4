/* bench.h: `cria bench`: what the machine and cria give. Needs no data. Runs on any backend; its
 * default sizes on the CPU are those of a laptop.
 *
 * Inputs are normal(0, 1), the same at every call. FLOPs count allowed pairs only.
 */
#ifndef CRIA_BENCH_BENCH_H
#define CRIA_BENCH_BENCH_H

#include "attn/mask.h"
#include "bench/arguments.h"
#include "bench/table.h"
#include "bench/timing.h"
#include "comm/comm.h"
#include "ops/ops.h"

typedef struct {
    const Ops *ops;
    Stream *stream;
    bool json;
    BenchState state;
    Timing *timing;
    double gemm_rate;   /* FLOP/s of a large square product in this state */
    char *members;      /* of every JSON row */
    Baseline *baseline; /* what rows are compared with; NULL: nothing */
} Bench;

/* `cria bench NAME ...` */
enum { BENCH_SETTINGS_MAX = 16 };
typedef struct {
    const char *name;
    bool together;     /* all ranks take part; else rank 0 measures while the others wait */
    bool takes_config; /* and its keys */
    void (*list_settings)(Setting *settings);
    /* The settings that are not given are empty until bench_settings_fill(). ERR_USER: nothing was
     * measured. */
    Status (*run)(BenchArguments *a, Setting *settings);
} Benchmark;
extern const Benchmark bench_attention, bench_gemm, bench_cp, bench_step;

/* Runs it with these values of settings and, where it takes one, keys of a configuration. */
Status bench_run(const Benchmark *b, BenchArguments *a, int n, char **texts);
/* For help. */
void bench_print_settings(const Benchmark *b, StrBuf *out);

/* The setting `state`, one value; bench_open takes what was given. */
Setting bench_state_setting(void);
/* Opens the backend and measures gemm_rate. Frees nothing on failure: bench_close does. */
Status bench_open(Bench *b, const char *what, const BenchArguments *a, const Setting *state);
void bench_close(Bench *b);
/* A table of b's rows; prints its titles. */
Table bench_table(const Bench *b, const TableColumn *columns, int n);
/* ERR_ENV when a row was worse than --baseline has it. */
Status bench_compared(const Bench *b);

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
