/* main.c: subcommands. The only place that ends the process with a status (comm_abort aside). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "ckpt/checkpoint.h"
#include "hf/hf.h"
#include "comm/comm.h"
#include "config/config.h"
#include "cli/data_inspect.h"
#include "cli/data_pack.h"
#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "cli/data_order.h"
#include "cli/generate.h"
#include "cli/plan.h"
#include "train/stop.h"
#include "train/train.h"
#include "base/progress.h"
#include "health/watchdog.h"
#include "base/version.h"

static const char usage[] =
    "usage: cria train CONFIG [key=value ...] [--resume auto|PATH] [--dry-run]\n"
    "       cria plan CONFIG [key=value ...] [--ranks N] [--ranks-per-node N] [--json] [--svg "
    "FILE]\n"
    "                 [--mask-file FILE]     what it amounts to on N ranks: batch, memory, FLOPs, "
    "who\n"
    "                                computes and moves what; needs no MPI, GPU or data\n"
    "       cria check CHECKPOINT|DIR verify every checksum, print what is inside (DIR: its "
    "newest)\n"
    "       cria export CHECKPOINT DIR [--dtype bf16|fp32] [--tokenizer PATH] [--shard-bytes N]\n"
    "                                 its weights as a Hugging Face directory\n"
    "       cria import DIR CHECKPOINT\n"
    "                                 a Hugging Face directory as a checkpoint to start from\n"
    "       cria generate CHECKPOINT|DIR [--prompt TEXT] [--tokens N] [--temperature T] [--top-p "
    "P]\n"
    "                 [--seed N] [--tokenizer FILE] [--ids] [--device auto|cpu|cuda]\n"
    "                                 text from a trained model, or from a Hugging Face directory\n"
    "       cria data inspect [--eod ID] [--vocab N] [--format F] FILE...\n"
    "                                 reads token files: format, tokens, documents, lengths, ids\n"
    "       cria data pack --to nanogpt|megatron|llmc --out PATH [--eod ID|none] [--vocab N] "
    "[--ids TYPE]\n"
    "                 [--val SHARE [--seed N]] [--shard TOKENS] [--gzip] [--force] FILE...\n"
    "                                 converts, shards, compresses them, cuts a validation part\n"
    "       cria data order CONFIG [key=value ...] [--step N[:M]] [--eval] [--json]\n"
    "                                 the samples of these steps (or evaluations), file and token\n"
    "       cria bench attention|gemm|cp|step ...\n"
    "                                 what the machine and cria give; --help says more\n"
    "       cria config               every configuration key: type, default, bounds, help\n"
    "       cria version\n"
    "\n"
    "Several ranks: mpirun -n N build/cria train CONFIG ...\n"
    "Exit status: 0 done, 2 a mistake in the input, 3 the environment failed, 4 stopped and "
    "saved.\n";

/* An option and where it goes: --NAME VALUE or --NAME=VALUE, or, without `value`, a flag. */
typedef struct {
    const char *name;
    const char **value;
    const char *needs; /* what the value is */
    bool *flag;
} Option;

typedef struct {
    const char *config; /* the first argument without '=' and '--' */
    char *overrides[256];
    int n_overrides;
    const Option *options; /* ends with a NULL name */
} Arguments;

/* Takes argv[*i], and what follows if the value does. */
static Status parse_option(int argc, char **argv, int *i, const Option *o) {
    const char *given = argv[*i];
    for (; o->name != NULL; o++) {
        size_t n = strlen(o->name);
        if (strncmp(given, o->name, n) != 0 || (given[n] != '\0' && given[n] != '=')) continue;
        if (o->flag != NULL && given[n] == '\0') {
            *o->flag = true;
            return OK;
        }
        if (o->flag != NULL) break;
        if (given[n] == '\0' && *i + 1 == argc)
            return status_fail(ERR_USER, "%s needs %s", o->name, o->needs);
        *o->value = given[n] == '=' ? given + n + 1 : argv[++*i];
        return OK;
    }
    return status_fail(ERR_USER, "unknown option %s; cria without arguments prints the usage",
                       given);
}

static Status parse_arguments(int argc, char **argv, Arguments *a) {
    for (int i = 0; i < argc; i++) {
        if (argv[i][0] == '-') {
            CHECK(parse_option(argc, argv, &i, a->options));
        } else if (strchr(argv[i], '=') != NULL) {
            if (a->n_overrides == (int)(sizeof a->overrides / sizeof *a->overrides))
                return status_fail(ERR_USER, "more than %d overrides", a->n_overrides);
            a->overrides[a->n_overrides++] = argv[i];
        } else if (a->config == NULL) {
            a->config = argv[i];
        } else {
            return status_fail(ERR_USER,
                               "two arguments that could be the configuration: %s and %s "
                               "(overrides have the form key=value)",
                               a->config, argv[i]);
        }
    }
    if (a->config == NULL)
        return status_fail(ERR_USER, "which configuration? e.g. cria train configs/tiny.yaml");
    return OK;
}

static Status load(int argc, char **argv, const Option *options, Config *config) {
    Arguments a = {.options = options};
    CHECK(parse_arguments(argc, argv, &a));
    return config_load(config, a.config, a.n_overrides, a.overrides);
}

/* The configuration is read before MPI starts, so that its limits hold from then on. */
static Status load_run(Arguments *a, Config *config) {
    progress_beat(0, "reading the configuration");
    CHECK(config_load(config, a->config, a->n_overrides, a->overrides));
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

static Status command_train(int argc, char **argv) {
    TrainOptions train = {0};
    const Option options[] = {{"--resume", &train.resume, "'auto' or a checkpoint", NULL},
                              {"--dry-run", NULL, NULL, &train.dry_run},
                              {0}};
    Arguments a = {.options = options};
    Config config = {0};
    Status st = parse_arguments(argc, argv, &a);
    if (!train.dry_run) {
        output_never_block();
        stop_install();
        watchdog_start();
    }
    if (st == OK) st = load_run(&a, &config);
    progress_beat(0, "starting MPI");
    comm_start();
    if (!train.dry_run) stop_install();
    log_init(comm_world_rank(), comm_world_size());
    progress_beat(0, "comparing configurations");
    st = agree_on_config(st, &config);
    if (st == OK && train.dry_run) {
        StrBuf text = {0};
        config_print(&config, &text);
        log_info("%s", strbuf_text(&text));
        strbuf_free(&text);
    }
    if (st == OK) st = train_run(&config, &train);
    config_free(&config);
    return st;
}

/* A count in an option; 0 when it is not given. */
static Status parse_count(const char *name, const char *text, int *out) {
    char *end;
    if (text == NULL) return OK;
    long n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || n < 1 || n > 1 << 20)
        return status_fail(ERR_USER, "%s %s: expected a number of ranks from 1 to %d", name, text,
                           1 << 20);
    *out = (int)n;
    return OK;
}

static Status command_plan(int argc, char **argv) {
    PlanCommandOptions plan = {0};
    const char *ranks = NULL, *per_node = NULL;
    const Option options[] = {{"--ranks", &ranks, "the number of ranks", NULL},
                              {"--ranks-per-node", &per_node, "the ranks of a node", NULL},
                              {"--json", NULL, NULL, &plan.json},
                              {"--svg", &plan.svg, "a file to draw to", NULL},
                              {"--mask-file", &plan.mask_file, "a file of slices", NULL},
                              {0}};
    Config config = {0};
    StrBuf text = {0};
    Status st;
    CHECK_GOTO(load(argc, argv, options, &config), done);
    CHECK_GOTO(parse_count("--ranks", ranks, &plan.ranks), done);
    CHECK_GOTO(parse_count("--ranks-per-node", per_node, &plan.ranks_per_node), done);
    CHECK_GOTO(plan_command_run(&config, &plan, &text), done);
    output_write(OUTPUT_STDOUT, strbuf_text(&text), text.len);
done:
    strbuf_free(&text);
    config_free(&config);
    return st;
}

/* The model as a section to paste, where the file says what it is of. */
static void describe_model(const Checkpoint *ck, StrBuf *out) {
    const char *text = checkpoint_entry(ck, "cria.config");
    Config config = {0};
    Status st = text != NULL ? config_parse(&config, "", text, strlen(text), 0, NULL) : ERR_USER;
    if (st == OK) config_print_section(&config, "model", out);
    config_free(&config);
    status_ignore(st);
}

static Status check_file(const char *path) {
    Checkpoint *ck;
    CHECK(checkpoint_open(&ck, path));
    Status st = checkpoint_verify(ck);
    StrBuf text = {0};
    checkpoint_describe(ck, &text);
    if (st == OK) describe_model(ck, &text);
    text_make_printable(text.text, true); /* it names the file */
    output_write(OUTPUT_STDOUT, text.text, strlen(text.text));
    strbuf_free(&text);
    checkpoint_close(ck);
    return st;
}

static Status command_check(int argc, char **argv) {
    if (argc != 1) return status_fail(ERR_USER, "cria check takes one checkpoint");
    char *path;
    CHECK(checkpoint_find(argv[0], &path));
    Status st = check_file(path);
    free(path);
    return st;
}

/* Two paths, and options. */
static Status parse_paths(int argc, char **argv, const Option *options, const char *paths[2],
                          const char *form) {
    int n = 0;
    for (int i = 0; i < argc; i++) {
        if (argv[i][0] == '-')
            CHECK(parse_option(argc, argv, &i, options));
        else if (n++ < 2)
            paths[n - 1] = argv[i];
    }
    return n == 2 ? OK : status_fail(ERR_USER, "found %d paths, expected: cria %s", n, form);
}

static Status command_export(int argc, char **argv) {
    HfExportOptions export = {.dtype = DT_BF16, .shard_bytes = HF_SHARD_BYTES};
    const char *paths[2], *dtype = "bf16", *shard = NULL;
    char *end;
    const Option options[] = {{"--dtype", &dtype, "bf16 or fp32", NULL},
                              {"--tokenizer", &export.tokenizer, "a file or a directory", NULL},
                              {"--shard-bytes", &shard, "the most bytes of a weight file", NULL},
                              {0}};
    CHECK(parse_paths(argc, argv, options, paths, "export CHECKPOINT DIR"));
    if (strcmp(dtype, "fp32") == 0)
        export.dtype = DT_F32;
    else if (strcmp(dtype, "bf16") != 0)
        return status_fail(ERR_USER, "--dtype %s: expected bf16 or fp32", dtype);
    if (shard != NULL) {
        export.shard_bytes = strtoll(shard, &end, 10);
        if (end == shard || *end != '\0' || export.shard_bytes < 1)
            return status_fail(ERR_USER, "--shard-bytes %s: expected a number from 1", shard);
    }
    char *checkpoint;
    CHECK(checkpoint_find(paths[0], &checkpoint));
    Status st = hf_export(checkpoint, paths[1], &export);
    free(checkpoint);
    return st;
}

static Status command_import(int argc, char **argv) {
    const char *paths[2];
    const Option options[] = {{0}};
    CHECK(parse_paths(argc, argv, options, paths, "import DIR CHECKPOINT"));
    return hf_import(paths[0], paths[1]);
}

static Status command_generate(int argc, char **argv) {
    GenerateArguments a = {0};
    const Option options[] = {{"--prompt", &a.prompt, "a text", NULL},
                              {"--tokens", &a.tokens, "the number of new tokens", NULL},
                              {"--temperature", &a.temperature, "a number", NULL},
                              {"--top-p", &a.top_p, "a number", NULL},
                              {"--seed", &a.seed, "a number", NULL},
                              {"--tokenizer", &a.tokenizer, "a tokenizer.json", NULL},
                              {"--device", &a.device, "auto, cpu or cuda", NULL},
                              {"--ids", NULL, NULL, &a.ids},
                              {0}};
    for (int i = 0; i < argc; i++) {
        if (argv[i][0] == '-')
            CHECK(parse_option(argc, argv, &i, options));
        else if (a.model == NULL)
            a.model = argv[i];
        else
            return status_fail(ERR_USER, "cria generate takes one model, found %s and %s", a.model,
                               argv[i]);
    }
    if (a.model == NULL)
        return status_fail(ERR_USER, "which model? e.g. cria generate runs/demo --prompt 'We'");
    return generate_command_run(&a);
}

static Status command_config(int argc, char **argv) {
    if (argc > 1) return status_fail(ERR_USER, "cria config takes one section or key");
    StrBuf text = {0};
    CHECK(config_print_help(argc == 1 ? argv[0] : "", &text));
    output_write(OUTPUT_STDOUT, strbuf_text(&text), text.len);
    strbuf_free(&text);
    return OK;
}

static Status command_data_order(int argc, char **argv) {
    OrderCommandOptions order = {0};
    const Option options[] = {{"--step", &order.step, "a step N or steps N:M", NULL},
                              {"--eval", NULL, NULL, &order.eval},
                              {"--json", NULL, NULL, &order.json},
                              {0}};
    Config config = {0};
    Status st = load(argc, argv, options, &config);
    if (st == OK) st = order_command_run(&config, &order);
    config_free(&config);
    return st;
}

static Status command_data(int argc, char **argv) {
    if (argc > 0 && strcmp(argv[0], "inspect") == 0) return inspect_command(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "pack") == 0) return pack_command(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "order") == 0) return command_data_order(argc - 1, argv + 1);
    return status_fail(ERR_USER, "cria data: found '%s', expected inspect, pack or order",
                       argc > 0 ? argv[0] : "nothing");
}

static Status command_version(int argc, char **argv) {
    (void)argc, (void)argv;
    output_print("cria %s\n", cria_version);
    return OK;
}

static const struct {
    const char *name;
    Status (*run)(int argc, char **argv);
} commands[] = {{"train", command_train},   {"plan", command_plan},
                {"check", command_check},   {"export", command_export},
                {"import", command_import}, {"generate", command_generate},
                {"data", command_data},     {"bench", bench_command},
                {"config", command_config}, {"version", command_version}};

/* Every way out of main. Collective commands agree on a failure, and one rank reports it. */
static int finish(Status st) {
    Status printed = output_finish();
    if (st == OK) st = printed;
    if (st != OK && status_message()[0] != '\0' && comm_world_rank() == 0) {
        StrBuf text = {0};
        strbuf_printf(&text, "cria: %s%s\n", st == ERR_STOPPED ? "" : "error: ", status_message());
        output_write(OUTPUT_STDERR, text.text, text.len);
        strbuf_free(&text);
    }
    progress_beat(0, "ending MPI");
    comm_finish();
    watchdog_stop();
    if (st != OK) comm_keep_status();
    return status_exit_code(st);
}

/* Before the constructors of libraries: UCX's print to stdout where /proc is missing, and take
 * SIGHUP. */
static void before_libraries(void) {
    output_open();
    stop_remember_hangup();
}
__attribute__((section(".preinit_array"),
               used)) static void (*const call_it)(void) = before_libraries;

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then an error of the write that meets it */
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        output_write(argc < 2 ? OUTPUT_STDERR : OUTPUT_STDOUT, usage, sizeof usage - 1);
        return finish(argc < 2 ? ERR_USER : OK);
    }
    size_t i = 0, n = sizeof commands / sizeof *commands;
    while (i < n && strcmp(commands[i].name, argv[1]) != 0) i++;
    if (i < n) return finish(commands[i].run(argc - 2, argv + 2));
    return finish(status_fail(
        ERR_USER, "unknown command %s; cria without arguments prints the usage", argv[1]));
}
