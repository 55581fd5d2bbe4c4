/* megatron_dataset.h: private to dataset.c: the samples of ORDER_MEGATRON, from one file or a
 * blend. */
#ifndef CRIA_DATA_MEGATRON_DATASET_H
#define CRIA_DATA_MEGATRON_DATASET_H

#include "data/dataset.h"
#include "data/source.h"

typedef struct MegatronDataset MegatronDataset;

/* The sources are borrowed. ERR_USER: a file without an index, a seed or size it cannot have. */
Status megatron_dataset_open(MegatronDataset **data, const Source *sources,
                             const DatasetOptions *options);
void megatron_dataset_close(MegatronDataset *data); /* NULL is fine */
/* As dataset_sample_documents; every piece of another sequence begins a document. */
Status megatron_dataset_sample(const MegatronDataset *data, int64_t n, int64_t vocab,
                               int32_t *tokens, int32_t *begins, int32_t *n_begins);
/* As dataset_sample_pieces. */
int64_t megatron_dataset_pieces(const MegatronDataset *data, int64_t n, SamplePiece **pieces);

#endif
