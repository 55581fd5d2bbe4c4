/* arguments.h: private to inspect.c and pack.c: the command line of `cria data`. */
#ifndef CRIA_DATA_ARGUMENTS_H
#define CRIA_DATA_ARGUMENTS_H

#include "base/base.h"
#include "config/config.h"
#include "data/megatron.h"

typedef struct {
    char **paths; /* of the inputs; patterns are expanded */
    int n_paths;
    DataFormat format; /* of the inputs */
    int64_t eod;       /* -1: none, or not given */
    bool eod_given;
    int64_t vocab;       /* INT32_MAX: not given */
    DataFormat to;       /* of the output; FORMAT_AUTO: not given */
    IdType ids;          /* 0: not given */
    const char *out;     /* prefix of the output */
    double val;          /* share of the documents held out */
    int64_t seed, shard; /* of the choice of documents; tokens */
    bool gzip, force;
} Arguments;

/* `allowed` lists the options of this command. ERR_USER: unknown, without its value, out of range;
 * no input. *a must be freed in either case. */
Status arguments_parse(Arguments *a, const char *command, int argc, char **argv,
                       const char *allowed);
void arguments_free(Arguments *a);

#endif
