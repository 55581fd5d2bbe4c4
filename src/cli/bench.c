/* bench.c: `cria bench NAME ...`. */
#include <string.h>

#include "bench/bench.h"
#include "base/log.h"

static const struct {
    const char *name;
    Status (*run)(int argc, char **argv);
    bool together; /* all ranks take part; else rank 0 measures while the others wait */
} commands[] = {{"attention", bench_attention, false},
                {"gemm", bench_gemm, false},
                {"cp", bench_cp, true},
                {"step", bench_step, true}};

Status bench_command(int argc, char **argv) {
    comm_start();
    log_init(comm_world_rank(), comm_world_size());
    size_t i = 0, n = sizeof commands / sizeof *commands;
    while (i < n && (argc < 1 || strcmp(commands[i].name, argv[0]) != 0)) i++;
    if (i == n)
        return status_fail(ERR_USER, "cria bench: found '%s', expected attention, gemm, cp or step",
                           argc > 0 ? argv[0] : "nothing");
    if (!commands[i].together && comm_world_rank() != 0) return OK;
    return commands[i].run(argc - 1, argv + 1);
}
