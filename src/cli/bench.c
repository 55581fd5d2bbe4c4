/* bench.c: `cria bench NAME ...`. */
#include "bench/bench.h"

#include <string.h>

#include "base/log.h"
#include "cli/commands.h"

static const Benchmark *find(const char *command) {
    static const Benchmark *const all[] = {&bench_attention, &bench_gemm, &bench_cp, &bench_step};
    size_t i = 0;
    while (strcmp(all[i]->name, command + strlen("bench ")) != 0) i++;
    return all[i];
}

static void print_settings(const char *command, StrBuf *out) {
    strbuf_printf(out, "\nkey=value[,value ...] replaces the values of a setting:\n");
    bench_print_settings(find(command), out);
}

static Status run(const Args *a) {
    const Benchmark *b = find(a->command->name);
    BenchArguments *arguments = a->options;
    comm_start();
    log_init(comm_world_rank(), comm_world_size());
    CHECK(a->status);
    if (!b->together && comm_world_rank() != 0) return OK;
    if (a->n_paths > 0) arguments->config = a->paths[0];
    return bench_run(b, arguments, a->n_overrides, a->overrides);
}

#define JSON ARG_OPTION("json", FLAG, BenchArguments, json, NULL, "Print a JSON object a line.")
#define BASELINE                                                                                   \
    ARG_OPTION("baseline", TEXT, BenchArguments, baseline, "FILE",                                 \
               "Compare with the lines that --json printed into FILE, as shares of the rate of a " \
               "matrix product; fail when one is worse.")
static const ArgOption step_options[] = {JSON, {.name = NULL}};
static const ArgOption options[] = {JSON, BASELINE, {.name = NULL}};
static const ArgOption cp_options[] = {JSON,
                                       BASELINE,
                                       ARG_OPTION("timeline", TEXT, BenchArguments, timeline,
                                                  "FILE",
                                                  "Draw what every rank does when, as SVG."),
                                       {.name = NULL}};
#define BENCH(options_, ...)                                                                       \
    {                                                                                              \
        .options = options_, .options_size = sizeof(BenchArguments), .overrides = true,            \
        .with_mpi = true, .more_help = print_settings, .run = run, __VA_ARGS__                     \
    }

const Command command_bench_attention =
    BENCH(options, .name = "bench attention", .summary = "Time attention on one device.",
          .arguments = "[key=value ...]");
const Command command_bench_gemm =
    BENCH(options, .name = "bench gemm", .summary = "Time the matrix products of a model.",
          .arguments = "[CONFIG] [key=value ...]", .max_paths = 1);
const Command command_bench_cp =
    BENCH(cp_options, .name = "bench cp", .summary = "Time attention across ranks (mpirun -n N).",
          .arguments = "[key=value ...]");
const Command command_bench_step =
    BENCH(step_options, .name = "bench step", .summary = "Time a training step, on random data.",
          .arguments = "CONFIG [key=value ...]", COMMAND_PATHS(1, 1));
