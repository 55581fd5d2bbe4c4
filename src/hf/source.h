/* source.h: a model that lies on a disk, as a checkpoint of cria or as a Hugging Face directory:
 * its configuration, and its weights in fp32. */
#ifndef CRIA_HF_SOURCE_H
#define CRIA_HF_SOURCE_H

#include "hf/files.h"
#include "model/params.h"

typedef struct {
    const char *path; /* borrowed */
    Config config;    /* of a Hugging Face directory: hf_config_parse's */
    HfExtra extra;    /* of a checkpoint: resolved */
    ParamTable *table;
    Checkpoint *ck;           /* NULL: a directory */
    uint32_t crc;             /* of what has been read of a tensor */
    HfFiles files;            /* of a directory */
    const HfTensor **tensors; /* per tensor of the table */
} ModelSource;

/* ERR_USER when it is no LLaMA that cria computes exactly, or its parts do not fit together. Must
 * be closed in either case. */
Status model_source_open_checkpoint(ModelSource *s, const char *path);
Status model_source_open_directory(ModelSource *s, const char *path);
void model_source_close(ModelSource *s);

/* Elements [begin, begin + n) of tensor i of the table. A tensor of a checkpoint is read from its
 * first element on: ERR_USER at its last when it is not what was written. */
Status model_source_read(ModelSource *s, int i, int64_t begin, int64_t n, float *out);

#endif
