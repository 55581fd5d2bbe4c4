/* optimizer.h: AdamW with ZeRO-1 (Rajbhandari et al., 2020): gradients are reduced bucket by bucket
 * to their owners, every rank updates its own part of master weights and moments, and the new
 * weights are gathered. With zero = 0 every rank keeps and updates everything; the numbers are the
 * same to the bit, because gradients are reduced by the same calls and then gathered. */
#ifndef CRIA_OPTIM_OPTIMIZER_H
#define CRIA_OPTIM_OPTIMIZER_H

#include "ops/arena.h"
#include "comm/comm.h"
#include "model/params.h"

enum { OPTIM_STATES_MAX = 4 };

/* What an optimizer keeps of every weight. */
typedef struct {
    const char *label;  /* for people: "first moments" */
    const char *prefix; /* of the names of its tensors in a checkpoint: "optim.m." */
} OptimState;

/* The update of `count` elements of one tensor. */
typedef struct {
    const Ops *ops;
    const OptimConfig *config;
    const Param *param;
    float *states[OPTIM_STATES_MAX]; /* as in the description */
    void *weights;                   /* in the activation type; written */
    const float *grads;
    int64_t count;
    int64_t t; /* number of the update, from 1 */
    double lr, grad_scale;
} OptimUpdate;

/* An optimizer. Memory, checkpoints, comparisons of ranks and what people are told follow from it.
 */
typedef struct {
    const char *name;
    int n_states;                        /* states[0] are the weights in fp32 */
    OptimState states[OPTIM_STATES_MAX]; /* in the order of checkpoints */
    void (*update)(const OptimUpdate *u, Stream *stream);
} OptimDesc;
/* Its states; OPTIM_WEIGHT is every optimizer's. */
enum { OPTIM_WEIGHT, OPTIM_M, OPTIM_V };
extern const OptimDesc optim_adamw;

typedef struct Optimizer Optimizer;

/* Reserves the states (but no master weights where the activation type is fp32: then the weights
 * are the master) in region "optimizer". All pointers are borrowed; table->world == comm->size. */
Optimizer *optimizer_create(const OptimConfig *config, int zero, const ParamTable *table,
                            const Ops *ops, Comm *comm, Arena *arena);
void optimizer_free(Optimizer *o);
const OptimDesc *optimizer_desc(const Optimizer *o);

/* After arena_commit: the flat weights and gradients of the model. */
Status optimizer_start(Optimizer *o, void *weights, float *grads);

/* Weights as initialised from seed, other states zero, then optimizer_publish. */
Status optimizer_init(Optimizer *o, uint64_t seed, Stream *stream);
/* Makes the weights of every rank from the master weights of their owners. */
Status optimizer_publish(Optimizer *o, Stream *stream);

/* Reduces one bucket's gradients over all ranks (collective), beside `stream`: the backward of
 * earlier layers goes on meanwhile. optimizer_grad_norm waits for all of them. */
Status optimizer_reduce_bucket(Optimizer *o, int bucket, Stream *stream);

/* L2 norm over all reduced gradients, unscaled. The same double on every rank. */
Status optimizer_grad_norm(Optimizer *o, double *norm, Stream *stream);
/* After it: the norms of the tensors of each class, on every rank; their squares add up to its. */
Status optimizer_class_norms(Optimizer *o, Comm *host, double norms[PARAM_CLASSES], Stream *stream);

/* Update number t >= 1: gradients are multiplied by grad_scale first. Weights are gathered. */
Status optimizer_step(Optimizer *o, int64_t t, double lr, double grad_scale, Stream *stream);

/* State `which` of a piece of this rank, in device memory. */
float *optimizer_state(Optimizer *o, int which, const ParamPiece *piece);

/* A checksum of each tensor that every rank holds all of: sums[which * n_params + i] is of tensor
 * i's weights (which = 0) and of its states (1 + OPTIM_WEIGHT, ...), which are 0 where ranks hold
 * only their own. sums is host memory [(1 + n_states) * n_params]; waits for the stream. */
Status optimizer_checksums(Optimizer *o, uint64_t *sums, Stream *stream);

/* CRC-32 of all master weights in file order (little-endian fp32), the same for any world size;
 * collective over `host`. */
Status optimizer_weights_crc(Optimizer *o, Comm *host, Stream *stream, uint32_t *crc);

#endif
