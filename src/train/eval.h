/* eval.h: loss on held-out data. */
#ifndef CRIA_TRAIN_EVAL_H
#define CRIA_TRAIN_EVAL_H

#include "metrics/sink.h"
#include "session/session.h"

/* Is there an evaluation after `step`? At step 0, every run.eval_every steps and after the last
 * one. */
bool eval_due(const Config *config, int64_t step);
/* The samples of a set that the evaluation after `step` uses: *n of them from number *first on.
 * data.order cria: the first run.eval_sequences every time (0: all), so that values can be compared
 * (fewer if there are fewer). megatron: the next ones every time, as Megatron-LM does. */
void eval_samples(const Config *config, const Dataset *val, int64_t step, int64_t *first,
                  int64_t *n);

/* Zeroed before eval_open(). */
typedef struct {
    int32_t *bytes; /* [vocab] of the text that an id stands for; NULL: without data.tokenizer */
    float *losses;  /* [n_losses] of a micro-batch's rows */
    int64_t n_losses;
    EvalNumbers *sets; /* [s->val.n] of the last evaluation */
} Evaluator;

/* Reads data.tokenizer where there is something to evaluate. ERR_USER when it is damaged.
 * Collective. */
Status eval_open(Evaluator *e, const Session *s);
void eval_close(Evaluator *e);
/* Evaluates every set of s->val with the present weights. What record->sets points to is valid
 * until the next call. Collective; every rank gets the same numbers.
 *
 * The samples are the same for any number of ranks, and a token's loss does not depend on where it
 * is computed but for rounding; sums are in double.
 *
 * Bits per byte: the loss of the labels that stand for text, in bits, over the bytes of that text.
 * Labels without bytes (special tokens, ids without a token) are in neither sum, as in
 * karpathy/nanochat's evaluate_bpb.
 *
 * Positions: the number of tokens before a token in its sequence, or in its document where
 * data.mask is document: the context it can see. */
Status eval_run(Evaluator *e, Session *s, int64_t step, EvalRecord *record);

#endif
