/* The folder of a run: made, refused where it holds one, locked against a second job, and its
 * config.yaml replaced as a whole. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/rundir.h"

static char base[64]; /* a new folder for each test */
static Config config; /* its run.dir is base/a/run */
static char run_dir[96];

static int make_base(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN); /* as main does */
    snprintf(base, sizeof base, "/tmp/cria-test-rundir.XXXXXX");
    if (mkdtemp(base) == NULL) return 1;
    snprintf(run_dir, sizeof run_dir, "%s/a/run", base);
    char *dir = mem_printf("run.dir=%s", run_dir);
    char *limit = mem_strdup("run.watchdog_seconds=3");
    char *overrides[] = {dir, limit};
    Status st = config_load(&config, "tests/e2e/micro.yaml", 2, overrides);
    free(dir);
    free(limit);
    return st != OK;
}
static int remove_base(void **state) {
    (void)state;
    char command[80];
    config_free(&config);
    snprintf(command, sizeof command, "rm -r %s", base);
    return system(command);
}

static bool exists(const char *name) {
    char *path = mem_printf("%s/%s", run_dir, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static void write_file(const char *name, const char *text) {
    char *path = mem_printf("%s/%s", run_dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static char *read_file(const char *name) {
    char *path = mem_printf("%s/%s", run_dir, name), *text = NEW(char, 1 << 16);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, (1 << 16) - 1, f)] = '\0';
    fclose(f);
    free(path);
    return text;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static void a_new_folder_is_made_with_those_above_it(void **state) {
    (void)state;
    RunDir d;
    assert_status_ok(rundir_open(&d, &config, false));
    assert_true(exists(".lock"));
    assert_false(exists("config.yaml")); /* not before the run can start */
    rundir_close(&d);
    rundir_close(&d);                                  /* once is enough */
    assert_status_ok(rundir_open(&d, &config, false)); /* it holds no run yet */
    rundir_close(&d);
}

static void a_folder_that_holds_a_run_is_refused_without_resume(void **state) {
    (void)state;
    static const char *const names[] = {"config.yaml", "step_00000007.safetensors"};
    RunDir d;
    assert_status_ok(rundir_open(&d, &config, false));
    rundir_close(&d);
    for (int i = 0; i < 2; i++) {
        write_file(names[i], "what is there");
        assert_status_fails(rundir_open(&d, &config, false), ERR_USER,
                            "already holds a run; --resume auto continues it");
        rundir_close(&d);
        assert_status_ok(rundir_open(&d, &config, true));
        rundir_close(&d);
        char *text = read_file(names[i]);
        assert_string_equal(text, "what is there");
        free(text);
        char *path = mem_printf("%s/%s", run_dir, names[i]);
        unlink(path);
        free(path);
    }
}

static void a_path_that_cannot_be_a_folder_is_the_users_mistake(void **state) {
    (void)state;
    RunDir d;
    char *above = mem_printf("%s/a", base);
    FILE *f = fopen(above, "w");
    fclose(f);
    assert_status_fails(rundir_open(&d, &config, false), ERR_USER, "cannot make run.dir ");
    rundir_close(&d);
    free(above);
    Config c = config;
    static const char *const unexpanded[] = {"~/runs/x", "$CRIA_NOWHERE/x"};
    for (int i = 0; i < 2; i++) {
        c.run.dir = (char *)(uintptr_t)unexpanded[i];
        assert_status_fails(rundir_open(&d, &c, false), ERR_USER,
                            "cria replaces neither ~ nor variables");
        rundir_close(&d);
    }
    assert_int_not_equal(access("~", F_OK), 0);
}

static void config_yaml_is_replaced_as_a_whole(void **state) {
    (void)state;
    RunDir d;
    StrBuf printed = {0};
    config_print(&config, &printed);
    assert_status_ok(rundir_open(&d, &config, false));
    assert_status_ok(rundir_write_config(&config));
    char *text = read_file("config.yaml");
    assert_string_equal(text, strbuf_text(&printed));
    free(text);

    write_file("config.yaml", "an earlier one");
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    rlim_t most = limit.rlim_cur;
    limit.rlim_cur = 100; /* like a disk that fills up on the way */
    setrlimit(RLIMIT_FSIZE, &limit);
    Status st = rundir_write_config(&config);
    limit.rlim_cur = most;
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_status_fails(st, ERR_ENV, "/config.yaml: File too large");
    text = read_file("config.yaml");
    assert_string_equal(text, "an earlier one");
    free(text);
    assert_false(exists("config.yaml.tmp"));

    assert_status_ok(rundir_write_config(&config));
    text = read_file("config.yaml");
    assert_string_equal(text, strbuf_text(&printed));
    free(text);
    strbuf_free(&printed);
    rundir_close(&d);
}

/* ---- the lock -------------------------------------------------------------------------------- */

/* A process that has opened run.dir, until a byte goes into `stop`. With `orphan` it leaves the
 * lock to a child of its own and is gone. */
typedef struct {
    pid_t pid;
    int stop;
} Job;

static Job start_job(bool orphan) {
    int ready[2], stop[2];
    char byte = 0;
    assert_true(pipe(ready) == 0 && pipe(stop) == 0);
    Job job = {.pid = fork(), .stop = stop[1]};
    if (job.pid == 0) {
        RunDir d;
        close(stop[1]);
        if (rundir_open(&d, &config, false) != OK) _exit(1);
        if (orphan && fork() != 0) _exit(0);
        if (!orphan) byte = write(ready[1], "x", 1) == 1;
        close(ready[1]);
        _exit(read(stop[0], &byte, 1) < 0);
    }
    close(stop[0]);
    close(ready[1]);
    if (orphan) assert_int_equal(waitpid(job.pid, NULL, 0), job.pid);
    /* A job writes a byte; of one that is gone the end of the pipe shows that its child runs. */
    assert_int_equal(read(ready[0], &byte, 1), orphan ? 0 : 1);
    close(ready[0]);
    return job;
}

static void stop_job(Job *job, bool orphan) {
    close(job->stop);
    if (!orphan) assert_int_equal(waitpid(job->pid, NULL, 0), job->pid);
}

static void a_second_job_is_refused_at_once(void **state) {
    (void)state;
    RunDir d;
    Job job = start_job(false);
    char *expected =
        mem_printf("run.dir %s is in use by another job (process %ld of ", run_dir, (long)job.pid);
    assert_status_fails(rundir_open(&d, &config, true), ERR_USER, expected);
    rundir_close(&d);
    free(expected);
    stop_job(&job, false);
    assert_status_ok(rundir_open(&d, &config, false)); /* the lock went with the process */
    rundir_close(&d);
}

static void what_a_dead_job_left_is_waited_for(void **state) {
    (void)state;
    RunDir d;
    Job job = start_job(true);
    double begin = time_now();
    assert_status_fails(rundir_open(&d, &config, false), ERR_ENV, "is still locked after ");
    assert_true(time_now() - begin >= 0.3); /* a tenth of run.watchdog_seconds */
    rundir_close(&d);

    /* The one that holds the lock now lives as long as anyone has job.stop: while the next waits.
     */
    pid_t releases = fork();
    if (releases == 0) {
        usleep(200 * 1000);
        _exit(0);
    }
    config.run.watchdog_seconds = 6000;
    close(job.stop);
    assert_status_ok(rundir_open(&d, &config, false));
    rundir_close(&d);
    assert_int_equal(waitpid(releases, NULL, 0), releases);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_base, remove_base)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(a_new_folder_is_made_with_those_above_it),
        CASE(a_folder_that_holds_a_run_is_refused_without_resume),
        CASE(a_path_that_cannot_be_a_folder_is_the_users_mistake),
        CASE(config_yaml_is_replaced_as_a_whole),
        CASE(a_second_job_is_refused_at_once),
        CASE(what_a_dead_job_left_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
