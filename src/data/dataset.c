/* dataset.c: which tokens sample n of a run is. Sources are the leaves of a binary tree over their
 * integer shares; at each node the samples that go left are spread evenly (sample n goes left when
 * floor((n + 1) L / S) > floor(n L / S), and is then number floor(n L / S) there). So every prefix
 * holds each side within one sample of its exact share, and finding sample n takes no state. */
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <zlib.h>

#include "rng.h"

__extension__ typedef unsigned __int128 Wide; /* n * share: 50 + 50 bits */

typedef struct {
    TokenFile *file;
    int64_t samples;
    int64_t share_before; /* sum of the shares of the sources in front of it */
} Source;

struct Dataset {
    Source *sources; /* n_sources + 1: the last holds the sum of all shares */
    int n_sources;
    int64_t seq_len, vocab;
    uint64_t seed;
    bool shuffle;
};

static Status open_source(Source *s, const DatasetOptions *o, int index) {
    const char *path = o->sources[index].path;
    CHECK(tokens_open(&s->file, path, o->format));
    int64_t count = tokens_count(s->file);
    if (count <= o->seq_len)
        return status_fail(
            ERR_USER,
            "token file %s has %lld tokens, but one sample of model.seq_len %lld needs "
            "%lld; use a longer file or a shorter seq_len",
            path, (long long)count, (long long)o->seq_len, (long long)o->seq_len + 1);
    s->samples = (count - 1) / o->seq_len;
    return OK;
}

/* Without weights the shares are the numbers of samples: an epoch is then each sample exactly once.
 * Weights become integers by a power of ten, so that 0.7 : 0.3 is exactly 7 : 3. */
static Status set_shares(Dataset *d, const DatasetOptions *o) {
    const double least = 1e-6, most = 1e9;
    int weighted = 0;
    double sum = 0;
    for (int i = 0; i < o->n_sources; i++) {
        double w = o->sources[i].weight;
        if (w != 0 && !(w >= least && w <= most))
            return status_fail(ERR_USER,
                               "the weight of %s is %g, but it must be 0 (in proportion to its "
                               "tokens) or from %g to %g",
                               o->sources[i].path, w, least, most);
        weighted += w != 0;
        sum += w;
    }
    if (weighted != 0 && weighted != o->n_sources)
        return status_fail(ERR_USER,
                           "%d of %d data sources have a weight: give one to every source, or to "
                           "none (then each counts by its tokens)",
                           weighted, o->n_sources);
    double unit = weighted != 0 ? pow(10, floor(15 - log10(sum))) : 0;
    int64_t before = 0;
    for (int i = 0; i <= o->n_sources; i++) {
        d->sources[i].share_before = before;
        if (i < o->n_sources)
            before += weighted != 0 ? i64_max(1, llround(o->sources[i].weight * unit))
                                    : d->sources[i].samples;
    }
    return OK;
}

Status dataset_open(Dataset **out, const DatasetOptions *o) {
    REQUIRE(o->seq_len >= 1 && o->n_sources >= 0);
    *out = NULL;
    if (o->n_sources == 0)
        return status_fail(ERR_USER, "no token files are given (data.train or data.val)");
    Dataset *d = NEW(Dataset, 1);
    Status st;
    *d = (Dataset){.sources = NEW(Source, o->n_sources + 1),
                   .n_sources = o->n_sources,
                   .seq_len = o->seq_len,
                   .vocab = o->vocab,
                   .seed = o->seed,
                   .shuffle = o->shuffle};
    for (int i = 0; i < o->n_sources; i++) CHECK_GOTO(open_source(&d->sources[i], o, i), fail);
    CHECK_GOTO(set_shares(d, o), fail);
    *out = d;
    return OK;
fail:
    dataset_close(d);
    return st;
}

void dataset_close(Dataset *d) {
    if (d == NULL) return;
    for (int i = 0; i < d->n_sources; i++) tokens_close(d->sources[i].file);
    free(d->sources);
    free(d);
}

int64_t dataset_seq_len(const Dataset *d) {
    return d->seq_len;
}

int64_t dataset_epoch_samples(const Dataset *d) {
    int64_t sum = 0;
    for (int i = 0; i < d->n_sources; i++) sum += d->sources[i].samples;
    return sum;
}

int64_t dataset_tokens(const Dataset *d) {
    int64_t sum = 0;
    for (int i = 0; i < d->n_sources; i++) sum += tokens_count(d->sources[i].file);
    return sum;
}

uint32_t dataset_fingerprint(const Dataset *d) {
    uLong crc = crc32(0, NULL, 0);
    for (int i = 0; i < d->n_sources; i++) {
        uint32_t f = tokens_fingerprint(d->sources[i].file);
        const Bytef bytes[4] = {(Bytef)f, (Bytef)(f >> 8), (Bytef)(f >> 16), (Bytef)(f >> 24)};
        crc = crc32(crc, bytes, sizeof bytes);
    }
    return (uint32_t)crc;
}

/* The source of sample *n, and in *n its number within that source. */
static int find_source(const Dataset *d, int64_t *n) {
    int first = 0, end = d->n_sources;
    while (end - first > 1) {
        int middle = first + (end - first) / 2;
        int64_t from = d->sources[first].share_before;
        int64_t left = d->sources[middle].share_before - from;
        Wide both = (Wide)(d->sources[end].share_before - from);
        int64_t lefts = (int64_t)((Wide)*n * (Wide)left / both);
        bool goes_left = (int64_t)(((Wide)*n + 1) * (Wide)left / both) > lefts;
        *n = goes_left ? lefts : *n - lefts;
        if (goes_left)
            end = middle;
        else
            first = middle;
    }
    return first;
}

Status dataset_sample(Dataset *d, int64_t n, int32_t *tokens) {
    REQUIRE(n >= 0);
    int source = find_source(d, &n);
    const Source *s = &d->sources[source];
    uint64_t samples = (uint64_t)s->samples, epoch = (uint64_t)n / samples;
    uint64_t k = (uint64_t)n % samples;
    if (d->shuffle)
        k = rng_permute(samples, d->seed, rng_stream(RNG_ORDER, (uint64_t)source << 32 ^ epoch), k);
    return tokens_read(s->file, (int64_t)k * d->seq_len, d->seq_len + 1, d->vocab, tokens);
}
