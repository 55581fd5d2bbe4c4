/* What the guard keeps in checkpoints. (What it does: tests/e2e/bad_batches_are_left_out.sh) */
#include "test.h"

#include "train/guard.h"

static GuardState guard_of(int64_t seen) {
    GuardState g = {.skipped = 3, .in_a_row = 1, .seen = seen};
    for (int64_t i = 0; i < i64_min(seen, GUARD_WINDOW); i++) g.losses[i] = 8 / (0.1 + (double)i);
    return g;
}

static void what_is_printed_is_read_back_to_the_bit(void **state) {
    (void)state;
    static const int64_t seen[] = {0, 1, 20, 99, 100, 101, 123456789012};
    for (int i = 0; i < 7; i++) {
        GuardState g = guard_of(seen[i]), again = guard_of(50);
        StrBuf text = {0};
        guard_print(&g, &text);
        assert_status_ok(guard_parse(&again, text.text));
        assert_memory_equal(&g, &again, sizeof g);
        strbuf_free(&text);
    }
}

static void anything_else_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"",       "1",        "1 2",      "1 2 x",   "1 2 1",
                                        "1 2 -1", "0 0 1 2 3", "0 0 2 1.5", "0 0 0 ?", "-1 0 0"};
    for (int i = 0; i < 10; i++) {
        GuardState g;
        assert_status_fails(guard_parse(&g, texts[i]), ERR_USER, "expected three counts");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_is_read_back_to_the_bit),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
