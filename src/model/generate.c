#include "model/generate.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

typedef struct {
    double probability; /* times the sum of all */
    int32_t id;
} Candidate;

static int32_t likeliest(const float *logits, int vocab) {
    int32_t best = 0;
    for (int32_t v = 1; v < vocab; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static int by_probability(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->probability != y->probability) return x->probability > y->probability ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Orders the candidates and keeps the first that make up top_p of *sum, which becomes theirs. */
static int keep_top(Candidate *list, int n, double top_p, double *sum) {
    double limit = top_p * *sum;
    int kept = 0;
    qsort(list, (size_t)n, sizeof *list, by_probability);
    for (*sum = 0; kept < n && (kept == 0 || *sum < limit); kept++) *sum += list[kept].probability;
    return kept;
}

int32_t sample_token(const float *logits, int vocab, int64_t t, const SampleOptions *o) {
    int32_t best = likeliest(logits, vocab);
    if (o->temperature <= 0) return best;
    Candidate *list = NEW(Candidate, vocab);
    double sum = 0;
    for (int32_t v = 0; v < vocab; v++) {
        double p = exp(((double)logits[v] - (double)logits[best]) / o->temperature);
        list[v] = (Candidate){p, v};
        sum += p;
    }
    int n = o->top_p < 1 ? keep_top(list, vocab, o->top_p, &sum) : vocab, i = 0;
    double left = rng_uniform(o->seed, rng_stream(RNG_SAMPLE, o->run), (uint64_t)t) * sum;
    while (i + 1 < n && left >= list[i].probability) left -= list[i++].probability;
    int32_t id = list[i].id;
    free(list);
    return id;
}

static bool is_end(const GenerateOptions *o, int32_t id) {
    for (int i = 0; i < o->n_ends; i++)
        if (o->ends[i] == id) return true;
    return false;
}

Status generate(Decoder *d, const int32_t *prompt, int64_t n, const GenerateOptions *o,
                Stream *stream) {
    int vocab = decoder_vocab(d);
    float *logits = NEW(float, vocab);
    decoder_reset(d);
    Status st = o->tokens > 0 ? decoder_run(d, prompt, n, logits, stream) : OK;
    for (int64_t i = 0; st == OK && i < o->tokens; i++) {
        int32_t id = sample_token(logits, vocab, n + i, &o->sample);
        if (is_end(o, id)) break;
        o->take(o->ctx, id);
        if (i + 1 < o->tokens) st = decoder_run(d, &id, 1, logits, stream);
    }
    free(logits);
    return st;
}
