/* plan.h: `cria plan`: what a configuration amounts to on any number of ranks, computed on
 * one machine without MPI, devices or data. */
#ifndef CRIA_CLI_PLAN_H
#define CRIA_CLI_PLAN_H

#include "config/config.h"

typedef struct {
    int64_t ranks; /* of the whole run; 0 = parallel.cp */
    int64_t
        ranks_per_node; /* of a context-parallel group; 0 = all on one node; training finds out */
    int64_t stage;      /* of a run with stages, whose plan is shown; 0 is the first */
    bool json;
    const char *svg;       /* file to draw to; NULL: none */
    const char *backends;  /* with svg: names with commas between; NULL: the configured one */
    const char *mask_file; /* data.mask slices with this data.mask_file; NULL: as configured */
} PlanCommandOptions;

/* Appends the report of a stage: what --dry-run shows, the mask, and report/plan_report.h's for the
 * backend of the configuration. With data.mask document the documents are those of the run's first
 * micro-batch when data.train can be read, else drawn from MagiAttention's table of document
 * lengths.
 *
 * As JSON: one object with the members of report/run_report.h and
 *   "mask":{"source":"causal"|"full"|"first micro-batch"|"drawn"|"file","window",
 *           "documents": 0 for other masks,"no_data": null or why data.train cannot be read},
 *   "plan": the object of report/plan_report.h,
 *   "estimate":{"tok_s" of all ranks,"step_seconds","run_seconds"}, null on CPUs,
 *   "stages": the list of report/stages_report.h,
 *   "plan_seconds": what making the plan took */
Status plan_command_run(const Config *config, const PlanCommandOptions *options, StrBuf *out);

#endif
