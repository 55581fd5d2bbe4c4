/* rope.h: rotary frequencies, with Llama-3's scaling for longer contexts. */
#ifndef CRIA_MODEL_ROPE_H
#define CRIA_MODEL_ROPE_H

#include "config/config.h"

/* inv_freq[head_dim / 2] = theta^(-2i/D), in fp32 as Hugging Face computes them. With a factor
 * above 1, wavelengths over original/low are stretched by it, those under original/high are kept,
 * and those between are blended (Llama 3.1's "llama3" rope type). */
void rope_inv_freq(float *inv_freq, const ModelConfig *m);

#endif
