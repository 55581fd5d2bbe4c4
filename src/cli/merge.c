/* merge.c: `cria merge`. */
#include "ckpt/merge.h"

#include <limits.h>
#include <stdlib.h>

#include "base/log.h"
#include "ckpt/checkpoint.h"
#include "cli/commands.h"

typedef struct {
    const char *weights;
} Options;

/* A sum of weights times values stays finite. */
static const double WEIGHT_MAX = 1e100;

/* One number above 0 for each checkpoint. */
static Status parse_weights(const char *text, double *weights, int n) {
    const char *at = text;
    char *end;
    for (int i = 0; i < n; i++, at = end) {
        if (i > 0 && *at++ != ',')
            return status_fail(ERR_USER,
                               "cria merge: --weights: found %d of them in '%s', expected %d, one "
                               "for each checkpoint",
                               i, text, n);
        weights[i] = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0') || !(weights[i] > 0) ||
            weights[i] > WEIGHT_MAX)
            return status_fail(ERR_USER,
                               "cria merge: --weights: found '%s', expected numbers above 0 and at "
                               "most 1e100, as in 1,2,1",
                               text);
    }
    if (*at == '\0') return OK;
    return status_fail(ERR_USER,
                       "cria merge: --weights: found more than %d in '%s', expected one for each "
                       "checkpoint",
                       n, text);
}

static Status merge_all(const char *out, char *const *given, char **paths, const double *weights,
                        int n) {
    Merged merged;
    for (int i = 0; i < n; i++) CHECK(checkpoint_find(given[i], &paths[i]));
    CHECK(checkpoint_merge(out, paths, weights, n, &merged));
    log_info("merged %d checkpoints as %s: step %lld, %lld bytes", n, out, (long long)merged.step,
             (long long)merged.bytes);
    return OK;
}

static Status merge(const Args *a) {
    const Options *o = a->options;
    int n = a->n_paths - 1;
    char **paths = NEW(char *, n);
    double *weights = NEW(double, n);
    for (int i = 0; i < n; i++) weights[i] = 1;
    Status st = o->weights != NULL ? parse_weights(o->weights, weights, n) : OK;
    if (st == OK) st = merge_all(a->paths[0], a->paths + 1, paths, weights, n);
    for (int i = 0; i < n; i++) free(paths[i]);
    free(paths);
    free(weights);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("weights", TEXT, Options, weights, "A,B,...",
               "The share of each checkpoint, in their order; they are divided by their sum. [all "
               "the same]"),
    {.name = NULL}};
const Command command_merge = {
    .name = "merge",
    .summary = "average checkpoints of one model",
    .arguments = "OUT CHECKPOINT|DIR CHECKPOINT|DIR ...",
    .details =
        "Writes the average of checkpoints as the checkpoint OUT, which train --from, eval, "
        "export, "
        "generate and check take. Weights and moments are averaged in fp64 and rounded once; step, "
        "position in the data and configuration are those of the checkpoint with most steps. "
        "Published recipes average weights alone and start the optimizer anew; here the moments "
        "are "
        "averaged, too, so that training goes on without a jump. A folder stands for its newest "
        "checkpoint.",
    COMMAND_OPTIONS(options, Options),
    COMMAND_PATHS(3, INT_MAX),
    .run = merge};
