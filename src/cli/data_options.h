/* data_options.h: what the commands that read token files have in common. */
#ifndef CRIA_CLI_DATA_OPTIONS_H
#define CRIA_CLI_DATA_OPTIONS_H

#include "cli/args.h"
#include "config/config.h"

/* The first field of the options of such a command. */
typedef struct {
    int format; /* DataFormat */
    int64_t eod, vocab;
    bool eod_given;
    char **paths; /* patterns are expanded */
    int n_paths;
} DataInputs;

/* The rows of a table of options that fill it. */
#define DATA_INPUT_OPTIONS                                                                         \
    ARG_OPTION("format", NAME, DataInputs, format, "FORMAT",                                       \
               "One of auto, nanogpt, megatron and llmc. [auto]", .names = data_format_names),     \
        ARG_OPTION("eod", INTEGER, DataInputs, eod, "ID|none",                                     \
                   "The id that ends a document, such as 50256 of GPT-2.", .max = INT32_MAX - 1,   \
                   .names = eod_none),                                                             \
        ARG_OPTION("vocab", INTEGER, DataInputs, vocab, "N", "Refuse ids from N on.", .min = 1,    \
                   .max = INT32_MAX)
extern const char *const eod_none[];

/* Finds the files, and gives eod (-1) and vocab (INT32_MAX) their values where they are not given.
 * ERR_USER: no such file, an eod beyond the vocabulary. data_inputs_free in either case. */
Status data_inputs_open(DataInputs *in, const Args *args);
void data_inputs_free(DataInputs *in);

#endif
