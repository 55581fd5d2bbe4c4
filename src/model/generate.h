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

typedef struct {
    SampleOptions sample;
    int64_t tokens;      /* new ones at most */
    const int64_t *ends; /* [n_ends] ids that end a text, and are not given out */
    int n_ends;
    /* Takes each new token when it is known. */
    void (*take)(void *ctx, int32_t id);
    void *ctx;
} GenerateOptions;

/* Goes on with prompt[n]: n >= 1, ids within the vocabulary, and all tokens fit the decoder. */
Status generate(Decoder *d, const int32_t *prompt, int64_t n, const GenerateOptions *o,
                Stream *stream);

#endif
