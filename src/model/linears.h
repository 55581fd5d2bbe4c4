/* linears.h: the linear layers of a model, in the activation type or in FP8.
 *
 * FP8 is per-tensor current scaling (as NVIDIA's Transformer Engine calls it): before each product
 * its operands are scaled by their own absolute maximum and rounded, x and w to F8_E4M3, the
 * gradient dy of an output to F8_E5M2 or F8_E4M3; products are summed in fp32, and the gradient of
 * a weight is added up in fp32. Every operand is needed once by rows and once transposed, since
 * FP8 products on Hopper take both factors with the summed index contiguous:
 *     y = x w^T: rows of x, rows of w    dx = dy w: rows of dy, columns of w
 *     dw = dy^T x: columns of dy, columns of x
 * One pass makes both. The columns of x are kept from the forward to the backward, which therefore
 * needs no x of its own. A scale is of the tokens of one rank. */
#ifndef CRIA_MODEL_LINEARS_H
#define CRIA_MODEL_LINEARS_H

#include "config/config.h"
#include "model/params.h"
#include "ops/arena.h"

typedef enum {
    LINEAR_QKV,
    LINEAR_O,
    LINEAR_GATE_UP,
    LINEAR_DOWN,
    LINEARS_PER_LAYER,
    LINEAR_HEAD = LINEARS_PER_LAYER, /* of no layer: its layer is model.layers */
    LINEAR_KINDS
} LinearKind;
extern const char *const linear_kind_names[LINEAR_KINDS]; /* "qkv", "gate_up" */

/* Which operand of a product. */
typedef enum { OPERAND_INPUT, OPERAND_WEIGHT, OPERAND_GRADIENT, OPERAND_KINDS } OperandKind;
extern const char *const operand_kind_names[OPERAND_KINDS]; /* "input" */

typedef struct {
    const Ops *ops;
    const ModelConfig *model;
    const ParamTable *table;
    const Fp8Config *fp8; /* NULL: everything in the activation type */
    int64_t S, head_rows; /* most rows of a layer's products, and of the head's at once */
    bool share_layers;    /* one layer's kept inputs at a time (memory.recompute: layer) */
} LinearsOptions;

typedef struct Linears Linears;

/* Reserves what FP8 needs; usable after arena_commit and linears_start. */
Linears *linears_create(const LinearsOptions *options, Arena *arena);
void linears_free(Linears *l);
/* weights: flat, activation type, ParamTable order */
void linears_start(Linears *l, const void *weights, Stream *stream);

/* Is this layer's product in FP8? Then the backward does not read x. */
bool linears_is_fp8(const Linears *l, int layer, LinearKind kind);

/* Where the op that makes x (OPERAND_INPUT) or dy (OPERAND_GRADIENT) of this product puts its
 * absolute maximum, before linears_fwd or linears_dgrad; NULL where the product is not in FP8. The
 * linear layers find that of the input of LINEAR_O and of the head's operands themselves. */
float *linears_absmax(const Linears *l, int layer, LinearKind kind, OperandKind operand);

/* Makes the FP8 copies of the weights: before the first product after they changed. */
void linears_cast_weights(Linears *l, Stream *stream);
/* Before each forward of a micro-batch. */
void linears_begin(Linears *l, Stream *stream);

/* One linear layer of a model and S rows. */
typedef struct {
    int layer;
    LinearKind kind;
    int64_t S;
} LinearAt;

/* y = x w^T (+ residual unless NULL). keep: a backward will follow. */
void linears_fwd(Linears *l, LinearAt at, void *y, const void *x, const void *residual, bool keep,
                 Stream *stream);
/* dx = dy w, and then, before any other call of these, dw += dy^T x with the same dy. */
void linears_dgrad(Linears *l, LinearAt at, void *dx, const void *dy, Stream *stream);
void linears_wgrad(Linears *l, LinearAt at, float *dw, const void *dy, const void *x,
                   Stream *stream);

/* Copies to the host how the operands fared since the last call, by kind of layer (LinearKind) and
 * operand (OperandKind), and begins again. Only where options.fp8 was given. Waits for the stream.
 */
typedef struct {
    Fp8Counts of[LINEAR_KINDS][OPERAND_KINDS];
} LinearsCounts;
Status linears_take_counts(Linears *l, LinearsCounts *out, Stream *stream);

#endif
