/* mt19937.h: the generator behind numpy.random.RandomState (Matsumoto and Nishimura 1998), as far
 * as Megatron-LM's data order needs it. */
#ifndef CRIA_DATA_MT19937_H
#define CRIA_DATA_MT19937_H

#include <stdint.h>

typedef struct {
    uint32_t state[624];
    int next;
} Mt;

void mt_seed(Mt *mt, uint32_t seed); /* init_genrand, as RandomState(seed) */
uint32_t mt_u32(Mt *mt);
/* RandomState.shuffle of an array of 4-byte elements, n < 2^32. */
void mt_shuffle(Mt *mt, uint32_t *a, int64_t n);

#endif
