/* generate.h: choosing the next token, again and again. */
#ifndef CRIA_MODEL_GENERATE_H
#define CRIA_MODEL_GENERATE_H

#include "model/decode.h"

typedef struct {
    double temperature; /* logits are divided by it; 0: always the likeliest token */
    double top_p;       /* of the likeliest tokens whose probabilities make up this much, or more */
    uint64_t seed, run; /* of the random numbers; token t of a sequence always takes draw t */
} SampleOptions;

/* The token behind the first t of a sequence; logits[vocab] are finite. (Holtzman et al., "The
 * curious case of neural text degeneration", ICLR 2020) */
int32_t sample_token(const float *logits, int vocab, int64_t t, const SampleOptions *o);

/* A text that grows. The caller sets the first fields and calls generation_begin(). */
typedef struct {
    Decoder *decoder;
    Stream *stream;
    SampleOptions sample;
    const int64_t *ends; /* [n_ends] ids that end a text */
    int n_ends;
    float *logits;
    const int32_t *pending; /* [n_pending] tokens that the decoder has not run yet */
    int64_t n_pending, n;   /* n: those that it has */
    int32_t last;
} Generation;

/* prompt[n] is how the text begins: n >= 1, ids within the vocabulary, borrowed until the first
 * token is there. To be ended. */
void generation_begin(Generation *g, const int32_t *prompt, int64_t n);
/* The next token; -1, and no more may be asked for, when the text is at its end. The decoder must
 * have room. */
Status generation_next(Generation *g, int32_t *id);
void generation_end(Generation *g);

#endif
