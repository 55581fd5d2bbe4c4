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

static bool is_end(const Generation *g, int32_t id) {
    for (int i = 0; i < g->n_ends; i++)
        if (g->ends[i] == id) return true;
    return false;
}

void generation_begin(Generation *g, const int32_t *prompt, int64_t n) {
    decoder_reset(g->decoder);
    g->logits = NEW(float, decoder_vocab(g->decoder));
    g->pending = prompt;
    g->n_pending = n;
    g->n = 0;
}

Status generation_next(Generation *g, int32_t *id) {
    CHECK(decoder_run(g->decoder, g->pending, g->n_pending, g->logits, g->stream));
    g->n += g->n_pending;
    g->last = sample_token(g->logits, decoder_vocab(g->decoder), g->n, &g->sample);
    g->pending = &g->last;
    g->n_pending = 1;
    *id = is_end(g, g->last) ? -1 : g->last;
    return OK;
}

void generation_end(Generation *g) {
    free(g->logits);
}
