/* test_args.c: the parser of arguments, and the help that is made from a command's description. */
#include "cli/args.h"

#include <stdio.h>

#include "cli/commands.h"
#include "test.h"

typedef struct {
    bool flag;
    const char *text;
    int64_t integer;
    double number, share;
    int name;
} Options;

static const char *const none[] = {"none", NULL}, *const names[] = {"", "red", "blue", NULL};
static const ArgOption options[] = {
    ARG_OPTION("flag", FLAG, Options, flag, NULL, "A flag."),
    ARG_OPTION("text", TEXT, Options, text, "TEXT", "A text."),
    ARG_OPTION("integer", INTEGER, Options, integer, "N|none", "An integer.", .min = 2, .max = 9,
               .names = none),
    ARG_OPTION("number", NUMBER, Options, number, "X", "A number.", .max = 1),
    ARG_OPTION("share", SHARE, Options, share, "SHARE", "A share."),
    ARG_OPTION("name", NAME, Options, name, "NAME",
               "A name, with so much to be said about it that it does not fit the line that it "
               "begins on.",
               .min = 1, .names = names),
    {.name = NULL}};
static const Command command = {.name = "try it",
                                .summary = "for a test",
                                .arguments = "FROM TO [key=value ...]",
                                .overrides = true,
                                COMMAND_OPTIONS(options, Options),
                                COMMAND_PATHS(2, 2)};

/* Parses words separated by blanks; *a points into `line`. */
static Status parse(Args *a, char *line) {
    char *argv[16];
    int argc = 0;
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    return args_parse(a, &command, argc, argv);
}

static void every_kind_of_argument_is_read(void **state) {
    (void)state;
    char line[] =
        "a --flag x.y=1 --text=b=c --integer 9 z=2 --number 0.25 --share 0.5 --name blue d";
    Args a;
    assert_status_ok(parse(&a, line));
    const Options *o = a.options;
    assert_true(o->flag && o->integer == 9 && o->number == 0.25 && o->share == 0.5 && o->name == 2);
    assert_string_equal(o->text, "b=c");
    assert_int_equal(a.n_paths, 2);
    assert_string_equal(a.paths[1], "d");
    assert_int_equal(a.n_overrides, 2);
    assert_string_equal(a.overrides[0], "x.y=1");
    assert_true(args_given(&a, offsetof(Options, integer)));
    args_free(&a);
    char least[] = "a d --integer none";
    assert_status_ok(parse(&a, least));
    assert_int_equal(((Options *)a.options)->integer, -1);
    assert_false(args_given(&a, offsetof(Options, share)));
    args_free(&a);
}

static void mistakes_say_what_is_expected(void **state) {
    (void)state;
    static const struct {
        const char *line, *expected;
    } cases[] = {
        {"", "cria try it: missing FROM; usage: cria try it FROM TO [key=value ...]"},
        {"a x=1", "missing TO;"},
        {"a b c", "unexpected argument c (overrides have the form key=value)"},
        {"a b --flag=1", "--flag: found '1', expected no value"},
        {"a b --text", "--text: its value is missing, expected TEXT"},
        {"a b --text=", "--text: found '', expected TEXT"},
        {"a b --integer 1", "--integer: found '1', expected an integer from 2 to 9 or none"},
        {"a b --integer 3x", "found '3x'"},
        {"a b --integer 99999999999999999999", "expected an integer from 2 to 9"},
        {"a b --number 1.5", "--number: found '1.5', expected a number from 0 to 1"},
        {"a b --number nan", "found 'nan'"},
        {"a b --share 0", "--share: found '0', expected a share between 0 and 1"},
        {"a b --name green", "--name: found 'green', expected red or blue"},
        {"a b --intger 3", "unknown option --intger; did you mean --integer?"},
        {"a b --zebra", "unknown option --zebra; `cria help try it` lists them"},
        {"a b -f", "unknown option -f"},
        {"a b -", "unknown option -"},
        {"a b --x.y=1", "write the key without dashes: x.y=1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Args a;
        char line[64];
        snprintf(line, sizeof line, "%s", cases[i].line);
        assert_status_fails(parse(&a, line), ERR_USER, cases[i].expected);
        args_free(&a);
    }
}

static void help_comes_before_mistakes(void **state) {
    (void)state;
    Args a;
    char line[] = "--zebra --help";
    assert_status_ok(parse(&a, line));
    assert_true(a.help);
    args_free(&a);
    StrBuf text = {0};
    args_help(&command, &text);
    assert_string_equal(text.text,
                        "usage: cria try it FROM TO [key=value ...] [OPTION ...]\n\n"
                        "for a test\n\n"
                        "  --flag                A flag.\n"
                        "  --text TEXT           A text.\n"
                        "  --integer N|none      An integer.\n"
                        "  --number X            A number.\n"
                        "  --share SHARE         A share.\n"
                        "  --name NAME           A name, with so much to be said about it that it "
                        "does\n"
                        "                        not fit the line that it begins on.\n");
    strbuf_free(&text);
}

static void commands_are_found_by_one_or_two_words(void **state) {
    (void)state;
    char *one[] = {"train", "x"}, *two[] = {"data", "pack"}, *group[] = {"bench"},
         *slip[] = {"chekc"};
    int words;
    Status st = OK;
    assert_ptr_equal(commands_find(2, one, &words, &st), &command_train);
    assert_int_equal(words, 1);
    assert_ptr_equal(commands_find(2, two, &words, &st), &command_data_pack);
    assert_int_equal(words, 2);
    assert_null(commands_find(1, group, &words, &st));
    assert_status_fails(st, ERR_USER,
                        "the command behind it is missing, expected attention, gemm, cp or step");
    assert_null(commands_find(1, slip, &words, &st));
    assert_status_fails(st, ERR_USER, "unknown command chekc; did you mean check?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_argument_is_read),
        cmocka_unit_test(mistakes_say_what_is_expected),
        cmocka_unit_test(help_comes_before_mistakes),
        cmocka_unit_test(commands_are_found_by_one_or_two_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
