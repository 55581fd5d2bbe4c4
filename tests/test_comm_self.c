/* The world of one, and the wrappers that every row shares. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "comm/comm.h"

static int setup(void **state) {
    *state = comm_self_create();
    return 0;
}

static int teardown(void **state) {
    comm_free(*state);
    status_clear();
    return 0;
}

static void collectives_leave_one_rank_its_values(void **state) {
    Comm *c = *state;
    double x[3] = {1.5, -2, 1e300};
    const double expected[3] = {1.5, -2, 1e300};
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->size, 1);
    for (CommOp op = COMM_SUM; op <= COMM_MIN; op++)
        assert_int_equal(comm_all_reduce(c, x, 3, DT_F64, op, COMM_KIND_OTHER, NULL), OK);
    assert_int_equal(comm_reduce_scatter(c, x, 3, DT_F64, COMM_KIND_GRAD, NULL), OK);
    assert_int_equal(comm_all_gather(c, x, 3, DT_F64, COMM_KIND_PARAM, NULL), OK);
    assert_int_equal(comm_broadcast(c, x, 3, DT_F64, 0, NULL), OK);
    assert_int_equal(comm_barrier(c), OK);
    assert_memory_equal(x, expected, sizeof x);
    for (int k = 0; k < COMM_KINDS; k++) assert_int_equal(c->bytes_sent[k], 0);
}

static void a_group_copies_its_sends_to_its_receives_in_order(void **state) {
    Comm *c = *state;
    enum { N = 50 };
    int32_t from[N][N], to[N][N] = {{0}};
    CommTicket ticket = {-1};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(comm_group_begin(c), OK);
        for (int i = 0; i < N; i++) /* more than the first capacity; some of no length */
            assert_int_equal(comm_recv(c, to[i], i % 7, DT_I32, 0), OK);
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) from[i][j] = 1000 * round + 100 * i + j + 1;
            assert_int_equal(comm_send(c, from[i], i % 7, DT_I32, 0, COMM_KIND_KV), OK);
        }
        assert_int_equal(comm_group_end(c, NULL, &ticket), OK);
        assert_int_equal(comm_wait(c, ticket, NULL), OK);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) assert_int_equal(to[i][j], j < i % 7 ? from[i][j] : 0);
    }
    assert_int_equal(c->bytes_sent[COMM_KIND_KV], 0); /* nothing left this rank */
}

static void an_empty_group_and_an_empty_ticket_are_nothing(void **state) {
    Comm *c = *state;
    CommTicket ticket;
    assert_int_equal(comm_group_begin(c), OK);
    assert_int_equal(comm_group_end(c, NULL, &ticket), OK);
    assert_int_equal(comm_wait(c, ticket, NULL), OK);
    assert_int_equal(comm_wait(c, (CommTicket){0}, NULL), OK);
}

static void one_rank_agrees_with_itself(void **state) {
    Comm *c = *state;
    assert_int_equal(comm_agree(c, OK), OK);
    assert_int_equal(comm_agree(c, status_fail(ERR_USER, "seed: not a number")), ERR_USER);
    assert_string_equal(status_message(), "seed: not a number");
    status_clear();
    assert_int_equal(comm_agree_equal(c, 42, "the configuration"), OK);
    assert_string_equal(status_message(), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(collectives_leave_one_rank_its_values, setup, teardown),
        cmocka_unit_test_setup_teardown(a_group_copies_its_sends_to_its_receives_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_empty_group_and_an_empty_ticket_are_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_rank_agrees_with_itself, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
