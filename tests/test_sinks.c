/* Sinks: what the console and log.jsonl get is read back, from a disk that is full for a while,
 * too. */
#include "sink_rig.h"

/* ---- the list -------------------------------------------------------------------------------- */

static int count_files(void) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void only_what_is_configured_is_opened(void **state) {
    (void)state;
    Sink *all;
    capture_begin(STDOUT_FILENO);
    assert_status_ok(sink_open_all(&all, NULL)); /* as on ranks that write nothing */
    write_records(all);
    all->free(all);
    StrBuf text = capture_end();
    assert_int_equal(text.len, 0);
    assert_int_equal(count_files(), 0);

    capture_begin(STDOUT_FILENO);
    all = open_sinks("{}", 0); /* neither log.jsonl nor log.tensorboard */
    all->step(all, &a_step);
    all->free(all);
    text = capture_end();
    assert_true(text.len > 0);
    assert_int_equal(count_files(), 0);
    strbuf_free(&text);

    config.log.jsonl = config.log.tensorboard = true;
    capture_begin(STDOUT_FILENO);
    all = open_sinks("{}", 0);
    all->free(all);
    text = capture_end();
    assert_int_equal(count_files(), 3); /* by-tokens is a folder */
    strbuf_free(&text);
}

static void a_log_that_cannot_be_opened_is_an_error(void **state) {
    (void)state;
    Sink *all;
    config.log.jsonl = true;
    config.run.dir = (char *)(uintptr_t) "/nowhere";
    const SinkRun run = {.config = &config, .head = "{}"};
    assert_status_fails(sink_open_all(&all, &run), ERR_ENV,
                        "cannot write the log /nowhere/log.jsonl: ");
    all->free(all);
}

/* ---- console --------------------------------------------------------------------------------- */

static void the_console_gets_a_line_a_record(void **state) {
    (void)state;
    Sink *all = open_sinks("{}", 0);
    capture_begin(STDOUT_FILENO);
    write_records(all);
    all->free(all);
    StrBuf text = capture_end();
    assert_string_equal(strbuf_text(&text),
                        "step 3/6 loss 2.5000 norm   nan lr 1.0e-03  250 ms 16.4k tok/s 0.25 GiB "
                        "eta 1h01m\n"
                        "eval at step 3 | loss 2.7500 over 512 held-out tokens\n"
                        "sample at step 3 | a \"b\"\nc?[2J\n"
                        "snapshot of step 3 | training waited 0.125 s\n"
                        "saved a \"quoted\" path | 1.0 MiB in 0.50 s | weights 00000def\n");
    strbuf_free(&text);
}

static void every_set_of_an_evaluation_is_named(void **state) {
    (void)state;
    config.log.jsonl = true;
    Sink *all = open_sinks("{}", 0);
    capture_begin(STDOUT_FILENO);
    all->eval(all, &an_eval_of_sets);
    all->free(all);
    StrBuf text = capture_end();
    assert_string_equal(strbuf_text(&text),
                        "eval at step 3 | loss 2.0000 over 512 held-out tokens\n"
                        "eval at step 3 | web: loss 2.0000 0.7500 bits/byte over 512 held-out "
                        "tokens\n"
                        "eval at step 3 | a_set_of_32_letters_is_as_long__: loss nan over 0 "
                        "held-out tokens\n");
    strbuf_free(&text);
    text = read_log();
    assert_string_equal(
        strbuf_text(&text),
        "{}\n{\"kind\":\"eval\",\"step\":3,\"loss\":2,\"tokens\":512,\"ppl\":7.3890561,"
        "\"by_position\":[],\"sets\":{\"web\":{\"loss\":2,\"tokens\":512,\"ppl\":7.3890561,"
        "\"bpb\":0.75,\"by_position\":[]},\"a_set_of_32_letters_is_as_long__\":{\"loss\":null,"
        "\"tokens\":0,\"ppl\":null,\"by_position\":[]}}}\n");
    strbuf_free(&text);
}

static void step_lines_stay_below_100_columns(void **state) {
    (void)state;
    const StepRecord wide = {.step = 99999,
                             .steps = 99999,
                             .loss = 12.34567,
                             .grad_norm = 0.123456,
                             .lr = 6e-4,
                             .ms = 12345.6,
                             .tok_s = 1234567,
                             .tok_s_gpu = 154321,
                             .mfu = 0.4512,
                             .mem_gib = 123.4,
                             .eta_seconds = 23.99 * 3600};
    Sink *all = open_sinks("{}", 0);
    capture_begin(STDOUT_FILENO);
    all->step(all, &wide);
    all->free(all);
    StrBuf text = capture_end();
    assert_string_equal(strbuf_text(&text),
                        "step 99999/99999 loss 12.3457 norm 0.123 lr 6.0e-04 12346 ms 1.23M tok/s "
                        "mfu 45% 123 GiB eta 23h59m\n");
    assert_true(text.len <= 100); /* with the line break */
    strbuf_free(&text);
}

/* ---- the console on a terminal --------------------------------------------------------------- */

/* Up to the bar's end; the kernel passes a terminal's text on in pieces. */
static void read_to_percent(int master, char *text, size_t size) {
    size_t n = 0;
    text[0] = '\0';
    while (strstr(text, "50%") == NULL) {
        struct pollfd p = {.fd = master, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 60000), 1);
        ssize_t k = read(master, text + n, size - 1 - n);
        assert_true(k > 0);
        n += (size_t)k;
        text[n] = '\0';
    }
}

/* What a pseudo-terminal as stdout is sent for a step. */
static void step_on_terminal(int slave, int master, char *text, size_t size) {
    Sink *all;
    const SinkRun run = {.config = &config, .head = "{}"};
    int before = dup(STDOUT_FILENO);
    assert_true(dup2(slave, STDOUT_FILENO) == STDOUT_FILENO);
    Status st = sink_open_all(&all, &run);
    if (st == OK) all->step(all, &a_step);
    if (st == OK) read_to_percent(master, text, size);
    if (st == OK) all->free(all);
    dup2(before, STDOUT_FILENO);
    close(before);
    assert_int_equal(st, OK);
}

static void a_terminal_gets_color_and_a_bar(void **state) {
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master != -1 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave != -1);
    char text[1024];
    unsetenv("NO_COLOR");
    step_on_terminal(slave, master, text, sizeof text);
    assert_non_null(strstr(text, "\033[1mloss 2.5000\033[0m norm"));
    setenv("NO_COLOR", "1", 1);
    step_on_terminal(slave, master, text, sizeof text);
    unsetenv("NO_COLOR");
    assert_null(strstr(text, "\033[1m"));
    assert_non_null(strstr(text, "[####################--------------------]  50%"));
    close(slave);
    close(master);
}

/* The error that ends a run is printed where it ends. */
static void the_console_warns_of_steps_that_do_not_end_the_run(void **state) {
    (void)state;
    Sink *all = open_sinks("{}", 0);
    capture_begin(STDERR_FILENO);
    write_records(all);
    all->free(all);
    StrBuf text = capture_end();
    assert_int_equal(count(strbuf_text(&text), "warning: step 3: it went wrong\n"),
                     GUARD_OUTCOMES - 2);
    strbuf_free(&text);
}

/* ---- log.jsonl ------------------------------------------------------------------------------- */

static void the_log_holds_an_object_a_line(void **state) {
    (void)state;
    config.log.jsonl = true;
    Sink *all = open_sinks("{\"kind\":\"head\"}", 0);
    write_records(all);
    all->free(all);
    StrBuf text = read_log();
    const char *log = strbuf_text(&text);
    assert_int_equal(check_lines(&text), 1 + 5 + GUARD_OUTCOMES - 1);
    assert_int_equal(strncmp(log, "{\"kind\":\"head\"}\n", 16), 0);
    static const char *const parts[] = {
        "{\"kind\":\"step\",\"step\":3,\"loss\":2.5,\"grad_norm\":null,\"lr\":0.001,",
        "\"mfu\":null,", /* of an unknown device */
        "\"weights_crc\":\"00000abc\"}\n",
        AN_EVAL_LINE,
        "{\"kind\":\"sample\",\"step\":3,\"prompt\":\"a \\\"b\\\"\",\"text\":\"\\nc\\u001b[2J\","
        "\"tokens\":4}\n",
        "{\"kind\":\"snapshot\",\"step\":3,\"seconds\":0.125}\n",
        "{\"kind\":\"save\",\"step\":3,\"path\":\"a \\\"quoted\\\" path\",\"bytes\":1048576,",
        "{\"kind\":\"spike\",\"step\":3,\"loss\":null,", /* the names of before */
        "{\"kind\":\"redo\",\"step\":3,",
        "{\"kind\":\"skip\",\"step\":3,",
        "{\"kind\":\"stop\",\"step\":3,",
        "\"outcome\":\"warned\",",
        "\"outcome\":\"recomputed\",",
        "\"outcome\":\"skipped\",",
        "\"outcome\":\"stopped\",\"samples\":[7,8],\"found\":\"step 3: it went wrong\"}\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(log, parts[i]) == NULL) fail_msg("'%s' is not in %s", parts[i], log);
    strbuf_free(&text);
}

static void a_resumed_run_appends_behind_a_line_that_was_cut(void **state) {
    (void)state;
    config.log.jsonl = true;
    char *path = mem_printf("%s/log.jsonl", dir);
    FILE *f = fopen(path, "w");
    fputs("{\"kind\":\"head\"}\n{\"kind\":\"st", f); /* a job was killed here */
    fclose(f);
    free(path);
    Sink *all = open_sinks("{\"kind\":\"head\",\"step\":2}", 2);
    all->eval(all, &an_eval);
    all->free(all);
    all = open_sinks("{\"kind\":\"head\",\"step\":3}", 3);
    all->free(all);
    StrBuf text = read_log();
    assert_string_equal(
        strbuf_text(&text),
        "{\"kind\":\"head\"}\n{\"kind\":\"st\n{\"kind\":\"head\",\"step\":2}\n" AN_EVAL_LINE
        "{\"kind\":\"head\",\"step\":3}\n");
    strbuf_free(&text);
}

static void a_full_disk_is_reported_once_and_leaves_whole_lines(void **state) {
    (void)state;
    config.log.jsonl = true;
    Sink *all = open_sinks("{\"kind\":\"head\"}", 0);
    limit_files(100);
    capture_begin(STDERR_FILENO);
    for (int i = 0; i < 5; i++) all->save(all, &a_save); /* longer than 100 bytes */
    StrBuf told = capture_end();
    limit_files(RLIM_INFINITY);
    all->eval(all, &an_eval);
    all->free(all);
    assert_int_equal(count(strbuf_text(&told), "log.jsonl cannot be written and lacks records from "
                                               "here on: File too large\n"),
                     1);
    strbuf_free(&told);
    StrBuf text = read_log();
    assert_string_equal(strbuf_text(&text), "{\"kind\":\"head\"}\n" AN_EVAL_LINE);
    strbuf_free(&text);
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
    assert_status_ok(log_file_open(&f, path)); /* goes on behind what is there */
    log_file_append(&f, "six\n", 4);
    log_file_close(&f);
    StrBuf text = read_file(path);
    assert_string_equal(strbuf_text(&text), "one\nthird\nfive\nsix\n");
    strbuf_free(&text);
    free(path);
}

static void a_slow_rank_is_warned_of_and_in_the_log(void **state) {
    (void)state;
    config.log.jsonl = true;
    char message[] = "rank 3 on node a stays behind";
    const SlowRecord r = {.step = 40,
                          .rank = 3,
                          .node = "a",
                          .compute_ms = 120.5,
                          .median_ms = 100,
                          .records = 20,
                          .message = message};
    Sink *all = open_sinks("{}", 0);
    capture_begin(STDERR_FILENO);
    all->slow(all, &r);
    StrBuf told = capture_end();
    all->free(all);
    assert_string_equal(strbuf_text(&told), "cria: warning: rank 3 on node a stays behind\n");
    StrBuf text = read_log();
    assert_int_equal(check_lines(&text), 2);
    assert_non_null(
        strstr(strbuf_text(&text),
               "{\"kind\":\"slow\",\"step\":40,\"rank\":3,\"node\":\"a\",\"compute_ms\":120.5,"
               "\"median_ms\":100,\"records\":20,\"found\":\"rank 3 on node a stays behind\"}\n"));
    strbuf_free(&told);
    strbuf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(only_what_is_configured_is_opened),
        CASE(a_log_that_cannot_be_opened_is_an_error),
        CASE(the_console_gets_a_line_a_record),
        CASE(every_set_of_an_evaluation_is_named),
        CASE(step_lines_stay_below_100_columns),
        CASE(a_terminal_gets_color_and_a_bar),
        CASE(the_console_warns_of_steps_that_do_not_end_the_run),
        CASE(the_log_holds_an_object_a_line),
        CASE(a_resumed_run_appends_behind_a_line_that_was_cut),
        CASE(a_full_disk_is_reported_once_and_leaves_whole_lines),
        CASE(torn_records_are_taken_back),
        CASE(a_slow_rank_is_warned_of_and_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
