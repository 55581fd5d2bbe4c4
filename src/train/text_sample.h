/* text_sample.h: texts that the model generates while it trains (run.sample_every). */
#ifndef CRIA_TRAIN_TEXT_SAMPLE_H
#define CRIA_TRAIN_TEXT_SAMPLE_H

#include "metrics/sink.h"
#include "session/prompt.h"
#include "session/session.h"

/* Of rank 0; empty on others, and where no text is asked for. */
typedef struct {
    Tokenizer *tokenizer;
    TokenIds prompt;
} TextSampler;

/* Reads data.tokenizer and run.sample_prompt on rank 0. Collective. To be closed in either case. */
Status text_sampler_open(TextSampler *t, const Session *s);
/* Rank 0 goes on with the prompt and tells the sink; the others wait. The text is a function of
 * seed, step and weights. Collective. */
Status text_sampler_run(TextSampler *t, Session *s, int64_t step, Sink *sink);
void text_sampler_close(TextSampler *t);

#endif
