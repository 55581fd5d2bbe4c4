/* llama.h: LLaMA as a list of ops, exactly as Hugging Face's LlamaForCausalLM computes it, forward
 * and backward over one micro-batch of this rank's tokens. */
#ifndef CRIA_MODEL_LLAMA_H
#define CRIA_MODEL_LLAMA_H

#include "ops/arena.h"
#include "cp/cp.h"
#include "model/linears.h"
#include "model/params.h"

typedef struct {
    const Ops *ops;
    const ModelConfig *model;
    const ParamTable *table;
    CpRuntime *cp;
    int64_t S;             /* most local tokens of a micro-batch */
    Recompute recompute;   /* layer: keep only each layer's input; bitwise neutral */
    int64_t lm_head_chunk; /* rows of logits held at once; 0 = chosen */
    const Fp8Config *fp8;  /* which products are in FP8; NULL: none */
    double z_loss;         /* coefficient of the z-loss in training; 0: none */
} LlamaOptions;

typedef struct Llama Llama;

/* The sums that llama_run adds to, in device memory: over the tokens, with their weights w. */
typedef enum {
    LLAMA_CE,     /* w * cross entropy */
    LLAMA_Z_LOSS, /* w * z_loss * lse^2, with `train` and z_loss; lse of a token's logits */
    LLAMA_SUMS
} LlamaSum;

/* Called during the last backward of a step, when every gradient of a bucket is final. */
typedef Status (*LlamaBucketReady)(void *ctx, int bucket);

/* Reserves weights (region "weights"), gradients and activations; usable after arena_commit.
 * Options are copied, what they point to is borrowed. */
Llama *llama_create(const LlamaOptions *options, Arena *arena);
void llama_free(Llama *m);

void *llama_weights(Llama *m);    /* flat, activation type, ParamTable order */
float *llama_gradients(Llama *m); /* flat, fp32 */

/* Uploads the constants; after arena_commit. */
Status llama_start(Llama *m, Stream *stream);
/* From here on, after llama_start: batches of at most S tokens (at most those of the options),
 * attention by `cp`, angles of `model`, which has the same sizes; both are borrowed. */
Status llama_set_stage(Llama *m, const ModelConfig *model, CpRuntime *cp, int64_t S,
                       Stream *stream);
void llama_zero_gradients(Llama *m, Stream *stream);
/* Makes the FP8 copies of the weights, if any: before the first llama_run after they changed. */
void llama_cast_weights(Llama *m, Stream *stream);

/* Adds the batch's losses to sums[LLAMA_SUMS]. With `train` the gradients of their total are added
 * to llama_gradients; `ready` (may be NULL) is then told of each bucket in backward order. cp_begin
 * must have been called with the same batch. */
Status llama_run(Llama *m, const CpBatch *batch, bool train, double *sums, LlamaBucketReady ready,
                 void *ready_ctx, Stream *stream);

/* For linears_take_counts(). */
Linears *llama_linears(Llama *m);
/* After llama_run: w * ce of each of its S rows to `losses` [S], host memory. Waits for the stream.
 */
Status llama_losses(Llama *m, int64_t S, float *losses, Stream *stream);

/* After llama_run: the first layer whose input holds a NaN or infinity, L for the final norm's
 * input; *layer -1 when there is none. Slow: for finding faults. */
Status llama_first_nonfinite(Llama *m, int64_t S, Stream *stream, int *layer);

#endif
