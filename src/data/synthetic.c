#include "data/synthetic.h"

#include <math.h>

#include "base/base.h"
#include "base/rng.h"
#include "data/mt19937.h"

int64_t synthetic_pack(uint64_t seed, uint64_t stream, int64_t S, int64_t T, int32_t *begin) {
    static const struct {
        int64_t least, most, count;
    } bins[] = {{0, 10, 30254},         {11, 50, 391188},       {51, 100, 699596},
                {101, 200, 1377757},    {201, 500, 3794735},    {501, 1024, 3316785},
                {1025, 2048, 2106566},  {2049, 4096, 988525},   {4097, 8192, 410002},
                {8193, 16384, 173574},  {16385, 32768, 115007}, {32769, 65536, 18428},
                {65537, 131072, 22513}, {131073, 196608, 18284}};
    int64_t n_bins = sizeof bins / sizeof *bins, total = 0, n = 0;
    for (int64_t i = 0; i < n_bins; i++) total += bins[i].count;
    for (int64_t at = 0, next; at < S; at = next) {
        int64_t x = (int64_t)(rng_u64(seed, stream, (uint64_t)n) % (uint64_t)total), bin = 0;
        while (x >= bins[bin].count) x -= bins[bin++].count;
        begin[n++] = (int32_t)at;
        int64_t length = i64_min((bins[bin].least + bins[bin].most) / 2, ceil_div(T, 4));
        next = i64_min(at + length, (at / T + 1) * T);
    }
    return n;
}

int64_t synthetic_documents(uint32_t seed, int64_t S, int32_t *begin) {
    Mt mt;
    mt_seed(&mt, seed);
    int64_t n = 0;
    for (int64_t at = 0; at < S; n++) {
        double u = (double)(mt_u32(&mt) & 0xffffff) * 0x1p-24; /* of 24 bits, as a float has */
        begin[n] = (int32_t)at;
        at += (int64_t)exp(log(100) + u * (log(4000) - log(100)));
    }
    return n;
}
