/* commands.h: the commands of cria. Each is described by a row that its own file defines; main.c
 * runs the one that the command line names. */
#ifndef CRIA_CLI_COMMANDS_H
#define CRIA_CLI_COMMANDS_H

#include "cli/args.h"

/* In the order of the usage; ends with NULL. */
extern const Command *const commands[];
extern const Command command_train, command_plan, command_check, command_eval, command_export,
    command_import, command_merge, command_generate, command_data_inspect, command_data_pack,
    command_data_order, command_bench_attention, command_bench_gemm, command_bench_cp,
    command_bench_step, command_config, command_help, command_version;

/* Runs `cria ARGUMENT...`. ERR_USER with the usage, or what is wrong. */
Status commands_run(int argc, char **argv);

/* The command whose name these words begin with; *words is how many they are. NULL with ERR_USER in
 * *st: there is none, or, as in `cria data`, several. */
const Command *commands_find(int argc, char **argv, int *words, Status *st);
/* Whether commands of two words begin with this one, as with data. */
bool commands_is_group(const char *first);
/* A line for each command, as `cria --help` prints; of group only, as `cria data --help`, unless it
 * is NULL. */
void commands_usage(const char *group, StrBuf *out);

#endif
