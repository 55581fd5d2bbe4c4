/* generator.h: a trained model, opened to generate and not to train: weights and a KV cache on one
 * device. */
#ifndef CRIA_SESSION_GENERATOR_H
#define CRIA_SESSION_GENERATOR_H

#include "hf/source.h"
#include "model/generate.h"

typedef struct {
    char *path; /* of the checkpoint; NULL: it is a directory */
    ModelSource source;
    const Ops *ops;
    Stream *stream;
    Arena arena;
    void *weights;
    float *block; /* weights on their way, in device memory */
    Decoder *decoder;
} Generator;

/* Opens a checkpoint, or the Hugging Face directory or newest checkpoint that a directory is. The
 * configuration is known then, and no weight is read. ERR_USER when it is no model or damaged. Must
 * be closed in either case. */
Status generator_open(Generator *g, const char *path);
/* Reads the weights to the device, with a cache for sequences of max_tokens. ERR_USER when a weight
 * is NaN or infinite, or a checksum is wrong. */
Status generator_start(Generator *g, DeviceKind device, int64_t max_tokens);
void generator_close(Generator *g);

#endif
