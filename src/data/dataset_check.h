/* dataset_check.h: data that can be read, but are surely not what was meant. */
#ifndef CRIA_DATA_DATASET_CHECK_H
#define CRIA_DATA_DATASET_CHECK_H

#include "data/dataset.h"

typedef struct {
    const char *name; /* of the data in messages: "data.train" */
    int64_t vocab;
    int64_t eod; /* -1: none */
    /* What depends on where documents end: data.mask document and the keys of these names. */
    bool document_mask, reset_positions, eod_mask_loss;
    double epochs; /* that the run takes; 0: does not matter */
} DatasetUse;

/* Reads the first 4 Mi tokens of each source and warns of an eod that does not occur, ids far below
 * the vocabulary or of a type that cannot hold it, and thousands of epochs. ERR_USER: an id outside
 * the vocabulary. */
Status dataset_check(const Dataset *data, const DatasetUse *use);

#endif
