/* What is said of devices that multiply wrongly or slowly, of made-up results. */
#include "test.h"

#include <stdlib.h>

#include "session/hardware.h"

enum { WORLD = 4 };

static HardwareResult results[WORLD];

static int all_well(void **state) {
    (void)state;
    for (int r = 0; r < WORLD; r++)
        results[r] = (HardwareResult){.ms = 0.2, .right = 1, .node = {(char)('a' + r / 2)}};
    return 0;
}

/* Judges the first `world`; *slow is the caller's to free. */
static Status judge(int world, bool timed, char **slow) {
    StrBuf text = {0};
    Status st = hardware_judge(results, world, timed, &text);
    *slow = mem_strdup(strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

static void expect_slow(int world, bool timed, const char *begin) {
    char *slow;
    assert_status_ok(judge(world, timed, &slow));
    if (strncmp(slow, begin, strlen(begin)) != 0 || (begin[0] == '\0') != (slow[0] == '\0'))
        fail_msg("found '%s', expected '%s...'", slow, begin);
    free(slow);
}

static void devices_alike_are_well(void **state) {
    (void)state;
    results[1].ms = 0.2 / 0.81; /* 81 % of the median's speed */
    for (int world = 1; world <= WORLD; world++) expect_slow(world, true, "");
}

static void a_slow_device_is_named(void **state) {
    (void)state;
    results[1].ms = 0.2 / 0.79;
    expect_slow(WORLD, true,
                "rank 1 on node a (0.253 ms): a product of matrices takes longer than "
                "the ranks' median, 0.2 ms; ");
    expect_slow(2, true, "rank 1 on node a (0.253 ms): "); /* of two, too */
    expect_slow(WORLD, false, "");
    results[3].ms = 1;
    expect_slow(WORLD, true, "rank 1 on node a (0.253 ms), rank 3 on node b (1 ms): ");
}

static void wrong_devices_end_the_run(void **state) {
    (void)state;
    char *slow;
    results[2].right = 0;
    assert_status_fails(judge(WORLD, false, &slow), ERR_ENV, "rank 2 on node b: a product");
    free(slow);
    results[0].right = 0;
    results[1].ms = 9;
    assert_status_fails(judge(WORLD, true, &slow), ERR_ENV,
                        "rank 0 on node a, rank 2 on node b: a product");
    assert_string_equal(slow, "");
    free(slow);
}

#define CASE(test) cmocka_unit_test_setup(test, all_well)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(devices_alike_are_well),
        CASE(a_slow_device_is_named),
        CASE(wrong_devices_end_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
