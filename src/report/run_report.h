/* run_report.h: what a run amounts to before it starts: parameters, world map, batch arithmetic,
 * FLOPs, memory. For --dry-run, the banner and `cria plan`. */
#ifndef CRIA_REPORT_RUN_REPORT_H
#define CRIA_REPORT_RUN_REPORT_H

#include "session/session.h"

/* Lines for people. A session without data says nothing of epochs. */
void session_describe(const Session *s, StrBuf *out);

/* Members of a JSON object, without its braces:
 *   "model":{"parameters","layers","hidden","heads","kv_heads","head_dim","ffn","vocab",
 *            "vocab_padded","tie_embeddings"},
 *   "data":{"tokens","epoch_samples"} or null,
 *   "world":{"ranks","dp","cp","device"},
 *   "batch":{"global","micro","micro_steps","seq_len","tokens","steps","epochs" (null: no data)},
 *   "flops_per_token":N,
 *   "memory":{"bytes_per_rank","act_bytes","regions":[{"name","bytes"}]} */
void session_describe_json(const Session *s, StrBuf *out);

#endif
