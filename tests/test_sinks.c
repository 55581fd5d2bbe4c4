/* Sinks: what they write is read back, from a disk that is full for a while, too. */
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

static int make_dir(void **state) {
    (void)state;
    signal(SIGXFSZ,
           SIG_IGN); /* as main does: a write beyond the limit then fails, like on a full disk */
    snprintf(dir, sizeof dir, "/tmp/cria-test-sinks.XXXXXX");
    config = (Config){.run.dir = dir};
    return mkdtemp(dir) == NULL;
}
static int remove_dir(void **state) {
    (void)state;
    char command[80];
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

static StrBuf read_log(void) {
    char *path = mem_printf("%s/log.jsonl", dir);
    StrBuf text = read_file(path);
    free(path);
    return text;
}

/* What the process writes to a descriptor between begin and end: less than a pipe holds. */
static int captured, kept, reader;

static void capture_begin(int fd) {
    int ends[2];
    captured = fd;
    kept = dup(fd);
    assert_true(kept >= 0 && pipe(ends) == 0 && dup2(ends[1], fd) == fd);
    close(ends[1]);
    reader = ends[0];
}

static StrBuf capture_end(void) {
    StrBuf text = {0};
    char part[4096];
    dup2(kept, captured);
    close(kept);
    for (ssize_t n; (n = read(reader, part, sizeof part)) > 0;)
        strbuf_append(&text, part, (size_t)n);
    close(reader);
    return text;
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) n++;
    return n;
}

static Sink *open_sinks(const char *head, int64_t step) {
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

static void write_records(Sink *all) {
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

/* Every line is one object; returns how many there are. */
static int check_lines(const StrBuf *text) {
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

/* ---- TensorBoard ----------------------------------------------------------------------------- */

/* CRC-32C by its definition, a remainder of polynomials, bit by bit from the front: not the
 * reflected form that the sink computes. */
static uint32_t crc32c(const void *data, size_t n) {
    const unsigned char *bytes = data;
    uint32_t rest = 0xffffffffu, reflected = 0;
    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            uint32_t in = (bytes[i] >> bit & 1u) ^ rest >> 31;
            rest = rest << 1 ^ (in ? 0x1edc6f41u : 0);
        }
    for (int bit = 0; bit < 32; bit++) reflected |= (rest >> bit & 1u) << (31 - bit);
    return ~reflected;
}

static uint32_t masked(uint32_t crc) {
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

enum { TB_VALUES = 32 };
/* An Event of one record: what the tests look at. */
typedef struct {
    double wall;
    int64_t step;
    bool starts;      /* has a SessionLog with status START */
    char version[32]; /* of the file */
    int n;            /* values of the summary */
    char tags[TB_VALUES][32];
    float values[TB_VALUES];
    char text[16]; /* the value of a summary that is a text */
} TbEvent;

typedef struct {
    const unsigned char *at, *end;
} Bytes;

static uint64_t read_varint(Bytes *b) {
    uint64_t x = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->at < b->end && shift < 64);
        x |= (uint64_t)(*b->at & 127) << shift;
        if ((*b->at++ & 128) == 0) return x;
    }
}

static void read_fixed(Bytes *b, void *out, size_t n) {
    assert_true((size_t)(b->end - b->at) >= n);
    memcpy(out, b->at, n);
    b->at += n;
}

static Bytes read_part(Bytes *b) {
    uint64_t n = read_varint(b);
    assert_true((uint64_t)(b->end - b->at) >= n);
    Bytes part = {b->at, b->at + n};
    b->at = part.end;
    return part;
}

static void read_text(Bytes *b, char *out, size_t size) {
    Bytes part = read_part(b);
    snprintf(out, size, "%.*s", (int)(part.end - part.at), (const char *)part.at);
}

/* A tensor of type STRING and shape [1]. */
static void read_text_value(Bytes b, TbEvent *e) {
    assert_true(b.end - b.at > 8);
    assert_memory_equal(b.at, "\x08\x07\x12\x04\x12\x02\x08\x01", 8);
    b.at += 8;
    assert_int_equal(read_varint(&b), 8 << 3 | 2);
    read_text(&b, e->text, sizeof e->text);
    assert_ptr_equal(b.at, b.end);
}

static void read_value(Bytes b, TbEvent *e) {
    assert_true(e->n < TB_VALUES);
    assert_int_equal(read_varint(&b), 1 << 3 | 2);
    read_text(&b, e->tags[e->n], sizeof e->tags[0]);
    uint64_t field = read_varint(&b);
    if (field == (8 << 3 | 2)) {
        read_text_value(read_part(&b), e);
        assert_int_equal(read_varint(&b), 9 << 3 | 2);
        Bytes plugin = read_part(&b); /* {1: {1: "text"}} */
        assert_memory_equal(plugin.at, "\x0a\x06\x0a\x04text", 8);
    } else {
        assert_int_equal(field, 2 << 3 | 5);
        read_fixed(&b, &e->values[e->n], sizeof(float));
    }
    e->n++;
    assert_ptr_equal(b.at, b.end);
}

static TbEvent read_event(Bytes b) {
    TbEvent e = {0};
    while (b.at < b.end) switch (read_varint(&b)) {
        case 1 << 3 | 1:
            read_fixed(&b, &e.wall, sizeof e.wall);
            break;
        case 2 << 3 | 0:
            e.step = (int64_t)read_varint(&b);
            break;
        case 3 << 3 | 2:
            read_text(&b, e.version, sizeof e.version);
            break;
        case 5 << 3 | 2:
            for (Bytes summary = read_part(&b); summary.at < summary.end;) {
                assert_int_equal(read_varint(&summary), 1 << 3 | 2);
                read_value(read_part(&summary), &e);
            }
            break;
        case 7 << 3 | 2: {
            Bytes log = read_part(&b);
            assert_int_equal(read_varint(&log), 1 << 3 | 0);
            e.starts = read_varint(&log) == 1;
            break;
        }
        default:
            fail_msg("a field that no Event has");
        }
    return e;
}

/* Of the only event file of a folder, which is deleted with `done`. */
static int read_events_of(const char *folder, TbEvent *events, int most, bool done) {
    DIR *d = opendir(folder);
    char *path = NULL;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, "events.out.tfevents.", 20) == 0) {
            assert_null(path);
            path = mem_printf("%s/%s", folder, e->d_name);
        }
    closedir(d);
    assert_non_null(path);
    StrBuf text = read_file(path);
    Bytes b = {(const unsigned char *)text.text, (const unsigned char *)text.text + text.len};
    int n = 0;
    for (; b.at < b.end; n++) {
        uint64_t size;
        uint32_t crc;
        const unsigned char *begin = b.at;
        read_fixed(&b, &size, sizeof size);
        read_fixed(&b, &crc, sizeof crc);
        assert_int_equal(crc, masked(crc32c(begin, sizeof size)));
        assert_true(size <= (uint64_t)(b.end - b.at) && n < most);
        Bytes event = {b.at, b.at + size};
        b.at = event.end;
        read_fixed(&b, &crc, sizeof crc);
        assert_int_equal(crc, masked(crc32c(event.at, size)));
        events[n] = read_event(event);
    }
    strbuf_free(&text);
    if (done) unlink(path);
    free(path);
    return n;
}

static int read_events(TbEvent *events, int most, bool done) {
    return read_events_of(dir, events, most, done);
}
static int read_events_over_tokens(TbEvent *events, int most) {
    char *folder = mem_printf("%s/by-tokens", dir);
    int n = read_events_of(folder, events, most, true);
    free(folder);
    return n;
}

/* The steps of events that TensorBoard shows after it has read n of them in this order. */
static int shown_steps(const TbEvent *events, int n, int64_t *steps) {
    int n_steps = 0;
    for (const TbEvent *e = events; e < events + n; e++) {
        while (e->starts && n_steps > 0 && steps[n_steps - 1] >= e->step) n_steps--;
        if (e->n > 0) steps[n_steps++] = e->step;
    }
    return n_steps;
}

static void check_value(const TbEvent *e, const char *tag, float value) {
    for (int i = 0; i < e->n; i++)
        if (strcmp(e->tags[i], tag) == 0) {
            assert_true(e->values[i] == value || (isnan(e->values[i]) && isnan(value)));
            return;
        }
    fail_msg("no value '%s'", tag);
}

static void events_are_framed_as_tensorboard_reads_them(void **state) {
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u); /* the check value of CRC-32C */
    TbEvent events[8];
    config.log.tensorboard = true;
    Sink *all = open_sinks("{}", 0);
    write_records(all);
    StepRecord known = a_step;
    known.mfu = 0.5;
    all->step(all, &known);
    all->free(all);
    assert_int_equal(read_events(events, 8, true), 6);
    assert_string_equal(events[0].version, "brain.Event:2");
    assert_true(events[0].wall > 1.6e9);
    assert_true(events[1].starts);
    assert_int_equal(events[1].step, 1);
    assert_int_equal(events[2].step, 3);
    assert_int_equal(events[2].n, 8);
    check_value(&events[2], "lm loss", 2.5f);
    check_value(&events[2], "grad-norm", NAN);
    check_value(&events[2], "learning-rate", 1e-3f);
    check_value(&events[2], "iteration-time", 0.25f);
    check_value(&events[2], "throughput", 1.5f);
    check_value(&events[2], "tokens-per-second", 16384);
    check_value(&events[2], "memory-gib", 0.25f);
    check_value(&events[2], "tokens", 4096);
    assert_int_equal(events[3].n, 2);
    check_value(&events[3], "lm loss validation", 2.75f);
    check_value(&events[3], "lm loss validation ppl", (float)exp(2.75));
    assert_string_equal(events[4].tags[0], "sample");
    assert_string_equal(events[4].text, "a \"b\"\nc\x1b[2J");
    assert_int_equal(events[5].n, 9);
    check_value(&events[5], "mfu", 0.5f);
    assert_int_equal(read_events_over_tokens(events, 8), 5);
    assert_string_equal(events[0].version, "brain.Event:2");
    assert_true(events[1].starts);
    for (int i = 1; i < 5; i++) assert_int_equal(events[i].step, 4096); /* tokens */
    assert_int_equal(events[2].n, 1);
    check_value(&events[2], "lm loss vs tokens", 2.5f);
    check_value(&events[3], "lm loss validation vs tokens", 2.75f);
}

/* TensorBoard hides events of the step of a START event and of later ones that it has read before
 * (data_ingester and event_accumulator, "purge orphaned data"). */
static void a_resumed_run_cuts_later_events(void **state) {
    (void)state;
    TbEvent events[16], over_tokens[16];
    int64_t shown[16];
    int n = 0, n_over = 0;
    config.log.tensorboard = true;
    StepRecord r = a_step;
    for (int run = 0; run < 2; run++) { /* the second from the checkpoint of step 2 */
        Sink *all = open_sinks("{}", 2 * run);
        for (r.step = 1 + 2 * run; r.step <= 4 + run; r.step++) {
            r.tokens = 100 * (double)r.step;
            all->step(all, &r);
        }
        all->free(all);
        n += read_events(events + n, 16 - n, true);
        n_over += read_events_over_tokens(over_tokens + n_over, 16 - n_over);
    }
    assert_int_equal(shown_steps(events, n, shown), 5);
    for (int i = 0; i < 5; i++) assert_int_equal(shown[i], i + 1);
    assert_int_equal(shown_steps(over_tokens, n_over, shown), 5);
    for (int i = 0; i < 5; i++) assert_int_equal(shown[i], 100 * (i + 1));
}

static PhaseSpread some_phases[PHASES] = {
    [PHASE_FORWARD] = {1.5, 2.25, 4, 3}, [PHASE_OTHER] = {0, 0, 0.125, 1}};

static void phases_are_in_log_and_events(void **state) {
    (void)state;
    TbEvent events[8];
    config.log.jsonl = config.log.tensorboard = true;
    StepRecord r = a_step;
    Sink *all = open_sinks("{}", 0);
    all->step(all, &r);
    r.phases = some_phases;
    all->step(all, &r);
    all->free(all);
    StrBuf text = read_log();
    const char *log = strbuf_text(&text);
    assert_int_equal(check_lines(&text), 3);
    assert_int_equal(count(log, "\"phase_ms\""), 1);
    assert_non_null(strstr(log,
                           "\"phase_ms\":{\"data\":{\"min\":0,\"median\":0,\"max\":0,\"rank\":0},"
                           "\"forward\":{\"min\":1.5,\"median\":2.25,\"max\":4,\"rank\":3},"));
    assert_non_null(strstr(
        log, "\"other\":{\"min\":0,\"median\":0,\"max\":0.125,\"rank\":1}},\"weights_crc\""));
    strbuf_free(&text);
    assert_int_equal(read_events(events, 8, true), 4);
    check_value(&events[3], "phase/forward-median", 2.25f);
    check_value(&events[3], "phase/forward-max", 4);
    check_value(&events[3], "phase/other-max", 0.125f);
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

static void events_can_be_read_after_a_full_disk(void **state) {
    (void)state;
    TbEvent events[8];
    config.log.tensorboard = true;
    StepRecord r = {.step = 1, .loss = 2};
    Sink *all = open_sinks("{}", 0);
    all->step(all, &r);
    assert_int_equal(read_events(events, 8, false), 3);
    limit_files(300);
    capture_begin(STDERR_FILENO);
    for (r.step = 2; r.step < 9; r.step++) all->step(all, &r);
    StrBuf told = capture_end();
    assert_int_equal(count(strbuf_text(&told), "cannot be written and lacks records"), 2);
    strbuf_free(&told);
    int n = read_events(events, 8, false);
    assert_true(n < 5);
    limit_files(RLIM_INFINITY);
    for (; r.step < 12; r.step++) all->step(all, &r);
    all->free(all);
    assert_int_equal(read_events(events, 8, true), n + 3);
    assert_int_equal(events[n + 2].step, 11);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

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
        CASE(events_are_framed_as_tensorboard_reads_them),
        CASE(a_resumed_run_cuts_later_events),
        CASE(events_can_be_read_after_a_full_disk),
        CASE(phases_are_in_log_and_events),
        CASE(a_slow_rank_is_warned_of_and_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
