/* sink_rig.h: what the tests of sinks share: a run.dir and a configuration, records, what the
 * process prints, what it writes. */
#ifndef CRIA_TESTS_SINK_RIG_H
#define CRIA_TESTS_SINK_RIG_H

#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "metrics/log_file.h"
#include "metrics/sink.h"

static char dir[64];
static Config config;

static inline int make_dir(void **state) {
    (void)state;
    signal(SIGXFSZ,
           SIG_IGN); /* as main does: a write beyond the limit then fails, like on a full disk */
    snprintf(dir, sizeof dir, "/tmp/cria-test-sinks.XXXXXX");
    config = (Config){.run.dir = dir};
    return mkdtemp(dir) == NULL;
}
static inline int remove_dir(void **state) {
    (void)state;
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static inline void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static inline StrBuf read_file(const char *path) {
    StrBuf text = {0};
    char part[4096];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_append(&text, part, n);
    fclose(f);
    return text;
}

static inline StrBuf read_log(void) {
    char *path = mem_printf("%s/log.jsonl", dir);
    StrBuf text = read_file(path);
    free(path);
    return text;
}

/* What the process writes to a descriptor between begin and end: less than a pipe holds. */
static int captured, kept, reader;

static inline void capture_begin(int fd) {
    int ends[2];
    captured = fd;
    kept = dup(fd);
    assert_true(kept >= 0 && pipe(ends) == 0 && dup2(ends[1], fd) == fd);
    close(ends[1]);
    reader = ends[0];
}

static inline StrBuf capture_end(void) {
    StrBuf text = {0};
    char part[4096];
    dup2(kept, captured);
    close(kept);
    for (ssize_t n; (n = read(reader, part, sizeof part)) > 0;)
        strbuf_append(&text, part, (size_t)n);
    close(reader);
    return text;
}

static inline int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) n++;
    return n;
}

static inline Sink *open_sinks(const char *head, int64_t step) {
    Sink *all;
    const SinkRun run = {.config = &config, .head = head, .step = step};
    assert_status_ok(sink_open_all(&all, &run));
    return all;
}

static const StepRecord a_step = {.step = 3,
                                  .steps = 6,
                                  .loss = 2.5,
                                  .grad_norm = NAN,
                                  .lr = 1e-3,
                                  .tokens = 4096,
                                  .ms = 250,
                                  .tok_s = 16384,
                                  .tok_s_gpu = 8192,
                                  .tflops_gpu = 1.5,
                                  .mem_gib = 0.25,
                                  .eta_seconds = 3700,
                                  .has_crc = true,
                                  .weights_crc = 0xabc};
static const EvalRecord an_eval = {.step = 3,
                                   .all = {.loss = 2.75,
                                           .tokens = 512,
                                           .bits_per_byte = NAN,
                                           .positions = {{16, 3, 256}, {32, 2.5, 256}},
                                           .n_positions = 2}};
#define AN_EVAL_LINE                                                                               \
    "{\"kind\":\"eval\",\"step\":3,\"loss\":2.75,\"tokens\":512,\"ppl\":15.6426319,"               \
    "\"by_position\":[[16,3,256],[32,2.5,256]]}\n"
static const EvalNumbers two_sets[] = {
    {.name = "web", .loss = 2, .tokens = 512, .bits_per_byte = 0.75},
    {.name = "a_set_of_32_letters_is_as_long__", .loss = NAN, .bits_per_byte = NAN}};
static const EvalRecord an_eval_of_sets = {.step = 3,
                                           .all = {.loss = 2, .tokens = 512, .bits_per_byte = NAN},
                                           .sets = two_sets,
                                           .n_sets = 2};
static const SampleRecord a_sample = {
    .step = 3, .prompt = "a \"b\"", .text = "\nc\x1b[2J", .tokens = 4};
static const SaveRecord a_save = {.step = 3,
                                  .path = "a \"quoted\" path",
                                  .bytes = 1 << 20,
                                  .snapshot_seconds = 0.125,
                                  .seconds = 0.5,
                                  .weights_crc = 0xdef};

static inline void write_records(Sink *all) {
    char message[] = "step 3: it went wrong";
    all->step(all, &a_step);
    all->eval(all, &an_eval);
    all->sample(all, &a_sample);
    all->snapshot(all, &a_save);
    all->save(all, &a_save);
    for (GuardOutcome outcome = GUARD_WARNED; outcome < GUARD_OUTCOMES; outcome++) {
        const GuardRecord r = {.outcome = outcome,
                               .message = message,
                               .step = 3,
                               .loss = INFINITY,
                               .z = NAN,
                               .first_sample = 7,
                               .samples = 2};
        all->guard(all, &r);
    }
}

/* Every line is one object; returns how many there are. */
static inline int check_lines(const StrBuf *text) {
    int n = 0;
    for (const char *at = strbuf_text(text); *at != '\0'; n++) {
        size_t len = strcspn(at, "\n");
        Json j;
        json_start(&j, at, (int64_t)len);
        assert_int_equal(json_peek(&j), '{');
        json_skip(&j);
        json_end(&j);
        assert_null(j.error);
        assert_int_equal(at[len], '\n');
        at += len + 1;
    }
    return n;
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

#endif
