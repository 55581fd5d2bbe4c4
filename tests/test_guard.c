/* What the guard keeps in checkpoints, and the entries beside it. (What it does:
 * tests/e2e/bad_batches_are_left_out.sh) */
#include "test.h"

#include "session/train_state.h"

static GuardState guard_of(int64_t seen) {
    GuardState g = {.skipped = 3, .in_a_row = 1, .seen = seen};
    for (int64_t i = 0; i < i64_min(seen, GUARD_WINDOW); i++) {
        g.losses[i] = 8 / (0.1 + (double)i);
        g.norms[i] = 1 / (0.3 + (double)i);
    }
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
    static const char *const texts[] = {
        "",          "1",          "1 2",       "1 2 x",       "1 2 1",   "1 2 -1", "0 0 1 2 3 4",
        "0 0 1 2 x", "0 0 1 2 -3", "0 0 2 1.5", "0 0 2 1 2 3", "0 0 0 ?", "-1 0 0"};
    for (int i = 0; i < 13; i++) {
        GuardState g;
        assert_status_fails(guard_parse(&g, texts[i]), ERR_USER, "expected three counts");
    }
}

static void state_entries_that_contradict_each_other_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *step, *tokens, *guard, *says;
    } cases[] = {
        {"", "0", NULL, "cria.step is ''"},
        {"7x", "0", NULL, "cria.step is '7x'"},
        {"-1", "0", NULL, "cria.step is '-1'"},
        {"1000000000001", "0", NULL, "expected a number of steps"},
        {"7", "", NULL, "cria.tokens is ''"},
        {"7", "-1", NULL, "cria.tokens is '-1'"},
        {"7", "nan", NULL, "expected a number of tokens"},
        {"7", "1e999", NULL, "expected a number of tokens"},
        {"7", "0", "0 0 1", "expected three counts"},
        {"7", "0", "8 0 0", "8 skipped steps, 0 of them the last, but cria.step is 7"},
        {"7", "0", "1 2 0", "2 of them the last"},
        {"2", "0", "1 0 2 4.5 4.5", "counts 2 losses"},
    };
    TrainState s;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_status_fails(state_parse(&s, cases[i].step, cases[i].tokens, cases[i].guard),
                            ERR_USER, cases[i].says);
    assert_status_ok(state_parse(&s, "7", "448", NULL)); /* imported weights have no guard */
    assert_true(s.step == 7 && s.tokens == 448 && s.guard.seen == 0);
    assert_status_ok(state_parse(&s, "7", "448", "2 1 3 4.5 4.25 4"));
    assert_true(s.guard.seen == 3 && s.guard.skipped == 2 && s.guard.losses[2] == 4);
    assert_true(s.guard.norms[2] == 0); /* a checkpoint from before norms were kept */
    assert_status_ok(state_parse(&s, "7", "448", "2 1 3 4.5 4.25 4 1 2 0.5"));
    assert_true(s.guard.losses[2] == 4 && s.guard.norms[2] == 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_is_read_back_to_the_bit),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(state_entries_that_contradict_each_other_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
