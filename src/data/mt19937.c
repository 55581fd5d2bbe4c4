#include "data/mt19937.h"

enum { N = 624, M = 397 };

void mt_seed(Mt *mt, uint32_t seed) {
    for (uint32_t i = 0; i < N; i++) {
        mt->state[i] = seed;
        seed = 1812433253u * (seed ^ seed >> 30) + i + 1;
    }
    mt->next = N;
}

static void refill(Mt *mt) {
    uint32_t *s = mt->state;
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    mt->next = 0;
}

uint32_t mt_u32(Mt *mt) {
    if (mt->next == N) refill(mt);
    uint32_t y = mt->state[mt->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* Masked rejection, like numpy's random_interval. */
static uint32_t below_or_equal(Mt *mt, uint32_t max) {
    uint32_t mask = UINT32_MAX >> __builtin_clz(max), v;
    do v = mt_u32(mt) & mask;
    while (v > max);
    return v;
}

void mt_shuffle(Mt *mt, uint32_t *a, int64_t n) {
    /* The partners do not depend on the contents: drawn some ahead, each swap finds its cache line
     * on the way. */
    enum { AHEAD = 64 };
    uint32_t partner[AHEAD];
    for (int64_t i = n - 1; i >= 1;) {
        int k = 0;
        for (; k < AHEAD && i - k >= 1; k++) {
            partner[k] = below_or_equal(mt, (uint32_t)(i - k));
            __builtin_prefetch(&a[partner[k]], 1);
        }
        for (int j = 0; j < k; j++, i--) {
            uint32_t t = a[i];
            a[i] = a[partner[j]];
            a[partner[j]] = t;
        }
    }
}
