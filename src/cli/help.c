/* help.c: `cria help`, `cria config` and `cria version`, and what is made of the descriptions of
 * the commands: a man page, and the completion of bash. */
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/version.h"
#include "cli/commands.h"
#include "config/config.h"
#include "ops/ops.h"

static void print(StrBuf *text) {
    output_write(OUTPUT_STDOUT, strbuf_text(text), text->len);
    strbuf_free(text);
}

/* ---- the man page ---------------------------------------------------------------------------- */

/* As troff takes it: no line begins with a control character, and '-' is not a hyphen. */
static void print_troff(const char *text, StrBuf *out) {
    bool first = true; /* character of its line */
    for (; *text != '\0'; first = *text++ == '\n') {
        if (first && (*text == '.' || *text == '\'')) strbuf_printf(out, "\\&");
        if (*text == '-' || *text == '\\') strbuf_printf(out, "\\");
        strbuf_printf(out, *text == '\\' ? "e" : "%c", *text);
    }
}

static void print_man(StrBuf *out) {
    StrBuf usage = {0}, keys = {0};
    strbuf_printf(out, ".TH CRIA 1\n.SH NAME\ncria \\- pretrains LLaMA with context parallelism\n"
                       ".SH SYNOPSIS\n.B cria\nCOMMAND [ARGUMENT ...]\n.SH COMMANDS\n");
    for (int i = 0; commands[i] != NULL; i++) {
        strbuf_printf(out, ".SS %s\n.nf\n", commands[i]->name);
        args_help(commands[i], &usage);
        print_troff(strbuf_text(&usage), out);
        strbuf_printf(out, ".fi\n");
        strbuf_free(&usage);
    }
    strbuf_printf(out, ".SH CONFIGURATION\n.nf\n");
    status_ignore(config_print_help("", &keys));
    print_troff(strbuf_text(&keys), out);
    strbuf_printf(out, ".fi\n.SH EXIT STATUS\n0 done, 2 a mistake in the input, 3 the environment "
                       "failed, 4 stopped and saved.\n");
    strbuf_free(&keys);
}

/* ---- bash ------------------------------------------------------------------------------------ */

static void print_words(const char *pattern, const Command *c, StrBuf *out) {
    strbuf_printf(out, "    %s) words='", pattern);
    for (const ArgOption *o = c->options; o != NULL && o->name != NULL; o++)
        strbuf_printf(out, "--%s ", o->name);
    strbuf_printf(out, "--help' ;;\n");
}

/* The first word, the second where commands share the first, options, else files. */
static void print_bash(StrBuf *out) {
    StrBuf first = {0};
    strbuf_printf(out, "_cria() {\n    local words='' at=$COMP_CWORD\n"
                       "    case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n");
    for (int i = 0; commands[i] != NULL; i++) {
        const char *name = commands[i]->name;
        bool two = strchr(name, ' ') != NULL;
        char *pattern = mem_printf(two ? "'%s'" : "%s\\ *", name);
        print_words(pattern, commands[i], out);
        free(pattern);
        size_t n = strcspn(name, " ");
        if (i == 0 || strncmp(commands[i - 1]->name, name, n) != 0)
            strbuf_printf(&first, "%.*s ", (int)n, name);
    }
    strbuf_printf(out, "    esac\n    [ $at != 1 ] || words='%s--help --version'\n",
                  strbuf_text(&first));
    for (int i = 0; commands[i] != NULL; i++) {
        const char *second = strchr(commands[i]->name, ' ');
        if (second != NULL)
            strbuf_printf(out, "    [ \"$at ${COMP_WORDS[1]}\" != '2 %.*s' ] || words+=' %s'\n",
                          (int)(second - commands[i]->name), commands[i]->name, second + 1);
    }
    strbuf_printf(out, "    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[at]}\"))\n}\n"
                       "complete -o default -F _cria cria build/cria\n");
    strbuf_free(&first);
}

/* ---- commands -------------------------------------------------------------------------------- */

typedef struct {
    bool man;
    int completion; /* 1: of bash */
} HelpOptions;

static Status help(const Args *a) {
    const HelpOptions *o = a->options;
    StrBuf text = {0};
    int words;
    Status st = OK;
    if (a->n_paths > 0 && (o->man || o->completion == 1))
        return status_fail(ERR_USER, "%s is of all commands: found '%s' beside it",
                           o->man ? "--man" : "--completion", a->paths[0]);
    if (o->man)
        print_man(&text);
    else if (o->completion == 1)
        print_bash(&text);
    else if (a->n_paths == 0)
        commands_usage(NULL, &text);
    else if (a->n_paths == 1 && commands_is_group(a->paths[0]))
        commands_usage(a->paths[0], &text);
    else {
        const Command *c = commands_find(a->n_paths, a->paths, &words, &st);
        if (c != NULL) args_help(c, &text);
    }
    print(&text);
    return st;
}

typedef struct {
    bool markdown;
} ConfigOptions;

static Status config(const Args *a) {
    const ConfigOptions *o = a->options;
    StrBuf text = {0};
    Status st = OK;
    if (o->markdown && a->n_paths > 0)
        return status_fail(ERR_USER, "--markdown is of all keys: found '%s' beside it",
                           a->paths[0]);
    if (o->markdown)
        config_print_markdown(&text);
    else
        st = config_print_help(a->n_paths > 0 ? a->paths[0] : "", &text);
    print(&text);
    return st;
}

static Status version(const Args *a) {
    (void)a;
    output_print("cria %s\n", cria_version);
    if (cuda_replaced[0] != '\0')
        output_print("CUDA %d.%d: %s\n", cuda_toolkit / 1000, cuda_toolkit % 1000 / 10,
                     cuda_replaced);
    return OK;
}

static const char *const shells[] = {"", "bash", NULL};
static const ArgOption options[] = {
    ARG_OPTION("man", FLAG, HelpOptions, man, NULL,
               "Print the man page, as in cria help --man >cria.1."),
    ARG_OPTION("completion", NAME, HelpOptions, completion, "bash",
               "Print the completion of bash, as in . <(build/cria help --completion bash).",
               .min = 1, .names = shells),
    {.name = NULL}};
const Command command_help = {.name = "help",
                              .summary = "Print what a command takes.",
                              .arguments = "[COMMAND]",
                              .details = "Prints the commands, or what one of them takes.",
                              COMMAND_OPTIONS(options, HelpOptions),
                              .max_paths = 2,
                              .run = help};
static const ArgOption config_options[] = {
    ARG_OPTION("markdown", FLAG, ConfigOptions, markdown, NULL,
               "Print all keys as a page such as configs/KEYS.md."),
    {.name = NULL}};
const Command command_config = {
    .name = "config",
    .summary = "Print the keys of a configuration: type, default, bounds.",
    .arguments = "[SECTION|KEY]",
    .details = "Prints every key of a configuration file with its type, bounds, default and "
               "meaning, or those of one section, such as optim, or one key, such as optim.lr.",
    COMMAND_OPTIONS(config_options, ConfigOptions),
    .max_paths = 1,
    .run = config};
const Command command_version = {.name = "version",
                                 .summary = "Print the commit, and what it was built for.",
                                 .arguments = "",
                                 .run = version};
