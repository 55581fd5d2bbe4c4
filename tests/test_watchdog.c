/* The watchdog: what it judges by, with a clock of the test's own, and that the thread ends the
 * process. (Whole jobs: tests/e2e/watchdog_ends_a_stuck_job.sh) */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/progress.h"
#include "health/watchdog.h"

static void time_without_progress_adds_up(void **state) {
    (void)state;
    WatchdogLook w = {0};
    for (int s = 0; s < 2000; s++) /* a look a second, always the same beat */
        assert_true(watchdog_look(&w, 5000 + s, 7) == s);
}

static void progress_starts_the_time_anew(void **state) {
    (void)state;
    WatchdogLook w = {0};
    for (int s = 0; s < 2000; s++) { /* progress every 10 seconds */
        double idle = watchdog_look(&w, 5000 + s, 1 + s / 10);
        assert_true(idle == s % 10);
    }
}

/* Days forth and back, as a clock that is set or a job that was suspended shows them: none is idle
 * time, and what follows counts again. */
static void a_clock_that_jumps_is_no_idle_time(void **state) {
    (void)state;
    static const double jumps[] = {86400, -86400, 6, -3600, 1e9};
    WatchdogLook w = {0};
    double now = 5000;
    watchdog_look(&w, now, 7);
    for (int i = 0; i < 5; i++) {
        assert_true(watchdog_look(&w, now += 2, 7) == 2);
        assert_true(watchdog_look(&w, now += jumps[i], 7) == 0);
    }
    assert_true(watchdog_look(&w, now += 3, 7) == 3);
}

/* Runs child() in a process of its own; what it writes to stderr, and its exit status. */
static int run_child(void (*child)(void), StrBuf *errors) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        child();
        _exit(0);
    }
    close(ends[1]);
    char part[1024];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;)
        strbuf_append(errors, part, (size_t)n);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void get_stuck(void) {
    watchdog_start();
    watchdog_set_limit(0.01);
    progress_beat(12, "waiting for nothing");
    for (;;) pause();
}

static void stay_within_the_limit(void) {
    watchdog_start();
    watchdog_set_limit(1e6);
    sleep(2); /* looks are a second apart */
    watchdog_stop();
}

static void live_without_limit(void) {
    watchdog_start();
    watchdog_set_limit(0);
    sleep(2);
    watchdog_stop();
    watchdog_stop(); /* once is enough */
    watchdog_start();
    watchdog_stop();
}

static void a_process_without_progress_is_ended(void **state) {
    (void)state;
    StrBuf errors = {0};
    assert_int_equal(run_child(get_stuck, &errors), 3);
    const char *text = strbuf_text(&errors);
    assert_int_equal(strncmp(text, "cria: error: no progress for ", 29), 0);
    assert_non_null(strstr(text, " s in phase 'waiting for nothing' of step 12: a rank is dead or "
                                 "stuck; ending the job (run.watchdog_seconds)."));
    assert_null(strchr(strchr(text, '\n') + 1, '\n')); /* one message */
    strbuf_free(&errors);
}

static void others_are_left_alone(void **state) {
    (void)state;
    StrBuf errors = {0};
    assert_int_equal(run_child(stay_within_the_limit, &errors), 0);
    assert_int_equal(run_child(live_without_limit, &errors), 0);
    assert_string_equal(strbuf_text(&errors), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_without_progress_adds_up),
        cmocka_unit_test(progress_starts_the_time_anew),
        cmocka_unit_test(a_clock_that_jumps_is_no_idle_time),
        cmocka_unit_test(a_process_without_progress_is_ended),
        cmocka_unit_test(others_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
