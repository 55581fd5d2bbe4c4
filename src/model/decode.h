/* decode.h: the forward pass of LLaMA over new tokens of one sequence, with the keys and values of
 * all earlier ones kept (the KV cache), as text is generated. */
#ifndef CRIA_MODEL_DECODE_H
#define CRIA_MODEL_DECODE_H

#include "model/params.h"
#include "ops/arena.h"

typedef struct {
    const Ops *ops;
    const ModelConfig *model;
    const ParamTable *table;
    int64_t max_tokens; /* of the sequence: what the cache has room for */
    int64_t window;     /* previous tokens that a token sees; 0: all */
} DecodeOptions;

typedef struct Decoder Decoder;

/* Reserves the cache, [layers][max_tokens][2,K,D], and working memory; usable after arena_commit.
 * Options are copied, what they point to is borrowed. */
Decoder *decoder_create(const DecodeOptions *options, Arena *arena);
void decoder_free(Decoder *d);
/* Uploads the constants, after arena_commit. `weights`: flat, activation type, ParamTable order. */
Status decoder_start(Decoder *d, const void *weights, Stream *stream);

/* From here on, after decoder_start: window, and angles of `model`, which has the same sizes and is
 * borrowed. */
void decoder_set_stage(Decoder *d, const ModelConfig *model, int64_t window, Stream *stream);

int decoder_vocab(const Decoder *d);

/* Begins another sequence. */
void decoder_reset(Decoder *d);
/* Runs the next n tokens of the sequence and waits for them: logits[vocab] (host memory, fp32) are
 * those of the token that follows. ERR_ENV when they are not finite. */
Status decoder_run(Decoder *d, const int32_t *tokens, int64_t n, float *logits, Stream *stream);

#endif
