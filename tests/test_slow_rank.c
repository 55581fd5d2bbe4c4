/* Which rank stays behind, of made-up times. */
#include "test.h"

#include "health/slow_rank.h"

enum { WORLD = 8 };

static void the_spread_is_that_of_each_phase(void **state) {
    (void)state;
    double ms[4 * PHASES] = {0};
    PhaseSpread spread[PHASES];
    for (int r = 0; r < 4; r++) {
        ms[r * PHASES + PHASE_FORWARD] = (double[]){30, 10, 40, 20}[r];
        ms[r * PHASES + PHASE_WAIT] = r == 3 ? 1 : 0;
    }
    phases_spread(ms, 4, spread);
    PhaseSpread f = spread[PHASE_FORWARD], w = spread[PHASE_WAIT], d = spread[PHASE_DATA];
    assert_true(f.min == 10 && f.median == 25 && f.max == 40 && f.rank == 2);
    assert_true(w.min == 0 && w.median == 0 && w.max == 1 && w.rank == 3);
    assert_true(d.max == 0 && d.rank == 0);
}

/* Record i of `world` ranks: 100 ms of computation each, `more` on rank `slow`; waiting, and the
 * slow loader of rank 0, count for nothing. */
static bool add(SlowRanks *s, int i, int slow, double more, SlowRecord *found) {
    double ms[WORLD * PHASES] = {0};
    for (int r = 0; r < s->world; r++) {
        double *own = ms + r * PHASES;
        own[PHASE_FORWARD] = 30 + 0.1 * ((i + r) % 3);
        own[PHASE_BACKWARD] = 60;
        own[PHASE_OPTIMIZER] = 10 + (r == slow ? more : 0);
        own[PHASE_CP_EXPOSED] = r == 1 ? 500 : 0;
        own[PHASE_WAIT] = r == 2 ? 500 : 0;
        own[PHASE_DATA] = r == 0 ? 500 : 0;
    }
    return slow_ranks_add(s, ms, found);
}

static int times_found(int world, int records, int slow, double more, int every,
                       SlowRecord *found) {
    SlowRanks s;
    int n = 0;
    slow_ranks_init(&s, world);
    for (int i = 0; i < records; i++) n += add(&s, i, i % every == 0 ? slow : -1, more, found);
    slow_ranks_free(&s);
    return n;
}

static void a_rank_that_stays_behind_is_found_every_20_records(void **state) {
    (void)state;
    SlowRecord found;
    for (int world = 2; world <= WORLD; world++) {
        assert_int_equal(times_found(world, 59, world - 1, 30, 1, &found), 2);
        assert_int_equal(found.rank, world - 1);
        assert_int_equal(found.records, 20);
        assert_true(found.compute_ms > 129 && found.compute_ms < 131);
        assert_true(found.median_ms > 99 && found.median_ms < 101);
    }
}

static void what_is_no_slow_rank(void **state) {
    (void)state;
    SlowRecord found;
    assert_int_equal(times_found(WORLD, 19, 5, 30, 1, &found), 0);    /* too few records */
    assert_int_equal(times_found(WORLD, 100, 5, 8, 1, &found), 0);    /* within 10 % */
    assert_int_equal(times_found(WORLD, 100, -1, 0, 1, &found), 0);   /* all alike */
    assert_int_equal(times_found(WORLD, 100, 5, 5e4, 20, &found), 0); /* one long pause in 20 */
    assert_int_equal(times_found(1, 100, 0, 30, 1, &found), 0);       /* alone */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_spread_is_that_of_each_phase),
        cmocka_unit_test(a_rank_that_stays_behind_is_found_every_20_records),
        cmocka_unit_test(what_is_no_slow_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
