/* eval.c: `cria eval`. */
#include "base/log.h"
#include "cli/commands.h"
#include "comm/comm.h"
#include "train/eval_checkpoint.h"

typedef struct {
    bool json;
} Options;

static Status agree_on_config(Status mine, Config *config) {
    Comm *host;
    CHECK(comm_mpi_create(&host));
    if (mine == OK) eval_fit_ranks(config, comm_world_size());
    Status st = comm_agree(host, mine);
    comm_free(host);
    return st;
}

static Status evaluate(const Args *a) {
    const Options *o = a->options;
    Config config = {0};
    Status st = a->status;
    if (st == OK) st = config_load(&config, a->paths[1], a->n_overrides, a->overrides);
    comm_start();
    log_init(comm_world_rank(), comm_world_size());
    st = agree_on_config(st, &config);
    if (st == OK) st = eval_checkpoint(&config, a->paths[0], o->json);
    config_free(&config);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("json", FLAG, Options, json, NULL,
               "One line: log.jsonl's record of kind eval, with the path and checksum of the "
               "weights."),
    {.name = NULL}};
const Command command_eval = {
    .name = "eval",
    .summary = "evaluate a checkpoint without training",
    .arguments = "CHECKPOINT|DIR CONFIG [key=value ...]",
    .details =
        "Prints loss and perplexity of a checkpoint, or of the newest one of a folder, on the "
        "data.val of a configuration: the numbers that training logs after that step. Any number "
        "of "
        "ranks: mpirun -n N build/cria eval ... parallel.cp=N. Takes the memory that training "
        "takes, and data.train must be there, too.",
    COMMAND_OPTIONS(options, Options),
    COMMAND_PATHS(2, 2),
    .overrides = true,
    .with_mpi = true,
    .run = evaluate};
