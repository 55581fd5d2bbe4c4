#include "cli/data_options.h"

#include <stdlib.h>

#include "data/source.h"

const char *const eod_none[] = {"none", NULL};

static Status take_paths(DataInputs *in, const char *pattern) {
    char **found;
    int n;
    CHECK(source_expand(pattern, &found, &n));
    in->paths = mem_grow(in->paths, in->n_paths + n, sizeof *in->paths);
    for (int i = 0; i < n; i++) in->paths[in->n_paths++] = found[i];
    free(found);
    return OK;
}

Status data_inputs_open(DataInputs *in, const Args *a) {
    in->eod_given = args_given(a, offsetof(DataInputs, eod));
    if (!in->eod_given) in->eod = -1;
    if (in->vocab == 0) in->vocab = INT32_MAX;
    if (in->eod >= in->vocab)
        return status_fail(ERR_USER,
                           "cria %s: --eod: found %lld, expected an id below --vocab %lld",
                           a->command->name, (long long)in->eod, (long long)in->vocab);
    for (int i = 0; i < a->n_paths; i++) CHECK(take_paths(in, a->paths[i]));
    return OK;
}

void data_inputs_free(DataInputs *in) {
    for (int i = 0; i < in->n_paths; i++) free(in->paths[i]);
    free(in->paths);
    *in = (DataInputs){0};
}
