/* Checkpoints beside training, on one rank: what is written and reported in which state, and what
 * becomes of it when memory or the disk is missing. (On several ranks, and against uninterrupted
 * runs: tests/e2e/saves_beside_training.sh) */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "train/saver.h"

static char dir[64];
static Config config;
static Session session;
static Saver *saver;
static TrainState at; /* what is saved */

/* ---- a sink that remembers ------------------------------------------------------------------- */

typedef struct {
    Sink sink;
    char log[512]; /* "snapshot 3 save 3 " */
    SaveRecord last;
} TestSink;

static void note(TestSink *t, const char *kind, const SaveRecord *r) {
    size_t n = strlen(t->log);
    snprintf(t->log + n, sizeof t->log - n, "%s %lld ", kind, (long long)r->step);
    t->last = *r;
    t->last.path = NULL; /* it does not outlive the call */
}
static void on_snapshot(Sink *s, const SaveRecord *r) {
    note((TestSink *)s, "snapshot", r);
}
static void on_save(Sink *s, const SaveRecord *r) {
    char *path = checkpoint_path(dir, r->step);
    assert_string_equal(r->path, path);
    assert_int_equal(access(path, F_OK), 0); /* on disk when it is reported */
    free(path);
    note((TestSink *)s, "save", r);
}
static TestSink sink;

/* ---- a run ----------------------------------------------------------------------------------- */

static void open_session(const char *override) {
    char *words[] = {mem_printf("run.dir=%s", dir), mem_strdup("run.save_every=2"),
                     mem_strdup(override)};
    assert_status_ok(config_load(&config, "tests/e2e/micro.yaml", 3, words));
    for (int i = 0; i < 3; i++) free(words[i]);
    assert_status_ok(session_open(&session, &config, NULL));
    assert_status_ok(session_start(&session));
    assert_status_ok(optimizer_init(session.optimizer, 1, session.stream));
    sink = (TestSink){.sink = {.snapshot = on_snapshot, .save = on_save}};
    at = (TrainState){.step = 1, .samples = 8, .tokens = 256};
}

static int make_dir(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN); /* as main does */
    snprintf(dir, sizeof dir, "/tmp/cria-test-saver.XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_all(void **state) {
    (void)state;
    char command[80];
    saver_free(saver);
    saver = NULL;
    session_close(&session);
    config_free(&config);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static float *first_weights(void) {
    ParamPiece *own;
    assert_true(param_table_pieces(session.table, 0, &own) > 0);
    float *w = optimizer_state(session.optimizer, OPTIM_WEIGHT, &own[0]);
    free(own);
    return w;
}

static bool exists(int64_t step, const char *suffix) {
    char *path = checkpoint_path(dir, step), *with = mem_printf("%s%s", path, suffix);
    bool there = access(with, F_OK) == 0;
    free(path);
    free(with);
    return there;
}

/* The first weight in the checkpoint of a step, all of whose bytes are right. */
static float saved_weight(int64_t step) {
    char *path = checkpoint_path(dir, step);
    Checkpoint *ck;
    float w;
    assert_status_ok(checkpoint_open(&ck, path));
    assert_status_ok(checkpoint_verify(ck));
    assert_status_ok(checkpoint_read(ck, session.table->params[0].name, 0, 1, &w));
    checkpoint_close(ck);
    free(path);
    return w;
}

static void wait_until_ready(void) {
    while (!saver_ready(saver)) nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
}

/* ---- what goes right ------------------------------------------------------------------------- */

/* Copied, written, published: each state ends where the loop lets it. */
static void a_save_goes_on_while_the_weights_change(void **state) {
    (void)state;
    open_session("run.keep_last=0");
    float *weight = first_weights(), before = *weight;
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_false(saver_ready(saver));
    assert_status_ok(saver_release(saver)); /* nothing to wait for */

    assert_status_ok(saver_save(saver, &at, false));
    assert_false(saver_ready(saver)); /* the thread starts when the copy is there */
    assert_string_equal(sink.log, "");
    assert_status_ok(saver_release(saver));
    assert_string_equal(sink.log, "snapshot 1 ");
    *weight = before + 1; /* as the next update does */
    wait_until_ready();
    assert_false(exists(1, "")); /* not before every rank has written its part */
    assert_true(exists(1, ".tmp"));
    assert_status_ok(saver_advance(saver));
    wait_until_ready();
    assert_string_equal(sink.log, "snapshot 1 ");
    assert_status_ok(saver_advance(saver));
    assert_string_equal(sink.log, "snapshot 1 save 1 ");
    assert_false(saver_ready(saver));
    assert_false(exists(1, ".tmp"));
    assert_true(saved_weight(1) == before);
    assert_true(sink.last.snapshot_seconds <= sink.last.seconds);
    uint32_t crc;
    assert_status_ok(
        optimizer_weights_crc(session.optimizer, session.comm.host, session.stream, &crc));
    assert_int_not_equal(sink.last.weights_crc, crc);
    *weight = before;
    assert_status_ok(
        optimizer_weights_crc(session.optimizer, session.comm.host, session.stream, &crc));
    assert_int_equal(sink.last.weights_crc, crc);
}

static void a_save_that_is_waited_for_is_on_disk(void **state) {
    (void)state;
    open_session("run.keep_last=0");
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_status_ok(saver_save(saver, &at, true));
    assert_string_equal(sink.log, "save 1 "); /* no snapshot: training waited for all of it */
    assert_true(sink.last.snapshot_seconds == sink.last.seconds);
    assert_true(saved_weight(1) == *first_weights());
}

static void without_save_async_training_waits(void **state) {
    (void)state;
    open_session("run.save_async=false");
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_status_ok(saver_save(saver, &at, false));
    assert_string_equal(sink.log, "save 1 ");
    assert_true(saved_weight(1) == *first_weights());
}

static void the_next_save_waits_for_the_one_before(void **state) {
    (void)state;
    open_session("run.keep_last=1");
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    for (at.step = 1; at.step <= 3; at.step++) {
        *first_weights() = (float)at.step;
        assert_status_ok(saver_save(saver, &at, false));
        assert_status_ok(saver_release(saver));
    }
    assert_string_equal(sink.log, "snapshot 1 save 1 snapshot 2 save 2 snapshot 3 ");
    assert_status_ok(saver_join(saver)); /* the end of the run */
    assert_string_equal(sink.log, "snapshot 1 save 1 snapshot 2 save 2 snapshot 3 save 3 ");
    assert_status_ok(saver_join(saver)); /* nothing is being written */
    assert_status_ok(saver_join(NULL));
    assert_true(saved_weight(3) == 3);
    assert_false(exists(1, "") || exists(2, "")); /* keep_last */
}

static void what_a_killed_run_left_is_removed(void **state) {
    (void)state;
    open_session("run.keep_last=0");
    char *path = mem_printf("%s/step_00000007.safetensors.tmp", dir);
    FILE *f = fopen(path, "w");
    fputs("half a checkpoint", f);
    fclose(f);
    free(path);
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_false(exists(7, ".tmp"));
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static int refusals, allocations;

static Status refuse_host_memory(void **ptr, int64_t bytes, const char *what) {
    allocations++;
    if (refusals-- > 0) return status_fail(ERR_ENV, "no memory for %s", what);
    return cpu_ops()->host_alloc(ptr, bytes, what);
}

/* Without memory for a copy of everything training waits for each save; it is asked for once. */
static void without_memory_for_the_copy_training_waits(void **state) {
    (void)state;
    open_session("run.keep_last=0");
    Ops ops = *session.ops;
    ops.host_alloc = refuse_host_memory;
    session.ops = &ops;
    refusals = 1;
    allocations = 0;
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_int_equal(allocations, 2); /* of everything, and of a part */
    for (at.step = 1; at.step <= 2; at.step++) assert_status_ok(saver_save(saver, &at, false));
    assert_string_equal(sink.log, "save 1 save 2 ");
    assert_int_equal(allocations, 2);
    assert_true(saved_weight(2) == *first_weights());

    saver_free(saver);
    refusals = 2; /* not even a part */
    assert_status_fails(saver_create(&saver, &session, &sink.sink), ERR_ENV, "no memory for ");
    saver_free(saver);
    saver = NULL;
    session.ops = cpu_ops();
}

/* A disk that fills up while the thread writes: reported once, nothing is left behind, the earlier
 * checkpoint stays, and the next save can succeed. */
static void a_write_that_fails_is_reported_once(void **state) {
    (void)state;
    open_session("run.keep_last=1");
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    assert_status_ok(saver_save(saver, &at, true));
    at.step = 2;
    assert_status_ok(saver_save(saver, &at, false));
    limit_files(20000);                     /* behind the header */
    assert_status_ok(saver_release(saver)); /* the thread's failure is its own */
    wait_until_ready();
    limit_files(RLIM_INFINITY);
    assert_status_fails(saver_advance(saver), ERR_ENV, "step_00000002.safetensors");
    assert_string_equal(sink.log, "save 1 snapshot 2 ");
    assert_false(exists(2, "") || exists(2, ".tmp"));
    assert_true(saved_weight(1) == *first_weights());
    assert_false(saver_ready(saver)); /* nothing is left to report */
    assert_status_ok(saver_join(saver));
    at.step = 3;
    assert_status_ok(saver_save(saver, &at, true));
    assert_string_equal(sink.log, "save 1 snapshot 2 save 3 ");
    assert_true(exists(3, "") && !exists(1, ""));
}

static void a_file_that_cannot_be_begun_fails_at_once(void **state) {
    (void)state;
    open_session("run.keep_last=0");
    assert_status_ok(saver_create(&saver, &session, &sink.sink));
    limit_files(1000);
    Status st = saver_save(saver, &at, false);
    limit_files(RLIM_INFINITY);
    assert_status_fails(st, ERR_ENV, "step_00000001.safetensors");
    assert_false(exists(1, "") || exists(1, ".tmp") || saver_ready(saver));
    assert_status_ok(saver_save(saver, &at, true));
    assert_true(exists(1, ""));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_all)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(a_save_goes_on_while_the_weights_change),
        CASE(a_save_that_is_waited_for_is_on_disk),
        CASE(without_save_async_training_waits),
        CASE(the_next_save_waits_for_the_one_before),
        CASE(what_a_killed_run_left_is_removed),
        CASE(without_memory_for_the_copy_training_waits),
        CASE(a_write_that_fails_is_reported_once),
        CASE(a_file_that_cannot_be_begun_fails_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
