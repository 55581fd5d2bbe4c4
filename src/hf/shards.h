/* shards.h: which file of an export each tensor goes to, as transformers 4 fills them. */
#ifndef CRIA_HF_SHARDS_H
#define CRIA_HF_SHARDS_H

#include "model/params.h"

typedef struct {
    int *of; /* per tensor of the table */
    int n;   /* files */
} HfShards;

/* No file has more than shard_bytes of weights, unless one tensor is larger. free(shards.of) */
HfShards hf_shards_assign(const ParamTable *t, Dtype dtype, int64_t shard_bytes);
/* model.safetensors, or model-00001-of-00002.safetensors and so on; the caller frees it. */
char *hf_shard_name(const HfShards *s, int shard);

#endif
