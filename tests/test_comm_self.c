/* The backend for one rank, and the operations that all backends share. */
#include "test.h"

#include "comm/comm.h"

static int open_comm(void **state) {
    *state = comm_self_create();
    return 0;
}

static int close_comm(void **state) {
    comm_free(*state);
    return 0;
}

static void collectives_leave_one_rank_its_values(void **state) {
    Comm *c = *state;
    double x[3] = {1.5, -2, 1e300};
    const double expected[3] = {1.5, -2, 1e300};
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->size, 1);
    for (CommOp op = COMM_SUM; op <= COMM_MIN; op++)
        assert_status_ok(comm_all_reduce(c, x, 3, DT_F64, op, COMM_KIND_OTHER, NULL));
    assert_status_ok(comm_reduce_scatter(c, x, 3, DT_F64, COMM_KIND_GRAD, NULL));
    assert_status_ok(comm_all_gather(c, x, 3, DT_F64, COMM_KIND_PARAM, NULL));
    assert_status_ok(comm_broadcast(c, x, 3, DT_F64, 0, NULL));
    assert_status_ok(comm_barrier(c));
    assert_memory_equal(x, expected, sizeof x);
    for (int k = 0; k < COMM_KINDS; k++) assert_int_equal(c->bytes_sent[k], 0);
}

static void a_group_copies_its_sends_to_its_receives_in_order(void **state) {
    Comm *c = *state;
    enum { N = 50 };
    int32_t from[N][N], to[N][N] = {{0}};
    CommTicket ticket = {-1};
    for (int round = 0; round < 2; round++) {
        assert_status_ok(comm_group_begin(c));
        for (int i = 0; i < N; i++) /* more than the first capacity; some of no length */
            assert_status_ok(comm_recv(c, to[i], i % 7, DT_I32, 0));
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) from[i][j] = 1000 * round + 100 * i + j + 1;
            assert_status_ok(comm_send(c, from[i], i % 7, DT_I32, 0, COMM_KIND_KV));
        }
        assert_status_ok(comm_group_end(c, NULL, &ticket));
        assert_status_ok(comm_wait(c, ticket, NULL));
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) assert_int_equal(to[i][j], j < i % 7 ? from[i][j] : 0);
    }
    assert_int_equal(c->bytes_sent[COMM_KIND_KV], 0); /* nothing left this rank */
}

static void an_empty_group_and_an_empty_ticket_are_nothing(void **state) {
    Comm *c = *state;
    CommTicket ticket;
    assert_status_ok(comm_group_begin(c));
    assert_status_ok(comm_group_end(c, NULL, &ticket));
    assert_status_ok(comm_wait(c, ticket, NULL));
    assert_status_ok(comm_wait(c, (CommTicket){0}, NULL));
}

static void one_rank_agrees_with_itself(void **state) {
    Comm *c = *state;
    assert_status_ok(comm_agree(c, OK));
    assert_status_fails(comm_agree(c, status_fail(ERR_USER, "seed: not a number")), ERR_USER,
                        "seed: not a number");
    assert_status_ok(comm_agree_equal(c, 42, "the configuration"));
    assert_string_equal(status_message(), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_leave_one_rank_its_values),
        cmocka_unit_test(a_group_copies_its_sends_to_its_receives_in_order),
        cmocka_unit_test(an_empty_group_and_an_empty_ticket_are_nothing),
        cmocka_unit_test(one_rank_agrees_with_itself),
    };
    return cmocka_run_group_tests(tests, open_comm, close_comm);
}
