/* args.h: what a command takes. From this description come the parser of its arguments, its usage
 * and help, the man page and the completion of shells. */
#ifndef CRIA_CLI_ARGS_H
#define CRIA_CLI_ARGS_H

#include <stddef.h>

#include "base/base.h"

typedef enum {
    ARG_FLAG,    /* bool; takes no value */
    ARG_TEXT,    /* const char *, not empty */
    ARG_INTEGER, /* int64_t from min to max; where `names` has one, that name means -1 */
    ARG_NUMBER,  /* double from min to max */
    ARG_SHARE,   /* double, above 0 and below 1 */
    ARG_NAME     /* int, the index into `names`, from min on */
} ArgKind;

/* --NAME VALUE or --NAME=VALUE */
typedef struct {
    const char *name;
    ArgKind kind;
    const char *value; /* what help calls it, such as "N"; NULL: a flag */
    const char *help;
    size_t offset; /* of its field in the command's options, which are zero when it is not given */
    int64_t min, max;
    const char *const *names; /* ends with NULL */
    const char *when_empty;   /* what to do instead of giving an empty text; NULL: nothing to say */
} ArgOption;

/* A row; what follows the help text are further fields, such as .min = 1. `field` is of `type`. */
#define ARG_OPTION(name_, kind_, type, field, value_, ...)                                         \
    {                                                                                              \
        .name = name_, .kind = ARG_##kind_, .offset = offsetof(type, field), .value = value_,      \
        .help = __VA_ARGS__                                                                        \
    }

typedef struct Args Args;

typedef struct {
    const char *name;         /* "train", or two words: "data pack" */
    const char *summary;      /* for the list of commands: a short sentence */
    const char *arguments;    /* for the usage: "CONFIG [key=value ...]" */
    const char *details;      /* for its help; NULL: the summary says it */
    const ArgOption *options; /* ends with a NULL name; NULL: none */
    size_t options_size;      /* bytes of the struct that they fill */
    int min_paths, max_paths; /* arguments without '=' and '-' */
    bool overrides;           /* takes key=value */
    /* Runs under MPI: is called even if its arguments are wrong, so that all ranks can agree on
     * args->status and one of them tells it. */
    bool with_mpi;
    void (*more_help)(const char *name, StrBuf *out); /* NULL: none */
    Status (*run)(const Args *args);
} Command;

#define COMMAND_OPTIONS(table, type) .options = table, .options_size = sizeof(type)
#define COMMAND_PATHS(least, most)   .min_paths = least, .max_paths = most

struct Args {
    const Command *command;
    Status status; /* what is wrong with the arguments */
    bool help;     /* --help or -h is among them */
    void *options;
    uint64_t given; /* a bit for each option */
    char **paths, **overrides;
    int n_paths, n_overrides;
};

/* Parses what follows the command's name. Returns args->status; ERR_USER says what is expected.
 * Free *args in either case; it points into argv. */
Status args_parse(Args *args, const Command *command, int argc, char **argv);
void args_free(Args *args);
/* Is the option with this field among the arguments? */
bool args_given(const Args *args, size_t offset);

/* The usage, what the command does, and its options, within 80 columns. */
void args_help(const Command *command, StrBuf *out);

#endif
