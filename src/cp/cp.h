/* cp.h: seam 3, attention across the ranks of a context-parallel group. Rows: none, ring, magi,
 * allgather, ulysses. Whatever the runtime, a rank holds S tokens of the stream in an order that
 * the plan fixes (tokens, labels, positions and weights are dispatched alike), and attention over
 * the whole stream is one forward and one backward call per layer. */
#ifndef CRIA_CP_CP_H
#define CRIA_CP_CP_H

#include "comm/comm.h"
#include "cp/batch.h"
#include "ops/arena.h"

typedef struct CpRuntime CpRuntime;

/* Reserves the runtime's buffers in the arena (region "cp"); usable after arena_commit. ops and
 * comm are borrowed. ERR_USER when the runtime cannot do what the options ask. */
Status cp_create(CpRuntime **rt, const CpOptions *o, const Ops *ops, Comm *comm, Arena *arena);
void cp_free(CpRuntime *rt);

/* Makes `batch` the one the following calls work on (uploads its work lists). */
Status cp_begin(CpRuntime *rt, const CpBatch *batch, Stream *stream);

/* How many attention calls a layer makes per direction with the current batch. */
int cp_stages(const CpRuntime *rt);

/* Starts fetching what the first step of cp_backward needs, so that it hides under the work queued
 * in between. Optional; kv as it will be given to cp_backward. */
Status cp_prefetch(CpRuntime *rt, const void *kv, Stream *stream);

/* call->o[S,H,D] and lse from local q[S,H,D], kv[S,2,K,D]. lse is the runtime's own: H*S floats
 * that go back into cp_backward unread. What else AttnFwd and AttnBwd have is the runtime's
 * business. */
Status cp_forward(CpRuntime *rt, const AttnFwd *call, Stream *stream);
/* fp32 dq[S,H,D] and dkv[S,2,K,D], all of them, from d_o, q, kv, lse, and the o of the forward. */
Status cp_backward(CpRuntime *rt, const AttnBwd *call, const void *o, Stream *stream);

#endif
