#include "data/share.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

#include "token_files.h"

enum { N = 100000 };

static int files_left(void) {
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) n += strncmp(e->d_name, "cria-", 5) == 0;
    closedir(dir);
    return n;
}

static int make_tmpdir(void **state) {
    int rc = make_folder(state);
    setenv("TMPDIR", folder, 1);
    return rc;
}

typedef struct {
    const char *log; /* a byte is added at each filling */
    int64_t value;
    useconds_t nap;
    bool dies, fails, small;
} Filling;

static Status fill(void *ctx, void *data) {
    const Filling *f = ctx;
    FILE *log = fopen(f->log, "ab");
    fputc('x', log);
    fclose(log);
    usleep(f->nap);
    for (int i = 0; i < (f->small ? 10 : N); i++) ((int64_t *)data)[i] = f->value + i;
    if (f->dies) raise(SIGKILL);
    return f->fails ? status_fail(ERR_USER, "no") : OK;
}

static int64_t fillings(const char *log) {
    FILE *f = fopen(log, "rb");
    if (f == NULL) return 0;
    fseek(f, 0, SEEK_END);
    int64_t n = ftell(f);
    fclose(f);
    return n;
}

static void check_and_close(Share *s, int64_t value) {
    const int64_t *data = share_data(s);
    for (int i = 0; i < N; i++) assert_int_equal(data[i], value + i);
    share_close(s);
}

/* Ranks wait for each other after opening: none may wait for another to close. */
static void one_process_computes_and_the_last_cleans_up(void **state) {
    (void)state;
    char *log = mem_strdup(in_folder("log1"));
    enum { PROCESSES = 12 };
    int opened[2], go_on[2];
    assert_int_equal(pipe(opened) | pipe(go_on), 0);
    for (int p = 0; p < PROCESSES; p++) {
        if (fork() != 0) continue;
        Share *s;
        Filling f = {.log = log, .value = 5, .nap = 20000};
        if (share_open(&s, "together", N * 8, fill, &f) != OK) _exit(1);
        const int64_t *data = share_data(s);
        int bad = 0;
        for (int i = 0; i < N; i++) bad += data[i] != 5 + i;
        char byte = 'x';
        bad += write(opened[1], &byte, 1) != 1;
        bad += read(go_on[0], &byte, 1) != 1;
        share_close(s);
        _exit(bad != 0);
    }
    char bytes[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) assert_int_equal(read(opened[0], bytes, 1), 1);
    assert_int_equal(files_left(), 1);
    assert_int_equal(write(go_on[1], bytes, PROCESSES), PROCESSES);
    for (int p = 0; p < PROCESSES; p++) {
        int status;
        wait(&status);
        assert_int_equal(status, 0);
    }
    assert_int_equal(fillings(log), 1);
    assert_int_equal(files_left(), 0);
    free(log);
}

static void names_keep_contents_apart(void **state) {
    (void)state;
    Share *a, *b, *c;
    const char *log = in_folder("log2");
    Filling one = {.log = log, .value = 1}, two = {.log = log, .value = 2};
    assert_status_ok(share_open(&a, "one", N * 8, fill, &one));
    assert_status_ok(share_open(&b, "two", N * 8, fill, &two));
    assert_status_ok(share_open(&c, "one", N * 8, fill, &two)); /* is there already */
    assert_int_equal(fillings(log), 2);
    assert_int_equal(files_left(), 2);
    check_and_close(a, 1);
    check_and_close(b, 2);
    check_and_close(c, 1);
    share_close(NULL);
    assert_int_equal(files_left(), 0);
}

static void what_a_killed_process_left_is_not_believed(void **state) {
    (void)state;
    const char *log = in_folder("log3");
    if (fork() == 0) {
        Share *s;
        Filling f = {.log = log, .value = 9, .dies = true};
        share_open(&s, "killed", N * 8, fill, &f);
        _exit(0);
    }
    wait(NULL);
    assert_int_equal(files_left(), 1);
    Share *s;
    Filling f = {.log = log, .value = 10};
    assert_status_ok(share_open(&s, "killed", N * 8, fill, &f));
    assert_int_equal(fillings(log), 2);
    check_and_close(s, 10);
    assert_int_equal(files_left(), 0);
}

/* kill -9 of a whole job leaves nothing once its processes have said that all have it; of what it
 * leaves before, the next one frees the disk, whatever that shares itself. */
static void killed_jobs_leave_nothing_for_long(void **state) {
    (void)state;
    const char *log = in_folder("log6");
    for (int unlinks = 0; unlinks < 2; unlinks++) {
        if (fork() == 0) {
            Share *s;
            Filling f = {.log = log, .value = 9};
            if (share_open(&s, "of a job", N * 8, fill, &f) != OK) _exit(1);
            if (unlinks) share_unlink_all();
            if (((const int64_t *)share_data(s))[N - 1] == 9 + N - 1) raise(SIGKILL);
            _exit(1);
        }
        int status;
        wait(&status);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(files_left(), unlinks ? 0 : 1);
        if (unlinks) continue;
        if (fork() == 0) { /* another program */
            Share *s;
            Filling f = {.log = log, .value = 1};
            bool good = share_open(&s, "of the next", N * 8, fill, &f) == OK && files_left() == 1;
            share_close(s);
            _exit(!good);
        }
        wait(&status);
        assert_int_equal(status, 0);
        assert_int_equal(files_left(), 0);
    }
}

/* Files in use are not abandoned, and a file that another process made of the same name is not
 * ours to delete. */
static void files_of_others_stay(void **state) {
    (void)state;
    Share *a, *b;
    Filling one = {.log = in_folder("log7"), .value = 1};
    assert_status_ok(share_open(&a, "same", N * 8, fill, &one));
    share_unlink_all();
    assert_int_equal(files_left(), 0);
    int made[2];
    char byte = 0;
    assert_int_equal(pipe(made), 0);
    pid_t other = fork();
    if (other == 0) {
        if (share_open(&b, "same", N * 8, fill, &one) != OK) _exit(1);
        if (write(made[1], "x", 1) != 1) _exit(1);
        pause();
    }
    assert_int_equal(read(made[0], &byte, 1), 1);
    assert_int_equal(files_left(), 1);
    share_unlink_all();
    share_close(a);
    assert_int_equal(files_left(), 1);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
}

static void what_is_small_takes_no_file(void **state) {
    (void)state;
    Share *s;
    Filling f = {.log = in_folder("log8"), .value = 4, .small = true};
    assert_status_ok(share_open(&s, "small", 80, fill, &f));
    assert_int_equal(((const int64_t *)share_data(s))[9], 13);
    assert_int_equal(files_left(), 1); /* what the test before left */
    share_close(s);
}

static void a_failure_to_compute_is_passed_on(void **state) {
    (void)state;
    Share *s;
    Filling f = {.log = in_folder("log4"), .fails = true};
    assert_status_fails(share_open(&s, "fails", N * 8, fill, &f), ERR_USER, "no");
    assert_null(s);
    assert_int_equal(files_left(), 0);
}

static void without_a_folder_each_process_has_its_own(void **state) {
    (void)state;
    Share *s;
    Filling f = {.log = in_folder("log5"), .value = 3};
    setenv("TMPDIR", in_folder("nowhere"), 1);
    assert_status_ok(share_open(&s, "alone", N * 8, fill, &f));
    check_and_close(s, 3);
    setenv("TMPDIR", folder, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_process_computes_and_the_last_cleans_up),
        cmocka_unit_test(names_keep_contents_apart),
        cmocka_unit_test(what_a_killed_process_left_is_not_believed),
        cmocka_unit_test(a_failure_to_compute_is_passed_on),
        cmocka_unit_test(killed_jobs_leave_nothing_for_long),
        cmocka_unit_test(files_of_others_stay),
        cmocka_unit_test(what_is_small_takes_no_file),
        cmocka_unit_test(without_a_folder_each_process_has_its_own),
    };
    return cmocka_run_group_tests(tests, make_tmpdir, remove_folder);
}
