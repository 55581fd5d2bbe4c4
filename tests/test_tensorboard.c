/* TensorBoard events, read back byte by byte, as TensorBoard frames them. */
#include "sink_rig.h"

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
    char text[96]; /* the value of a summary that is a text */
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

static void a_stage_is_a_text_at_its_begin(void **state) {
    (void)state;
    TbEvent events[8];
    config.log.tensorboard = true;
    const StageRecord r = {.step = 5,
                           .stage = "stages[1]",
                           .changes = "\"optim.lr\": 0.001",
                           .tokens = 1280,
                           .sample = 40};
    Sink *all = open_sinks("{}", 0);
    all->stage(all, &r);
    all->free(all);
    assert_int_equal(read_events(events, 8, true), 3);
    assert_int_equal(events[2].step, 5);
    assert_int_equal(events[2].n, 1);
    assert_string_equal(events[2].tags[0], "stage");
    assert_string_equal(events[2].text,
                        "stages[1] begins after step 5 and 1280 tokens: \"optim.lr\": 0.001");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(events_are_framed_as_tensorboard_reads_them),
        CASE(a_resumed_run_cuts_later_events),
        CASE(a_stage_is_a_text_at_its_begin),
        CASE(events_can_be_read_after_a_full_disk),
        CASE(phases_are_in_log_and_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
