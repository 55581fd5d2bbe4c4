#include "cli/commands.h"

#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/text.h"
#include "comm/comm.h"

const Command *const commands[] = {&command_train,
                                   &command_plan,
                                   &command_check,
                                   &command_eval,
                                   &command_export,
                                   &command_import,
                                   &command_merge,
                                   &command_generate,
                                   &command_data_inspect,
                                   &command_data_pack,
                                   &command_data_order,
                                   &command_bench_attention,
                                   &command_bench_gemm,
                                   &command_bench_cp,
                                   &command_bench_step,
                                   &command_config,
                                   &command_help,
                                   &command_version,
                                   NULL};

/* The second word of a name that begins with this one; NULL: it is another, or has one word. */
static const char *second_word(const Command *c, const char *first) {
    size_t n = strlen(first);
    return strncmp(c->name, first, n) == 0 && c->name[n] == ' ' ? c->name + n + 1 : NULL;
}

bool commands_is_group(const char *first) {
    for (int i = 0; commands[i] != NULL; i++)
        if (second_word(commands[i], first) != NULL) return true;
    return false;
}

/* `cria data` and the like: names the second words. ERR_USER in any case. */
static Status refuse_second(const char *first, const char *second) {
    StrBuf words = {0};
    const char *last = NULL, *word;
    for (int i = 0; commands[i] != NULL; i++) {
        if ((word = second_word(commands[i], first)) == NULL) continue;
        if (last != NULL) strbuf_printf(&words, "%s%s", words.len > 0 ? ", " : "", last);
        last = word;
    }
    Status st =
        second != NULL
            ? status_fail(ERR_USER, "cria %s: found '%s', expected %s or %s", first, second,
                          strbuf_text(&words), last)
            : status_fail(ERR_USER, "cria %s: the command behind it is missing, expected %s or %s",
                          first, strbuf_text(&words), last);
    strbuf_free(&words);
    return st;
}

static Status refuse_first(const char *first) {
    const char *nearest = NULL;
    int best = 3;
    for (int i = 0; commands[i] != NULL; i++) {
        char *word = mem_printf("%.*s", (int)strcspn(commands[i]->name, " "), commands[i]->name);
        int d = text_distance(first, word);
        if (d < best) best = d, nearest = commands[i]->name;
        free(word);
    }
    if (nearest == NULL)
        return status_fail(ERR_USER, "unknown command %s; `cria help` lists them", first);
    return status_fail(ERR_USER, "unknown command %s; did you mean %.*s?", first,
                       (int)strcspn(nearest, " "), nearest);
}

const Command *commands_find(int argc, char **argv, int *words, Status *st) {
    for (int i = 0; commands[i] != NULL; i++) {
        const char *second = second_word(commands[i], argv[0]);
        *words = second != NULL ? 2 : 1;
        if (strcmp(commands[i]->name, argv[0]) == 0 ||
            (second != NULL && argc > 1 && strcmp(second, argv[1]) == 0))
            return commands[i];
    }
    *st = commands_is_group(argv[0]) ? refuse_second(argv[0], argc > 1 ? argv[1] : NULL)
                                     : refuse_first(argv[0]);
    return NULL;
}

void commands_usage(const char *group, StrBuf *out) {
    strbuf_printf(out,
                  group != NULL ? "usage: cria %s COMMAND [ARGUMENT ...]\n\n"
                                : "usage: cria COMMAND [ARGUMENT ...]\n\n",
                  group);
    for (int i = 0; commands[i] != NULL; i++) {
        if (group != NULL && second_word(commands[i], group) == NULL) continue;
        strbuf_printf(out, "  %s  ", commands[i]->name);
        strbuf_wrap(out, commands[i]->summary, 20);
    }
    strbuf_printf(out, "\n`cria help COMMAND` and `cria COMMAND --help` say more.\n");
    if (group != NULL) return;
    strbuf_printf(out, "Several ranks: mpirun -n N build/cria train CONFIG ...\n"
                       "Exit status: 0 done, 2 a mistake in the input, 3 the environment failed,\n"
                       "4 stopped and saved.\n");
}

static Status run(const Command *c, int argc, char **argv) {
    Args args;
    Status st = args_parse(&args, c, argc, argv);
    if (args.help) {
        StrBuf text = {0};
        args_help(c, &text);
        if (c->with_mpi) comm_start();
        if (comm_world_rank() == 0) output_write(OUTPUT_STDOUT, text.text, text.len);
        strbuf_free(&text);
    } else if (st == OK || c->with_mpi) {
        st = c->run(&args);
    }
    args_free(&args);
    return st;
}

Status commands_run(int argc, char **argv) {
    if (argc == 0) {
        StrBuf text = {0};
        commands_usage(NULL, &text);
        output_write(OUTPUT_STDERR, text.text, text.len);
        strbuf_free(&text);
        return ERR_USER;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)
        return run(&command_help, 0, NULL);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) &&
        commands_is_group(argv[0]))
        return run(&command_help, 1, argv);
    if (strcmp(argv[0], "--version") == 0) return run(&command_version, 0, NULL);
    int words;
    Status st;
    const Command *c = commands_find(argc, argv, &words, &st);
    return c != NULL ? run(c, argc - words, argv + words) : st;
}
