#include "test.h"

static Status open_settings(void) {
    return status_fail(ERR_USER, "settings.yaml is not there");
}

/* As code that recovers does it: without the file there are defaults. */
static Status read_settings(void) {
    Status st = open_settings();
    if (st != OK) return status_ignore(st);
    return OK;
}

static void an_ignored_failure_leaves_no_message(void **state) {
    (void)state;
    assert_int_equal(read_settings(), OK);
    assert_string_equal(status_message(), "");
    assert_int_equal(status_fail(ERR_ENV, "no disk"), ERR_ENV);
    assert_string_equal(status_message(), "no disk");
    status_clear();
}

static void ignoring_success_keeps_what_is_recorded(void **state) {
    (void)state;
    Status first = status_fail(ERR_ENV, "no disk");
    assert_int_equal(status_ignore(OK), OK); /* of a clean-up that went well */
    assert_int_equal(first, ERR_ENV);
    assert_string_equal(status_message(), "no disk");
    status_clear();
}

static void the_first_message_stays(void **state) {
    (void)state;
    assert_int_equal(status_fail(ERR_ENV, "no disk"), ERR_ENV);
    assert_int_equal(status_fail(ERR_USER, "cannot close"), ERR_USER);
    assert_string_equal(status_message(), "no disk");
    status_prefix("rank %d", 3);
    status_suffix("; make room");
    assert_string_equal(status_message(), "rank 3: no disk; make room");
    status_clear();
}

static void agreement_belongs_to_one_failure(void **state) {
    (void)state;
    assert_false(status_is_agreed());
    Status st = status_fail(ERR_ENV, "no disk");
    status_set_agreed(true);
    assert_true(status_is_agreed());
    assert_int_equal(status_ignore(st), OK);
    assert_false(status_is_agreed());
    st = status_fail(ERR_ENV, "no memory");
    assert_false(status_is_agreed());
    status_set_agreed(true);
    status_clear();
    assert_false(status_is_agreed());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ignored_failure_leaves_no_message),
        cmocka_unit_test(ignoring_success_keeps_what_is_recorded),
        cmocka_unit_test(the_first_message_stays),
        cmocka_unit_test(agreement_belongs_to_one_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
