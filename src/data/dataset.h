/* dataset.h: token files as one stream of samples. A sample is seq_len + 1 consecutive tokens;
 * sample k of a file starts at token k * seq_len (neighbours share one token, so every token but
 * the first of a file is predicted exactly once per epoch). */
#ifndef CRIA_DATA_DATASET_H
#define CRIA_DATA_DATASET_H

#include "../config.h"
#include "tokens.h"

typedef struct Dataset Dataset;

typedef struct {
    const DataSource *sources;
    int n_sources;
    DataFormat format;
    int64_t seq_len, vocab;
    uint64_t seed;
    bool shuffle; /* false: every file is walked in order (evaluation) */
} DatasetOptions;

/* Maps every file and checks its size. ERR_USER names the file and what is wrong (missing, empty,
 * odd size, too short for one sample; a weight given to some sources only). Options are copied. */
Status dataset_open(Dataset **data, const DatasetOptions *options);
void dataset_close(Dataset *data);

int64_t dataset_seq_len(const Dataset *data);
int64_t dataset_epoch_samples(const Dataset *data); /* samples of all files, each once */
int64_t dataset_tokens(const Dataset *data);
uint32_t dataset_fingerprint(const Dataset *data); /* paths' base names, sizes, sampled contents */

/* Sample number n of the run (n >= 0, endless): copies seq_len + 1 ids. Pure function of (files,
 * options, n): files are interleaved by weight without state, and every file is walked in a fresh
 * permutation each epoch. ERR_USER for an id >= vocab: file, offset, id. */
Status dataset_sample(Dataset *data, int64_t n, int32_t *tokens);

#endif
