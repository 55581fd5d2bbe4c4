/* dataset.c: which tokens sample n of an order is. Sources are the leaves of a binary tree over
 * their integer shares; at each node the samples that go left are spread evenly (sample n goes left
 * when floor((n + 1) L / S) > floor(n L / S), and is then number floor(n L / S) there). So every
 * prefix holds each side within one sample of its exact share, and finding sample n takes no state.
 */
#include "data/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/megatron_dataset.h"
#include "data/source.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"

__extension__ typedef unsigned __int128 Wide; /* n * share: 50 + 50 bits */

struct Dataset {
    Source *sources;     /* [n_sources] */
    int64_t *before;     /* [n_sources + 1] sum of the shares of the sources in front */
    SourceStart *starts; /* [n_sources] */
    int n_sources;
    int64_t seq_len, vocab;
    uint64_t seed;
    bool shuffle;
    int64_t asked;             /* samples, ORDER_MEGATRON */
    MegatronDataset *megatron; /* NULL: cria's own order */
};

/* The greatest power of ten, 10^22 at most, that makes `sum` at most 10^15: 10^floor(15 -
 * log10(sum)) but for libm, of which CPUs have different code. These powers, and quotients of them,
 * are exact. Sums of weights such as 0.1 + 0.2 + 0.7 are within some last bits of a power of ten:
 * so is the limit. */
static double unit_of_shares(double sum) {
    double unit = 1e22;
    while (unit * sum > 1e15 * (1 + 2e-15)) unit /= 10;
    return unit;
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
    double unit = weighted != 0 ? unit_of_shares(sum) : 0;
    for (int i = 0; i < o->n_sources; i++)
        d->before[i + 1] =
            d->before[i] + (weighted != 0 ? i64_max(1, llround(o->sources[i].weight * unit))
                                          : d->sources[i].samples);
    return OK;
}

/* An eod that the ids' type cannot hold: other ids than were meant are read, or the eod is wrong.
 */
static Status check_eod(const Source *s, int64_t eod) {
    for (int i = 0; i < s->n_files; i++)
        CHECK(tokens_check_eod(s->files[i].tokens, eod, "data.eod"));
    return OK;
}

static Status open_all(Dataset *d, const DatasetOptions *o) {
    const char *split = o->split != NULL ? o->split : "";
    for (int i = 0; i < o->n_sources; i++) {
        SourceOptions s = {.path = o->sources[i].path,
                           .format = o->format,
                           .split = split,
                           .part = o->part,
                           .eod = o->eod,
                           .seq_len = o->seq_len};
        d->n_sources++;
        CHECK(source_open(&d->sources[i], &s));
        CHECK(check_eod(&d->sources[i], o->eod));
    }
    CHECK(set_shares(d, o));
    if (o->order != ORDER_MEGATRON) return OK;
    return megatron_dataset_open(&d->megatron, d->sources, o);
}

Status dataset_open(Dataset **out, const DatasetOptions *o) {
    REQUIRE(o->seq_len >= 1 && o->n_sources >= 0);
    *out = NULL;
    if (o->n_sources == 0)
        return status_fail(ERR_USER, "no token files are given (data.train or data.val)");
    Dataset *d = NEW(Dataset, 1);
    *d = (Dataset){.sources = NEW(Source, o->n_sources),
                   .before = NEW(int64_t, o->n_sources + 1),
                   .starts = NEW(SourceStart, o->n_sources),
                   .seq_len = o->seq_len,
                   .vocab = o->vocab,
                   .seed = o->seed,
                   .shuffle = o->shuffle,
                   .asked = o->samples};
    for (int i = 0; i < o->n_sources; i++)
        d->starts[i] = o->starts != NULL ? o->starts[i] : (SourceStart){.number = i};
    Status st = open_all(d, o);
    if (st != OK) {
        dataset_close(d);
        d = NULL;
    }
    *out = d;
    return st;
}

void dataset_close(Dataset *d) {
    if (d == NULL) return;
    megatron_dataset_close(d->megatron);
    for (int i = 0; i < d->n_sources; i++) source_close(&d->sources[i]);
    free(d->sources);
    free(d->before);
    free(d->starts);
    free(d);
}

/* ---- describe -------------------------------------------------------------------------------- */

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
    for (int i = 0; i < d->n_sources; i++)
        for (int f = 0; f < d->sources[i].n_files; f++)
            sum += d->sources[i].files[f].end - d->sources[i].files[f].begin;
    return sum;
}

const Source *dataset_sources(const Dataset *d, int *n) {
    *n = d->n_sources;
    return d->sources;
}

uint32_t dataset_fingerprint(const Dataset *d) {
    uLong crc = crc32(0, NULL, 0);
    for (int i = 0; i < d->n_sources; i++)
        for (int f = 0; f < d->sources[i].n_files; f++) {
            uint32_t one = tokens_fingerprint(d->sources[i].files[f].tokens);
            crc = crc32(crc, (const Bytef *)&one, sizeof one);
        }
    return (uint32_t)crc;
}

static void describe_file(const TokenFile *f, StrBuf *out) {
    strbuf_printf(out, "%s %lld %08x\n", file_name(tokens_path(f)), (long long)tokens_bytes(f),
                  tokens_fingerprint(f));
}

void dataset_describe(const Dataset *d, StrBuf *out) {
    for (int i = 0; i < d->n_sources; i++)
        for (int f = 0; f < d->sources[i].n_files; f++)
            describe_file(d->sources[i].files[f].tokens, out);
    if (d->megatron != NULL)
        strbuf_printf(out, "data.order megatron of %lld samples, seed %lld\n", (long long)d->asked,
                      (long long)d->seed);
}

Status dataset_compare(const char *is, const char *was) {
    while (*is != '\0' && strncmp(is, was, strcspn(is, "\n") + 1) == 0) {
        was += strcspn(is, "\n") + 1;
        is += strcspn(is, "\n") + 1;
    }
    int n_is = (int)strcspn(is, "\n"), n_was = (int)strcspn(was, "\n");
    if (n_is == 0 && n_was == 0) return OK;
    return status_fail(ERR_USER,
                       "the training data are not those of the run: found %s%.*s%s where it had "
                       "%s%.*s%s (name, bytes, fingerprint); put back what has changed, or start a "
                       "new run",
                       n_is > 0 ? "\"" : "nothing", n_is, is, n_is > 0 ? "\"" : "",
                       n_was > 0 ? "\"" : "nothing", n_was, was, n_was > 0 ? "\"" : "");
}

static bool warn_if_modified(SourceFile *f) {
    bool index;
    if (f->warned || !tokens_modified(f->tokens, &index)) return false;
    f->warned = true;
    if (index)
        log_warn_once("the index of %s was modified: the run goes on with what it was at the start",
                      tokens_path(f->tokens));
    else
        log_warn_once(
            "%s was modified while the run reads it: samples may not be those that the run "
            "began with",
            tokens_path(f->tokens));
    return true;
}

int dataset_warn_of_changes(Dataset *d) {
    int found = 0;
    for (int i = 0; i < d->n_sources; i++)
        for (int f = 0; f < d->sources[i].n_files; f++)
            found += warn_if_modified(&d->sources[i].files[f]);
    return found;
}

/* ---- samples --------------------------------------------------------------------------------- */

/* Of the first n samples of the sources first ... end - 1, those of the sources before *middle. */
static int64_t count_left(const Dataset *d, int first, int end, int64_t n, int *middle) {
    *middle = first + (end - first) / 2;
    int64_t from = d->before[first], left = d->before[*middle] - from;
    return (int64_t)((Wide)n * (Wide)left / (Wide)(d->before[end] - from));
}

/* The source of sample *n, and in *n its number within that source. */
static int find_source(const Dataset *d, int64_t *n) {
    int first = 0, end = d->n_sources;
    while (end - first > 1) {
        int middle;
        int64_t lefts = count_left(d, first, end, *n, &middle);
        bool goes_left = count_left(d, first, end, *n + 1, &middle) > lefts;
        *n = goes_left ? lefts : *n - lefts;
        if (goes_left)
            end = middle;
        else
            first = middle;
    }
    return first;
}

static void count(const Dataset *d, int first, int end, int64_t n, int64_t *counts) {
    if (end - first == 1) {
        counts[first] += n;
        return;
    }
    int middle;
    int64_t left = count_left(d, first, end, n, &middle);
    count(d, first, middle, left, counts);
    count(d, middle, end, n - left, counts);
}

void dataset_count(const Dataset *d, int64_t n, int64_t *counts) {
    REQUIRE(n >= 0 && d->megatron == NULL);
    count(d, 0, d->n_sources, n, counts);
}

/* The file of sample n in cria's own order, and the first of its tokens. */
static const TokenFile *find_sample(const Dataset *d, int64_t n, int64_t *begin) {
    int source = find_source(d, &n);
    const Source *s = &d->sources[source];
    const SourceStart *start = &d->starts[source];
    n += start->samples;
    uint64_t samples = (uint64_t)s->samples, epoch = (uint64_t)n / samples;
    uint64_t shuffled = (uint64_t)n % samples;
    if (d->shuffle)
        shuffled =
            rng_permute(samples, d->seed,
                        rng_stream(RNG_ORDER, (uint64_t)start->number << 32 ^ epoch), shuffled);
    int64_t k = (int64_t)shuffled;
    const SourceFile *f = source_find(s, &k);
    *begin = f->begin + k * d->seq_len;
    return f->tokens;
}

Status dataset_sample_documents(Dataset *d, int64_t n, int64_t eod, int32_t *tokens,
                                int32_t *begins, int32_t *n_begins) {
    REQUIRE(n >= 0);
    if (d->megatron != NULL)
        return megatron_dataset_sample(d->megatron, n, d->vocab, tokens, begins, n_begins);
    int64_t begin, T = d->seq_len;
    const TokenFile *file = find_sample(d, n, &begin);
    CHECK(tokens_read(file, begin, T + 1, d->vocab, tokens));
    if (begins == NULL) return OK;
    begins[0] = 0;
    *n_begins = 1;
    if (T > 1) *n_begins += (int32_t)tokens_boundaries(file, begin, T - 1, eod, tokens, begins + 1);
    return OK;
}

int64_t dataset_sample_pieces(const Dataset *d, int64_t n, SamplePiece **pieces) {
    REQUIRE(n >= 0);
    if (d->megatron != NULL) return megatron_dataset_pieces(d->megatron, n, pieces);
    *pieces = NEW(SamplePiece, 1);
    (*pieces)[0].tokens = d->seq_len + 1;
    (*pieces)[0].file = find_sample(d, n, &(*pieces)[0].begin);
    return 1;
}

Status dataset_sample(Dataset *d, int64_t n, int32_t *tokens) {
    return dataset_sample_documents(d, n, -1, tokens, NULL, NULL);
}
