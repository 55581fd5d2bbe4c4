/* order.h: the order in which Megatron-LM core_v0.11 shows samples (megatron/core/datasets:
 * gpt_dataset.py, blended_dataset.py, helpers.cpp), sample for sample. The sequences of one file
 * are shuffled over all epochs of the run and laid end to end; sample s takes seq_len + 1 tokens
 * from token s * seq_len of that stream; the samples are shuffled once more. So the order depends
 * on the number of samples the run asks for: another run.steps can be another order from the start.
 */
#ifndef CRIA_DATA_ORDER_H
#define CRIA_DATA_ORDER_H

#include "data/megatron.h"

/* ---- one file ------------------------------------------------------------------------------ */

typedef struct {
    const MegatronIndex *index;
    const char *name;   /* of the file and its contents, for sharing among processes */
    int64_t first, end; /* its sequences that take part */
    int64_t seq_len;
    int64_t samples; /* the run asks for; -1: one epoch */
    uint32_t seed;
} OrderOptions;

typedef struct Order Order;

/* ERR_USER: too few tokens for one sample. The tables (4 bytes a sequence and epoch, 4 a sample)
 * are held once per node. */
Status order_open(Order **order, const OrderOptions *options);
void order_close(Order *order);
int64_t order_samples(const Order *order); /* >= those asked for */
/* Sample n (0 <= n < samples) starts in the sequence at *position of the shuffled sequences,
 * *offset tokens behind its beginning. */
void order_find(const Order *order, int64_t n, int64_t *position, int64_t *offset);
/* Number in the file of the sequence at a position. */
int64_t order_sequence(const Order *order, int64_t position);

/* ---- several files --------------------------------------------------------------------------- */

typedef struct Blend Blend;

/* `size` samples drawn from n sources in proportion to their normalized weights, each time from the
 * one that is furthest behind. */
Status blend_open(Blend **blend, int n, const double *weights, int64_t size);
void blend_close(Blend *blend);
int blend_find(const Blend *blend, int64_t n, int64_t *sample); /* the source of sample n */

/* As numpy does it: sums in pairs, which decides ties of weights. In place. */
void blend_normalize(int n, double *weights);
/* Samples that Megatron asks of a source, with a margin in percent. */
int64_t blend_request(int64_t size, double weight, double margin);

#endif
