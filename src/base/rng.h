/* rng.h: counter-based random numbers (Philox4x32-10; Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). No hidden state: a draw is a pure function of (seed, stream, index),
 * so any rank can compute any draw, and restarts need nothing saved. */
#ifndef CRIA_BASE_RNG_H
#define CRIA_BASE_RNG_H

#include <stdint.h>

/* Streams keep purposes apart; the low bits of `stream` are free for a tensor or epoch number. */
typedef enum { RNG_INIT = 1, RNG_ORDER = 2, RNG_TEST = 3, RNG_PLAN = 4, RNG_SAMPLE = 5 } RngPurpose;
static inline uint64_t rng_stream(RngPurpose purpose, uint64_t which) {
    return ((uint64_t)purpose << 56) ^ which;
}

/* The finaliser of splitmix64 (Steele et al., 2014): every bit of x changes half of the result's.
 */
static inline uint64_t mix64(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* Four uniform 32-bit words. */
void rng_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t index);

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index); /* in [0, 1) */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);  /* mean 0, deviation 1 */

/* The image of `index` (0 <= index < n) under a pseudo-random permutation of 0..n-1 that (seed,
 * stream) names: a four-round Feistel network over the next even power of two with cycle walking,
 * so a shuffle of billions needs no array. n >= 1. */
uint64_t rng_permute(uint64_t n, uint64_t seed, uint64_t stream, uint64_t index);

#endif
