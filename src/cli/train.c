/* train.c: `cria train`. */
#include "train/train.h"

#include <string.h>

#include "base/log.h"
#include "base/output.h"
#include "cli/commands.h"
#include "comm/comm.h"
#include "base/progress.h"
#include "health/watchdog.h"
#include "train/stop.h"

static Status check_options(const TrainOptions *o) {
    if (o->from == NULL || o->resume == NULL || strcmp(o->resume, "auto") == 0) return OK;
    return status_fail(
        ERR_USER,
        "cria train: --from begins a branch, --resume %s goes on with a run: give one "
        "of them, or --from with --resume auto",
        o->resume);
}

/* The configuration is read before MPI starts, so that its limits hold from then on. */
static Status load_run(const Args *a, Config *config) {
    progress_beat(0, "reading the configuration");
    CHECK(check_options(a->options));
    CHECK(config_load(config, a->paths[0], a->n_overrides, a->overrides));
    watchdog_set_limit(config->run.watchdog_seconds);
    stop_set_limit(config->run.time_limit_minutes);
    return OK;
}

static Status agree_on_config(Status mine, const Config *config) {
    Comm *host;
    CHECK(comm_mpi_create(&host));
    if (mine == OK) mine = config_check_world(config, comm_world_size());
    Status st = comm_agree(host, mine);
    comm_free(host);
    return st;
}

static Status train(const Args *a) {
    const TrainOptions *options = a->options;
    Config config = {0};
    Status st = a->status;
    if (!options->dry_run) {
        output_never_block();
        stop_install();
        watchdog_start();
    }
    if (st == OK) st = load_run(a, &config);
    progress_beat(0, "starting MPI");
    comm_start();
    if (!options->dry_run) stop_install();
    log_init(comm_world_rank(), comm_world_size());
    progress_beat(0, "comparing configurations");
    st = agree_on_config(st, &config);
    if (st == OK) config_warn_notes(&config);
    if (st == OK && options->dry_run) {
        StrBuf text = {0};
        config_print(&config, &text);
        log_info("%s", strbuf_text(&text));
        strbuf_free(&text);
    }
    if (st == OK) st = train_run(&config, options);
    config_free(&config);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("resume", TEXT, TrainOptions, resume, "auto|PATH",
               "Go on from a checkpoint, from the newest one of a "
               "folder, or (auto) from the newest one of "
               "run.dir if there is one."),
    ARG_OPTION("from", TEXT, TrainOptions, from, "PATH",
               "Branch off another run: begin in a new run.dir with "
               "the weights, moments, step and position in the data "
               "of a checkpoint, or of the newest one of a folder; "
               "run.steps counts the steps done there, too. With "
               "--resume auto the same command also goes on with the "
               "branch once that has a checkpoint."),
    ARG_OPTION("dry-run", FLAG, TrainOptions, dry_run, NULL,
               "Print the configuration, the sizes of batch and "
               "model and the memory that a rank needs, and "
               "train nothing."),
    {.name = NULL}};
const Command command_train = {
    .name = "train",
    .summary = "Train a model, or go on with a run.",
    .arguments = "CONFIG [key=value ...]",
    .details = "Trains the model of a configuration file. key=value replaces a key of it; `cria "
               "config` lists the keys. On several ranks: mpirun -n N build/cria train CONFIG.",
    COMMAND_OPTIONS(options, TrainOptions),
    COMMAND_PATHS(1, 1),
    .overrides = true,
    .with_mpi = true,
    .run = train};
