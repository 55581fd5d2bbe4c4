/* params.h: the parameter table of a LLaMA: one list of tensors with their Hugging Face names, its
 * order in one flat buffer, and the buckets in which gradients are reduced and weights gathered.
 * The table drives initialisation, the optimizer, checkpoints and export. No memory of its own
 * tensors.
 *
 * Tensors that are used as one matrix are neighbours: q_proj, k_proj, v_proj form [(H+2K)*D, C] and
 * gate_proj, up_proj form [2F, C]. Buckets in forward order: embedding; one per layer; final norm
 * and head. Each is padded so that world ranks own equal, aligned parts of it. */
#ifndef CRIA_MODEL_PARAMS_H
#define CRIA_MODEL_PARAMS_H

#include "config/config.h"
#include "ops/linear.h"

#define PARAM_ALIGN    64  /* elements; the start of every tensor and shard */
#define VOCAB_MULTIPLE 128 /* model.vocab is padded to this in memory, never in files */

typedef struct {
    char name[80];      /* as in Hugging Face's LlamaForCausalLM */
    int ndim;           /* 1 or 2 */
    int64_t rows, cols; /* shape in files; cols = 1 when ndim = 1 */
    int64_t count;      /* elements in memory: rows * cols, or more for a padded vocabulary */
    int64_t offset;     /* first element in the flat buffer */
    int bucket, layer;  /* layer -1: not in a layer */
    bool decay;         /* weight decay applies (matrices; not norms) */
    double init_std;    /* matrices: normal(0, init_std); norms start as ones */
} Param;

typedef struct {
    int64_t offset, count; /* elements; count is a multiple of world * PARAM_ALIGN */
} ParamBucket;

typedef struct {
    Param *params;
    int n_params;
    ParamBucket *buckets;
    int n_buckets;
    int64_t total;     /* elements of the flat buffer, with padding */
    int64_t n_weights; /* elements in files: the parameter count people quote */
    int world;
    int vocab_padded;
    /* indices into params */
    int embed, final_norm, head;   /* head == embed when tied */
    int layer_first, layer_stride; /* layer l's first tensor: layer_first + l * layer_stride */
} ParamTable;

/* Order of the tensors inside a layer. */
enum {
    PARAM_INPUT_NORM,
    PARAM_Q,
    PARAM_K,
    PARAM_V,
    PARAM_O,
    PARAM_POST_NORM,
    PARAM_GATE,
    PARAM_UP,
    PARAM_DOWN,
    PARAMS_PER_LAYER
};

/* The tensors of a layer: names, shapes and their order in memory. Initialisation, checkpoints,
 * import and export follow from it. */
typedef enum { DIM_ONE, DIM_HIDDEN, DIM_HEADS, DIM_KV_HEADS, DIM_FFN } ParamDim;
typedef struct {
    const char *name; /* of the module in Hugging Face's LlamaDecoderLayer */
    ParamDim rows, cols;
    bool fused;    /* forms one matrix with the tensor before it */
    bool residual; /* writes into the residual stream */
    int module;    /* its place in the order of the modules */
} ParamSpec;
extern const ParamSpec param_specs[PARAMS_PER_LAYER];

ParamTable *param_table_create(const ModelConfig *m, int world);
void param_table_free(ParamTable *t);

/* Kinds of tensors whose gradients are told apart. With tied embeddings the one matrix is
 * CLASS_EMBEDDING, and CLASS_HEAD is empty. */
typedef enum {
    CLASS_EMBEDDING,
    CLASS_QKV,
    CLASS_O,
    CLASS_GATE_UP,
    CLASS_DOWN,
    CLASS_NORMS,
    CLASS_HEAD,
    PARAM_CLASSES
} ParamClass;
extern const char *const param_class_names[PARAM_CLASSES];
ParamClass param_class(const ParamTable *t, int param);

/* Offset of tensor `which` of layer l. */
static inline int64_t param_layer_offset(const ParamTable *t, int l, int which) {
    return t->params[t->layer_first + l * t->layer_stride + which].offset;
}

/* The linear layers, for S tokens; those of neighbouring tensors are one. */
typedef struct {
    Linear qkv, o, gate_up, down, head;
} ModelLinears;
ModelLinears model_linears(const ModelConfig *m, int64_t S);

/* A contiguous part of one tensor that a rank owns. Rank r owns block r of every bucket. */
typedef struct {
    int param;
    int64_t begin, count; /* elements of the tensor as in files (padding belongs to nobody) */
    int64_t flat;         /* where it starts in the flat buffer */
    int64_t shard;        /* where it starts in a buffer of the rank's blocks, back to back */
} ParamPiece;

/* The pieces of `rank`, in flat order; over all ranks they cover every tensor once. Returns their
 * number; free(*pieces). */
int param_table_pieces(const ParamTable *t, int rank, ParamPiece **pieces);

/* Element `index` (row-major in the file's shape) of tensor i as initialised from seed: a pure
 * function, the same for every world size and backend. Padding is zero. */
float param_init_value(const ParamTable *t, int i, int64_t index, uint64_t seed);

#endif
