/* dataset.h: token files as one stream of samples. A sample is seq_len + 1 consecutive tokens;
 * sample k of a file starts at token k * seq_len (neighbours share one token, so every token but
 * the first of a file is predicted exactly once per epoch). */
#ifndef CRIA_DATA_DATASET_H
#define CRIA_DATA_DATASET_H

#include "config/config.h"
#include "data/source.h"

typedef struct Dataset Dataset;

enum { SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST, SPLIT_PARTS }; /* the shares of data.split */

/* Where a source goes on that an earlier order had, too (data.order cria). */
typedef struct {
    int64_t samples; /* that were taken of it */
    int number;      /* of its shuffle: its place in the list where it first was */
} SourceStart;

typedef struct {
    const DataSource *sources;
    int n_sources;
    const SourceStart *starts; /* [n_sources]; NULL: each begins, with its place in this list */
    DataFormat format;
    int64_t seq_len, vocab;
    uint64_t seed;
    bool shuffle;      /* false: every file is walked in order (evaluation); order cria */
    const char *split; /* NULL or "": all of the files; else Megatron's shares of documents */
    int part;          /* SPLIT_TRAIN, ... */
    int64_t eod;       /* where a split cuts files that have no index */
    DataOrder order;   /* ORDER_MEGATRON needs files with an index, and a seed below 2^32 */
    int64_t samples;   /* ORDER_MEGATRON: how many the run asks for, on which the order depends */
} DatasetOptions;

/* Opens every file and checks its size and index. ERR_USER names the file and what is wrong
 * (missing, empty, odd size, too short for one sample; a weight given to some sources only).
 * Options are copied. */
Status dataset_open(Dataset **data, const DatasetOptions *options);
void dataset_close(Dataset *data);

/* Samples of each source among the first n of the order, added to counts [n_sources]. Of order
 * cria.
 */
void dataset_count(const Dataset *data, int64_t n, int64_t *counts);

int64_t dataset_seq_len(const Dataset *data);
int64_t dataset_epoch_samples(const Dataset *data); /* samples of all files, each once */
int64_t dataset_tokens(const Dataset *data);        /* that take part */
const Source *dataset_sources(const Dataset *data, int *n);
uint32_t dataset_fingerprint(const Dataset *data); /* of all files in order */
/* A line for each file (name, bytes, fingerprint) and for Megatron's order: to keep with a
 * checkpoint, and for people. */
void dataset_describe(const Dataset *data, StrBuf *out);
/* ERR_USER naming the first thing that is not in description `now` as in `was`, of an earlier run.
 */
Status dataset_compare(const char *now, const char *was);

/* Warns, once each, of files that were modified since they were opened: what is read from then on
 * may not be what the run began with. Returns how many there are anew. */
int dataset_warn_of_changes(Dataset *data);

/* Sample number n of the run (n >= 0, endless): copies seq_len + 1 ids. Pure function of (files,
 * options, n): files are interleaved by weight without state, and every file is walked in a fresh
 * permutation each epoch; ORDER_MEGATRON: see order.h. ERR_USER for an id >= vocab: file, offset,
 * id. */
Status dataset_sample(Dataset *data, int64_t n, int32_t *tokens);
/* Also where documents begin in its first seq_len tokens: 0, then positions in begins [seq_len],
 * ascending. From the index where files have one, else from eod (-1: none). */
Status dataset_sample_documents(Dataset *data, int64_t n, int64_t eod, int32_t *tokens,
                                int32_t *begins, int32_t *n_begins);

/* Consecutive tokens of one file. */
typedef struct {
    const TokenFile *file;
    int64_t begin, tokens;
} SamplePiece;
/* Where the seq_len + 1 ids of sample n are, in order; one piece but in ORDER_MEGATRON, where there
 * is one for each sequence. Returns their number; *pieces is the caller's to free. */
int64_t dataset_sample_pieces(const Dataset *data, int64_t n, SamplePiece **pieces);

#endif
