/* Logs on a disk that is full for a while: whole records before and after, nothing of those
 * between. */
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <dirent.h>
#include <unistd.h>

#include "metrics/log_file.h"
#include "metrics/sink.h"

static char dir[] = "/tmp/cria-test-log.XXXXXX";

static int make_dir(void **state) {
    (void)state;
    signal(SIGXFSZ,
           SIG_IGN); /* as main does: a write beyond the limit then fails, like on a full disk */
    return mkdtemp(dir) == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static StrBuf read_file(const char *path) {
    StrBuf text = {0};
    char part[4096];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_append(&text, part, n);
    fclose(f);
    return text;
}

static void torn_records_are_taken_back(void **state) {
    (void)state;
    char *path = mem_printf("%s/log", dir);
    LogFile f;
    assert_status_ok(log_file_open(&f, path));
    log_file_append(&f, "one\n", 4);
    limit_files(10);
    log_file_append(&f, "second\n", 7);
    assert_true(f.failed);
    log_file_append(&f, "third\n", 6);
    log_file_append(&f, "fourth\n", 7);
    limit_files(RLIM_INFINITY);
    log_file_append(&f, "five\n", 5);
    assert_false(f.failed);
    log_file_close(&f);
    StrBuf text = read_file(path);
    assert_string_equal(strbuf_text(&text), "one\nthird\nfive\n");
    strbuf_free(&text);

    assert_status_ok(log_file_open(&f, path)); /* goes on behind what is there */
    log_file_append(&f, "six\n", 4);
    log_file_close(&f);
    text = read_file(path);
    assert_string_equal(strbuf_text(&text), "one\nthird\nfive\nsix\n");
    strbuf_free(&text);
    free(path);
    assert_status_fails(log_file_open(&f, "/nowhere/log"), ERR_ENV,
                        "cannot write the log /nowhere/log");
}

static char *event_file(void) {
    DIR *d = opendir(dir);
    char *path = NULL;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, "events", 6) == 0) path = mem_printf("%s/%s", dir, e->d_name);
    closedir(d);
    assert_non_null(path);
    return path;
}

/* Walks TFRecords: a length of 8 bytes, its checksum of 4, data, its checksum of 4. */
static int count_records(const char *path) {
    StrBuf text = read_file(path);
    size_t at = 0;
    int records = 0;
    for (uint64_t n; at < text.len; at += 12 + n + 4, records++) {
        assert_true(at + 12 <= text.len);
        memcpy(&n, text.text + at, sizeof n);
        assert_true(n < 1000);
    }
    assert_int_equal(at, text.len);
    strbuf_free(&text);
    return records;
}

static void events_can_be_read_after_a_full_disk(void **state) {
    (void)state;
    Sink *s;
    assert_status_ok(sink_tensorboard_create(&s, dir));
    char *path = event_file();
    StepRecord step = {.step = 1, .loss = 2};
    s->step(s, &step);
    assert_int_equal(count_records(path), 2);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    limit_files((rlim_t)st.st_size + 20);
    for (step.step = 2; step.step < 5; step.step++) s->step(s, &step);
    assert_int_equal(count_records(path), 2);
    limit_files(RLIM_INFINITY);
    for (; step.step < 8; step.step++) s->step(s, &step);
    s->free(s);
    assert_int_equal(count_records(path), 5);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(torn_records_are_taken_back),
                                       cmocka_unit_test(events_can_be_read_after_a_full_disk)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
