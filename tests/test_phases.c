/* Phases of a stream, on a backend of made-up time: what is spent in which phase, holding, and
 * that no event is read which the stream has not reached. */
#include "test.h"

#include <stdlib.h>

#include "ops/phases.h"

static double now; /* what an event records */
static int64_t recorded, synced, created, freed;

typedef struct {
    double time;
    int64_t number; /* of the recording */
} FakeEvent;

static Status fake_create(Event **e) {
    *e = (Event *)NEW(FakeEvent, 1);
    created++;
    return OK;
}
static void fake_free(Event *e) {
    free(e);
    freed++;
}
static void fake_record(Event *e, Stream *stream) {
    (void)stream;
    *(FakeEvent *)e = (FakeEvent){now, ++recorded};
}
static double fake_ms(Event *begin, Event *end) {
    const FakeEvent *a = (const FakeEvent *)begin, *b = (const FakeEvent *)end;
    assert_true(a->number > 0 && a->number < b->number && b->number <= synced);
    return b->time - a->time;
}
static Status fake_sync(Stream *stream) {
    (void)stream;
    synced = recorded;
    return OK;
}

static Ops fake;
static Stream stream;

static int begin(void **state) {
    (void)state;
    now = 0, recorded = synced = created = freed = 0;
    fake = *cpu_ops();
    fake.event_create = fake_create;
    fake.event_free = fake_free;
    fake.event_record = fake_record;
    fake.event_ms = fake_ms;
    fake.stream_sync = fake_sync;
    stream = (Stream){.ops = &fake};
    return phases_start(&stream);
}
static int end(void **state) {
    (void)state;
    phases_free(&stream);
    assert_int_equal(created, freed);
    assert_null(stream.phases);
    return 0;
}

static void pass(double ms) {
    now += ms;
}

static void time_goes_to_the_phase_it_was_spent_in(void **state) {
    (void)state;
    double ms[PHASES];
    pass(1);
    assert_int_equal(phase_enter(&stream, PHASE_FORWARD), PHASE_OTHER);
    pass(10);
    Phase before = phase_enter(&stream, PHASE_CP_EXPOSED);
    assert_int_equal(before, PHASE_FORWARD);
    assert_int_equal(phase_enter(&stream, PHASE_CP_EXPOSED), PHASE_CP_EXPOSED);
    pass(3);
    phase_enter(&stream, before);
    pass(20);
    phase_enter(&stream, PHASE_BACKWARD);
    pass(40);
    assert_status_ok(phases_take(&stream, ms));
    double sum = 0;
    for (int p = 0; p < PHASES; p++) sum += ms[p];
    assert_true(ms[PHASE_OTHER] == 1 && ms[PHASE_FORWARD] == 30 && ms[PHASE_CP_EXPOSED] == 3 &&
                ms[PHASE_BACKWARD] == 40 && sum == 74);
    pass(5); /* it goes on in the same phase */
    phase_enter(&stream, PHASE_WAIT);
    assert_status_ok(phases_take(&stream, ms));
    assert_true(ms[PHASE_BACKWARD] == 5 && ms[PHASE_FORWARD] == 0);
}

static void a_held_phase_covers_those_inside(void **state) {
    (void)state;
    double ms[PHASES];
    phase_enter(&stream, PHASE_WAIT);
    Phase before = phase_hold(&stream, PHASE_EVAL);
    pass(2);
    phase_enter(&stream, phase_enter(&stream, PHASE_FORWARD));
    phase_enter(&stream, PHASE_BACKWARD);
    pass(4);
    phase_release(&stream, before);
    pass(8);
    assert_status_ok(phases_take(&stream, ms));
    assert_true(ms[PHASE_EVAL] == 6 && ms[PHASE_WAIT] == 8 && ms[PHASE_FORWARD] == 0 &&
                ms[PHASE_BACKWARD] == 0);
}

/* Many more than one allocation of events, over steps with one wait each. fake_ms() fails when a
 * step's events are read before that wait. */
static void steps_are_read_one_later_and_events_used_again(void **state) {
    (void)state;
    enum { STEPS = 50, LAYERS = 100 };
    double ms[PHASES];
    for (int i = 0; i < STEPS; i++) {
        for (int l = 0; l < LAYERS; l++) {
            phase_enter(&stream, PHASE_FORWARD);
            pass(1);
            phase_enter(&stream, PHASE_CP_EXPOSED);
            pass(0.5);
        }
        assert_status_ok(phases_sync(&stream));
        phase_enter(&stream, PHASE_OPTIMIZER);
        pass(7);
    }
    assert_status_ok(phases_take(&stream, ms));
    assert_true(ms[PHASE_FORWARD] == STEPS * LAYERS);
    assert_true(ms[PHASE_CP_EXPOSED] == 0.5 * STEPS * LAYERS);
    assert_true(ms[PHASE_OPTIMIZER] == 7 * STEPS);
    assert_true(created <= 4 * 2 * LAYERS);
}

static void a_stream_that_is_not_timed_records_nothing(void **state) {
    (void)state;
    Stream plain = {.ops = &fake};
    double ms[PHASES] = {[PHASE_DATA] = 1};
    int64_t before = recorded;
    assert_int_equal(phase_enter(&plain, PHASE_FORWARD), PHASE_FORWARD);
    assert_int_equal(phase_enter(NULL, PHASE_FORWARD), PHASE_FORWARD);
    phase_release(&plain, phase_hold(&plain, PHASE_EVAL));
    assert_status_ok(phases_take(&plain, ms));
    assert_true(ms[PHASE_DATA] == 0);
    assert_int_equal(recorded, before);
    assert_int_equal(synced, recorded);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(time_goes_to_the_phase_it_was_spent_in),
        CASE(a_held_phase_covers_those_inside),
        CASE(steps_are_read_one_later_and_events_used_again),
        CASE(a_stream_that_is_not_timed_records_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
