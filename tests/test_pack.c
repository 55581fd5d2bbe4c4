#include "cli/commands.h"

#include <sys/stat.h>

#include "data/tokens.h"
#include "base/rng.h"
#include "token_files.h"

enum { EOD = 3, VOCAB = 1000, DOCUMENTS = 2000 };

/* Runs cria data pack in the test's folder; the words are separated by spaces, @ is the folder. */
static Status pack(const char *format, ...) {
    char *argv[32] = {"data", "pack"};
    int argc = 2;
    StrBuf line = {0};
    va_list ap;
    va_start(ap, format);
    strbuf_vprintf(&line, format, ap);
    va_end(ap);
    for (char *word = strtok(line.text, " "); word != NULL; word = strtok(NULL, " ")) {
        char *at = strchr(word, '@');
        argv[argc++] = at == NULL ? mem_strdup(word)
                                  : mem_printf("%.*s%s/%s", (int)(at - word), word, folder, at + 1);
    }
    Status st = commands_run(argc, argv);
    for (int i = 2; i < argc; i++) free(argv[i]);
    strbuf_free(&line);
    return st;
}

/* Documents of 0 to 39 ids and an EOD, in nanoGPT's format. */
static int64_t write_source(void) {
    uint16_t *ids = NEW(uint16_t, DOCUMENTS * 40);
    int64_t n = 0;
    for (uint64_t d = 0; d < DOCUMENTS; d++) {
        uint64_t r = rng_u64(1, rng_stream(RNG_TEST, 0), d);
        for (uint64_t i = 0; i < r % 40; i++) ids[n++] = (uint16_t)(10 + (r >> 8) * (i + 1) % 990);
        ids[n++] = EOD;
    }
    write_ids("source.bin", ids, n);
    free(ids);
    return n;
}

static bool same_files(const char *a, const char *b) {
    char *command = mem_printf("cmp -s %s %s", in_folder(a), in_folder(b));
    int rc = system(command);
    free(command);
    return rc == 0;
}

static int64_t size_of(const char *name) {
    struct stat info;
    return stat(in_folder(name), &info) == 0 ? info.st_size : -1;
}

static void every_format_leads_back_to_the_same_bytes(void **state) {
    (void)state;
    static const char *const forms[] = {
        "megatron",
        "megatron --ids int16",
        "megatron --ids int32 --gzip",
        "megatron --ids int64",
        "megatron --vocab 65500",
        "llmc",
        "llmc --gzip",
        "llmc --ids uint32 --shard 5000",
        "llmc --shard 1 --gzip",
        "nanogpt --shard 10000",
        "nanogpt --gzip",
    };
    write_source();
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        assert_status_ok(
            pack("--force --eod 3 --out @t%d_x --to %s @source.bin", (int)i, forms[i]));
        assert_status_ok(pack("--force --eod=3 --out=@back --to=nanogpt @t%d_x*", (int)i));
        if (!same_files("back.bin", "source.bin")) fail_msg("%s: other bytes", forms[i]);
    }
    assert_int_equal(size_of("t0_x.idx"), 34 + 12 * DOCUMENTS + 8 * (DOCUMENTS + 1));
    /* an index says where documents are: no --eod is needed, and ids stay as they are */
    assert_status_ok(pack("--force --out @back --to megatron @t3_x.bin --ids uint16"));
    assert_true(same_files("back.bin", "t0_x.bin"));
    assert_true(same_files("back.idx", "t0_x.idx"));
    assert_status_ok(pack("--force --out @raw --to nanogpt @source.bin"));
    assert_true(same_files("raw.bin", "source.bin"));
}

static void shards_end_with_documents_and_are_complete(void **state) {
    (void)state;
    int64_t n = write_source(), sum = 0;
    assert_status_ok(pack("--eod 3 --shard 7000 --to llmc --out @s @source.bin"));
    for (int i = 0;; i++) {
        char name[32];
        snprintf(name, sizeof name, "s_%06d.bin", i);
        if (access(in_folder(name), F_OK) != 0) break;
        TokenFile *f;
        int32_t id;
        assert_status_ok(tokens_open(&f, in_folder(name), FORMAT_AUTO));
        assert_status_ok(tokens_read(f, 0, 1, VOCAB, &id));
        assert_int_equal(id, EOD); /* llm.c's place for it */
        assert_true(tokens_count(f) < 7000 + 40);
        sum += tokens_count(f);
        tokens_close(f);
    }
    assert_int_equal(sum, n);
}

static void the_validation_part_is_a_fair_draw_of_documents(void **state) {
    (void)state;
    int64_t n = write_source();
    assert_status_ok(pack("--eod 3 --val 0.1 --to megatron --out @v @source.bin"));
    TokenFile *train, *val;
    assert_status_ok(tokens_open(&train, in_folder("v_train"), FORMAT_AUTO));
    assert_status_ok(tokens_open(&val, in_folder("v_val"), FORMAT_AUTO));
    int64_t held_out = tokens_index(val)->documents;
    assert_int_equal(tokens_count(train) + tokens_count(val), n);
    assert_int_equal(tokens_index(train)->documents + held_out, DOCUMENTS);
    assert_in_range(held_out, 150, 250);
    tokens_close(train);
    tokens_close(val);
    /* the same documents whatever the formats, others with another seed */
    assert_status_ok(pack("--eod 3 --val 0.1 --to nanogpt --out @w @source.bin"));
    assert_true(same_files("v_val.bin", "w_val.bin"));
    assert_status_ok(pack("--eod 3 --val 0.1 --seed 7 --to nanogpt --out @u @source.bin"));
    assert_false(same_files("v_val.bin", "u_val.bin"));
}

static int64_t documents_of(const char *name, int64_t eod) {
    TokenFile *f;
    int64_t n = 0, at = 0;
    assert_status_ok(tokens_open(&f, in_folder(name), FORMAT_AUTO));
    for (; at < tokens_count(f); n++) assert_status_ok(tokens_document_from(f, at + 1, eod, &at));
    tokens_close(f);
    return n;
}

/* Documents known from an index alone must not be lost on the way, nor the id between them end up
 * on the wrong side. */
static void documents_of_an_index_are_kept(void **state) {
    (void)state;
    static const uint16_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    static const int32_t lengths[] = {3, 2, 5};
    write_megatron("idx", 3, lengths, 1, ids);
    assert_status_ok(pack("--to nanogpt --eod 2 --force --out @kept @idx"));
    assert_int_equal(documents_of("kept.bin", 2), 3);
    assert_int_equal(size_of("kept.bin"), 2 * 13);
    assert_status_ok(pack("--to llmc --eod 2 --force --out @kept @idx"));
    assert_int_equal(documents_of("kept.bin", 2), 3);
    assert_status_ok(pack("--to nanogpt --eod none --force --out @kept @idx"));
    assert_int_equal(size_of("kept.bin"), 2 * 10);
}

/* One long text, as many begin with: there is no document to draw. */
static void too_few_documents_are_cut_instead(void **state) {
    (void)state;
    enum { N = 5000 };
    static const char *const forms[] = {"nanogpt --eod none", "nanogpt --eod 9000",
                                        "megatron --eod none", "llmc --eod none"};
    uint16_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = (uint16_t)(100 + i);
    write_ids("one.bin", ids, N);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        assert_status_ok(pack("--force --val 0.05 --out @one --to %s @one.bin", forms[i]));
        TokenFile *train, *val;
        int32_t out[N], eods = strstr(forms[i], "9000") != NULL; /* one behind each part */
        assert_status_ok(tokens_open(&train, in_folder("one_train.bin"), FORMAT_AUTO));
        assert_status_ok(tokens_open(&val, in_folder("one_val.bin"), FORMAT_AUTO));
        assert_int_equal(tokens_count(train), N - N / 20 + eods);
        assert_int_equal(tokens_count(val), N / 20 + eods);
        assert_status_ok(tokens_read(train, 0, N - N / 20, 65536, out));
        assert_status_ok(tokens_read(val, 0, N / 20, 65536, out + N - N / 20));
        for (int k = 0; k < N; k++) assert_int_equal(out[k], ids[k]);
        tokens_close(train);
        tokens_close(val);
        assert_int_equal(run_in_folder("rm one_*"), 0);
    }
    /* of two documents: the first stays as it is, the second is cut */
    ids[2000] = 3;
    ids[N - 1] = 3;
    write_ids("one.bin", ids, N);
    assert_status_ok(pack("--val 0.001 --eod 3 --out @one --to megatron @one.bin"));
    TokenFile *train;
    assert_status_ok(tokens_open(&train, in_folder("one_train"), FORMAT_AUTO));
    assert_int_equal(tokens_index(train)->documents, 2);
    assert_int_equal(megatron_document_start(tokens_index(train), 1), 2001);
    assert_int_equal(tokens_count(train), N - 5 + 1);
    tokens_close(train);
    assert_int_equal(run_in_folder("rm one*"), 0);
}

static void mistakes_are_one_sentence_and_leave_nothing_behind(void **state) {
    (void)state;
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"--to llmc --out @o", "missing FILE..."},
        {"--to llmc @source.bin", "needs --to nanogpt|megatron|llmc and --out"},
        {"--out @o @source.bin", "needs --to"},
        {"--to parquet --out @o @source.bin",
         "--to: found 'parquet', expected nanogpt, megatron or llmc"},
        {"--too llmc --out @o @source.bin", "unknown option --too; did you mean --to?"},
        {"--to nanogpt --out @o @none.bin", "none.bin: No such file"},
        {"--to nanogpt --out @o @none*", "no token file matches"},
        {"--to megatron --out @o @source.bin", "give --eod"},
        {"--to nanogpt --val 0.5 --out @o @source.bin", "give --eod"},
        {"--to nanogpt --val 1.5 --out @o @source.bin", "found '1.5', expected a share"},
        {"--to nanogpt --eod x --out @o @source.bin",
         "found 'x', expected an integer from 0 to 2147483646 or none"},
        {"--to nanogpt --gzip=1 --out @o @source.bin", "found '1', expected no value"},
        {"--to nanogpt --eod", "its value is missing, expected"},
        {"--to nanogpt --ids int32 --out @o @source.bin", "found int32, expected uint16"},
        {"--to nanogpt --vocab 900 --out @o @source.bin", "but model.vocab is 900"},
        {"--to megatron --eod 3 --ids uint8 --out @o @source.bin", "does not fit uint8"},
        {"--to nanogpt --out @o/o @source.bin", "o/o.bin.tmp: No such file"},
        {"--to nanogpt --out @source.bin/o @source.bin", "o.bin.tmp: Not a directory"},
        {"--to nanogpt --out @source @source.bin", "source.bin exists"},
        {"--to nanogpt --eod 3 --val 1e-9 --out @o @source.bin", "leaves no part to hold out"},
        {"--to nanogpt --eod 70000 --out @o @source.bin", "--eod is 70000, which cannot occur in"},
        {"--to nanogpt --eod 9 --vocab 9 --out @o @source.bin", "expected an id below --vocab 9"},
        {"--to nanogpt --out @o @pair", "only the index of"},
        {"--to nanogpt --force --out @pair @source.bin", "would be taken for the index of"},
        {"--to llmc --out @o @pair", "the id to put before each document"},
        {"--to llmc --out @o @source.bin", "is behind each of them in"},
        {"--to nanogpt --out @o @shard.bin", "is before each of them in"},
    };
    write_source();
    assert_status_ok(pack("--to megatron --eod 3 --out @pair @source.bin"));
    assert_status_ok(pack("--to llmc --eod 3 --out @shard @source.bin"));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        assert_status_fails(pack("%s", cases[c].line), ERR_USER, cases[c].text);
        char *command = mem_printf("ls %s/o* %s/*.tmp >/dev/null 2>&1", folder, folder);
        assert_int_not_equal(system(command), 0);
        free(command);
    }
    write_bytes("o.bin.tmp", "left by a killed run", 20);
    assert_status_ok(pack("--to nanogpt --out @o @source.bin"));
    assert_int_equal(size_of("o.bin.tmp"), -1);
    assert_true(same_files("o.bin", "source.bin"));
}

static void inspect_reads_everything_and_finds_what_is_wrong(void **state) {
    (void)state;
    write_source();
    char *path = mem_strdup(in_folder("source.bin"));
    char *good[] = {"data", "inspect", path, "--eod", "3", "--vocab=1000"};
    char *bad[] = {"data", "inspect", path, "--vocab", "998"};
    assert_status_ok(commands_run(6, good));
    assert_status_fails(commands_run(5, bad), ERR_USER, "but model.vocab is 998");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_leads_back_to_the_same_bytes),
        cmocka_unit_test(shards_end_with_documents_and_are_complete),
        cmocka_unit_test(the_validation_part_is_a_fair_draw_of_documents),
        cmocka_unit_test(documents_of_an_index_are_kept),
        cmocka_unit_test(too_few_documents_are_cut_instead),
        cmocka_unit_test(mistakes_are_one_sentence_and_leave_nothing_behind),
        cmocka_unit_test(inspect_reads_everything_and_finds_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
