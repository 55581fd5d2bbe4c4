/* What is said of copies between ranks that arrive damaged or slowly, of made-up results. */
#include "test.h"

#include <stdlib.h>

#include "session/peers.h"

enum { WORLD = 4 };

static PeerResult results[WORLD];

/* Every rank copies from every other one, on two nodes. */
static int all_well(void **state) {
    (void)state;
    for (int r = 0; r < WORLD; r++) {
        results[r] = (PeerResult){.node = {(char)('a' + r / 2)}, .n = WORLD - 1};
        for (int i = 0; i < WORLD - 1; i++)
            results[r].copies[i] = (PeerCopy){.from = i + (i >= r), .right = 1, .gb_s = 100};
    }
    return 0;
}

/* Of the copy to `rank` from `from`. */
static PeerCopy *copy_of(int rank, int from) {
    return &results[rank].copies[from - (from > rank)];
}

static void expect_slow(int world, bool timed, const char *begin) {
    StrBuf slow = {0};
    assert_status_ok(peers_judge(results, world, timed, &slow));
    const char *text = strbuf_text(&slow);
    if (strncmp(text, begin, strlen(begin)) != 0 || (begin[0] == '\0') != (text[0] == '\0'))
        fail_msg("found '%s', expected '%s...'", text, begin);
    strbuf_free(&slow);
}

static void pairs_alike_are_well(void **state) {
    (void)state;
    copy_of(1, 0)->gb_s = 51;
    copy_of(2, 3)->gb_s = 900;
    expect_slow(WORLD, true, "");
    for (int r = 0; r < WORLD; r++) results[r].n = 0; /* nobody reaches anybody */
    expect_slow(WORLD, true, "");
}

static void a_slow_pair_is_named(void **state) {
    (void)state;
    copy_of(1, 3)->gb_s = 49;
    expect_slow(WORLD, true,
                "rank 1 from rank 3 on node a (49 GB/s): copies between their memories have less "
                "than half the median pair's rate, 100 GB/s; ");
    expect_slow(WORLD, false, "");
    copy_of(3, 1)->gb_s = 1;
    expect_slow(WORLD, true,
                "rank 1 from rank 3 on node a (49 GB/s), rank 3 from rank 1 on node b (1 GB/s): ");
}

static void of_two_ranks_one_way_can_be_slow(void **state) {
    (void)state;
    results[0].n = results[1].n = 1;
    copy_of(1, 0)->gb_s = 20;
    expect_slow(2, true, "rank 1 from rank 0 on node a (20 GB/s): ");
}

static void wrong_pairs_are_named(void **state) {
    (void)state;
    StrBuf slow = {0};
    copy_of(2, 0)->right = 0;
    copy_of(1, 0)->gb_s = 1;
    assert_status_fails(peers_judge(results, WORLD, true, &slow), ERR_ENV,
                        "rank 2 from rank 0 on node b: a pattern");
    for (int r = 0; r < WORLD; r++)
        for (int i = 0; i < WORLD - 1; i++) results[r].copies[i].right = 0;
    assert_status_fails(peers_judge(results, WORLD, false, &slow), ERR_ENV,
                        "rank 2 from rank 1 on node b, 4 more pairs: a pattern");
    assert_int_equal(slow.len, 0);
}

#define CASE(test) cmocka_unit_test_setup(test, all_well)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(pairs_alike_are_well),
        CASE(a_slow_pair_is_named),
        CASE(of_two_ranks_one_way_can_be_slow),
        CASE(wrong_pairs_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
