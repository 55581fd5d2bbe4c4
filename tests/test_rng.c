/* The random numbers of a run are part of its results: they are what their authors published, on
 * every machine. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "data/mt19937.h"

/* Random123's file kat_vectors, lines "philox4x32 10": counter, key, result. */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const uint32_t vectors[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        const uint32_t *v = vectors[i];
        uint64_t index = (uint64_t)v[1] << 32 | v[0], stream = (uint64_t)v[3] << 32 | v[2];
        uint64_t seed = (uint64_t)v[5] << 32 | v[4];
        uint32_t out[4];
        rng_philox(out, seed, stream, index);
        assert_memory_equal(out, v + 6, sizeof out);
        assert_true(rng_u64(seed, stream, index) == ((uint64_t)v[7] << 32 | v[6]));
    }
}

/* The C++ standard, [rand.predef]: seed 5489, the 10,000th output is 4123659995. */
static void mt19937_gives_the_published_numbers(void **state) {
    (void)state;
    static const uint32_t of_5489[] = {3499211612, 581869302, 3890346734, 3586334585, 545404204};
    static const uint32_t of_1234[] = {0x31076b2f, 0x7f66e2d3, 0x9f428526, 0xd15ddc35}; /* numpy */
    Mt mt;
    mt_seed(&mt, 5489);
    for (int i = 0; i < 5; i++) assert_true(mt_u32(&mt) == of_5489[i]);
    for (int i = 6; i < 10000; i++) mt_u32(&mt);
    assert_true(mt_u32(&mt) == 4123659995);
    mt_seed(&mt, 1234);
    for (int i = 0; i < 4; i++) assert_true(mt_u32(&mt) == of_1234[i]);
}

static void uniform_and_normal_have_their_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double sum = 0, normal[5] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(1, rng_stream(RNG_TEST, 7), i),
               x = rng_normal(1, rng_stream(RNG_TEST, 8), i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        for (int k = 1; k <= 4; k++) normal[k] += pow(x, k);
    }
    /* six standard deviations of each mean */
    assert_true(fabs(sum / N - 0.5) < 6 * sqrt(1.0 / 12 / N));
    assert_true(fabs(normal[1] / N) < 6 * sqrt(1.0 / N));
    assert_true(fabs(normal[2] / N - 1) < 6 * sqrt(2.0 / N));
    assert_true(fabs(normal[3] / N) < 6 * sqrt(15.0 / N));
    assert_true(fabs(normal[4] / N - 3) < 6 * sqrt(96.0 / N));
}

static void a_permutation_takes_every_place_once(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1,  2,  3,  4,    5,    15,   16,   17,
                                     63, 64, 65, 1000, 4096, 4097, 65537};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            uint64_t n = sizes[s];
            unsigned char *seen = NEW(unsigned char, n);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = rng_permute(n, seed, rng_stream(RNG_TEST, 9), i);
                assert_true(at < n);
                assert_int_equal(seen[at]++, 0);
            }
            free(seen);
        }
}

/* Another seed or stream is another permutation; none is near the identity. */
static void permutations_differ(void **state) {
    (void)state;
    enum { N = 10000 };
    int fixed = 0, same_seed = 0, same_stream = 0;
    for (uint64_t i = 0; i < N; i++) {
        uint64_t at = rng_permute(N, 1, 1, i);
        fixed += at == i;
        same_seed += at == rng_permute(N, 2, 1, i);
        same_stream += at == rng_permute(N, 1, 2, i);
    }
    /* Each count is about Poisson with mean 1: above 12 with probability 1e-10. */
    assert_true(fixed <= 12 && same_seed <= 12 && same_stream <= 12);
}

static void a_permutation_needs_no_array(void **state) {
    (void)state;
    static const uint64_t sizes[] = {8013769, (1ull << 32) + 1, 1ull << 53, UINT64_MAX};
    for (int s = 0; s < 4; s++) {
        uint64_t images[64];
        for (uint64_t i = 0; i < 64; i++) {
            images[i] = rng_permute(sizes[s], 5, 6, sizes[s] - 64 + i);
            assert_true(images[i] < sizes[s]);
            for (uint64_t k = 0; k < i; k++) assert_true(images[k] != images[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(mt19937_gives_the_published_numbers),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
        cmocka_unit_test(a_permutation_takes_every_place_once),
        cmocka_unit_test(permutations_differ),
        cmocka_unit_test(a_permutation_needs_no_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
