/* main.c: subcommands. The only place that ends the process with a status (comm_abort aside). */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/checkpoint.h"
#include "comm/comm.h"
#include "config.h"
#include "log.h"
#include "train/train.h"
#include "version.h"

static const char usage[] =
    "usage: cria train CONFIG [key=value ...] [--resume auto|PATH] [--dry-run]\n"
    "       cria check CHECKPOINT     verify every checksum, print what is inside\n"
    "       cria config               every configuration key: type, default, bounds, help\n"
    "       cria version\n"
    "\n"
    "Several ranks: mpirun -n N build/cria train CONFIG ...\n"
    "Exit status: 0 done, 2 a mistake in the input, 3 the environment failed, 4 stopped and saved.\n";

typedef struct {
    const char *config; /* the first argument without '=' and '--' */
    char *overrides[256];
    int n_overrides;
    TrainOptions train;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *a) {
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--dry-run") == 0) {
            a->train.dry_run = true;
        } else if (strcmp(argv[i], "--resume") == 0) {
            if (++i == argc) return status_fail(ERR_USER, "--resume needs 'auto' or a checkpoint");
            a->train.resume = argv[i];
        } else if (strncmp(argv[i], "--resume=", 9) == 0) {
            a->train.resume = argv[i] + 9;
        } else if (argv[i][0] == '-') {
            return status_fail(ERR_USER, "unknown option %s; cria without arguments prints the usage",
                               argv[i]);
        } else if (strchr(argv[i], '=') != NULL) {
            if (a->n_overrides == (int)(sizeof a->overrides / sizeof *a->overrides))
                return status_fail(ERR_USER, "more than %d overrides", a->n_overrides);
            a->overrides[a->n_overrides++] = argv[i];
        } else if (a->config == NULL) {
            a->config = argv[i];
        } else {
            return status_fail(ERR_USER, "two arguments that could be the configuration: %s and %s "
                                         "(overrides have the form key=value)", a->config, argv[i]);
        }
    }
    if (a->config == NULL)
        return status_fail(ERR_USER, "which configuration? e.g. cria train configs/tiny.yaml");
    return OK;
}

static Status load(int argc, char **argv, Arguments *a, Config *config) {
    CHECK(parse_arguments(argc, argv, a));
    CHECK(config_load(config, a->config, a->n_overrides, a->overrides));
    return config_check_world(config, comm_world_size());
}

static Status command_train(int argc, char **argv) {
    CHECK(comm_start(&argc, &argv));
    log_init(comm_world_rank(), comm_world_size());
    Arguments a = {0};
    Config config = {0};
    Comm *host;
    CHECK(comm_mpi_create(&host));
    Status st = comm_agree(host, load(argc, argv, &a, &config));
    comm_free(host);
    if (st == OK && a.train.dry_run) {
        StrBuf text = {0};
        config_print(&config, &text);
        log_info("%s", strbuf_text(&text));
        strbuf_free(&text);
    }
    if (st == OK) st = train_run(&config, &a.train);
    config_free(&config);
    return st;
}

static Status command_check(int argc, char **argv) {
    if (argc != 1) return status_fail(ERR_USER, "cria check takes one checkpoint");
    Checkpoint *ck;
    CHECK(checkpoint_open(&ck, argv[0]));
    StrBuf text = {0};
    checkpoint_describe(ck, &text);
    printf("%s", strbuf_text(&text));
    strbuf_free(&text);
    Status st = checkpoint_verify(ck);
    checkpoint_close(ck);
    if (st == OK) printf("every checksum is right\n");
    return st;
}

static Status command_config(int argc, char **argv) {
    (void)argv;
    if (argc != 0) return status_fail(ERR_USER, "cria config takes no arguments");
    StrBuf text = {0};
    config_print_help(&text);
    printf("%s", strbuf_text(&text));
    strbuf_free(&text);
    return OK;
}

static Status command_version(int argc, char **argv) {
    (void)argc, (void)argv;
    printf("cria %s\n", cria_version);
    return OK;
}

static const struct {
    const char *name;
    Status (*run)(int argc, char **argv);
} commands[] = {{"train", command_train},
                {"check", command_check},
                {"config", command_config},
                {"version", command_version}};

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then an error of the write that meets it */
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? status_exit_code(ERR_USER) : 0;
    }
    Status st = ERR_USER;
    size_t i = 0, n = sizeof commands / sizeof *commands;
    while (i < n && strcmp(commands[i].name, argv[1]) != 0) i++;
    if (i < n)
        st = commands[i].run(argc - 2, argv + 2);
    else
        status_fail(ERR_USER, "unknown command %s; cria without arguments prints the usage", argv[1]);
    /* Collective commands agree on the failure: one rank tells. */
    if (st != OK && comm_world_rank() == 0) log_error("%s", status_message());
    comm_finish();
    return status_exit_code(st);
}
