/* stages_report.h: what each stage of a run amounts to: steps, tokens, time, memory. For `cria
 * plan` and --dry-run. */
#ifndef CRIA_REPORT_STAGES_REPORT_H
#define CRIA_REPORT_STAGES_REPORT_H

#include "config/config.h"

/* On `world` ranks; cpu: as CPUs compute it, where no time is estimated. ERR_USER names a stage
 * that these ranks cannot run. */

/* A table, and below each stage's line the keys that it sets. Nothing for a run without stages. */
Status stages_report_text(const Config *c, int world, bool cpu, StrBuf *out);
/* A JSON list, empty for a run without stages, of {"stage": its name,"from": steps done before,
 * "steps","tokens","seq_len","global","micro","bytes_per_rank","tok_s","seconds" (null: not
 * estimated),"changes": the keys that it sets}. */
Status stages_report_json(const Config *c, int world, bool cpu, StrBuf *out);

#endif
