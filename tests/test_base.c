/* test_base.c: what every module builds on: messages that are safe to print, whole files, and the
 * exit status that a failed open stands for. */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"
#include "token_files.h"

static void only_well_formed_characters_are_utf8(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        uint32_t code;
    } cases[] = {
        {"a", 1, 'a'},
        {"\x7f", 1, 0x7f},
        {"\xc2\x80", 2, 0x80},
        {"\xdf\xbf", 2, 0x7ff},
        {"\xe0\xa0\x80", 3, 0x800},
        {"\xef\xbf\xbd", 3, 0xfffd},
        {"\xf0\x90\x80\x80", 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
        {"\x80", 0, 0},             /* a byte that only continues a character */
        {"\x9b\x80", 0, 0},         /* CSI of 8-bit terminals, and a continuation */
        {"\xc0\xaf", 0, 0},         /* longer than needed */
        {"\xe0\x9f\xbf", 0, 0},     /* longer than needed */
        {"\xed\xa0\x80", 0, 0},     /* half of a surrogate pair */
        {"\xf4\x90\x80\x80", 0, 0}, /* beyond Unicode */
        {"\xff", 0, 0},
        {"\xe2\x82", 0, 0}, /* cut short */
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const char *text = cases[c].text;
        assert_int_equal(utf8_length(text, strlen(text)), cases[c].length);
        if (cases[c].length > 0)
            assert_int_equal(utf8_decode(text, cases[c].length), cases[c].code);
    }
    assert_int_equal(utf8_length("", 0), 0);
}

/* Escape sequences begin with ESC or, on some terminals, with a C1 control character: U+009B as
 * UTF-8 or as the byte 9b. */
static void what_is_printed_cannot_command_a_terminal(void **state) {
    (void)state;
    static const char evil[] = "a\x1b[31m \xc2\x9b"
                               "31m \x9b"
                               "31m \x7f\r\t\xe2\x80\xa8 é\n";
    char *printable = mem_printable(evil);
    assert_string_equal(printable, "a?[31m ?31m ?31m ???? é?");
    free(printable);
    assert_status_fails(status_fail(ERR_USER, "file %s", evil), ERR_USER,
                        "file a?[31m ?31m ?31m ??\t? é\n");
    status_fail(ERR_USER, "message");
    status_prefix("%s", evil);
    status_suffix("; %s", evil);
    assert_true(text_is_printable("x", 1));
    char *shown = mem_strdup(status_message());
    for (char *part = strtok(shown, "\n\t"); part != NULL; part = strtok(NULL, "\n\t"))
        assert_true(text_is_printable(part, strlen(part)));
    free(shown);
    status_clear();
}

static void numbers_for_people_have_three_digits(void **state) {
    (void)state;
    static const struct {
        double x;
        const char *text;
    } cases[] = {{0, "0"},
                 {0.5, "0.50"},
                 {7, "7"},
                 {950, "950"},
                 {999.4, "999"},
                 {999.6, "1.00 k"},
                 {9996, "10.0 k"},
                 {69234, "69.2 k"},
                 {245760, "246 k"},
                 {1.228e9, "1.23 B"},
                 {1.0486e10, "10.5 B"},
                 {3e15, "3000 T"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(number_text(cases[i].x, " ").text, cases[i].text);
    assert_string_equal(number_text(69234, "").text, "69.2k");
}

static void json_strings_hold_no_control_character(void **state) {
    (void)state;
    StrBuf text = {0};
    strbuf_json_string(&text, "a\"\\\n\t\x7f\xc2\x9b \x9b \xc3\xa9");
    assert_string_equal(text.text, "\"a\\\"\\\\\\n\\u0009\\u007f\\u009b \\ufffd \xc3\xa9\"");
    strbuf_free(&text);
}

static void a_wrong_path_is_a_mistake_and_a_failing_disk_is_not(void **state) {
    (void)state;
    static const int mistakes[] = {ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP, EISDIR};
    static const int failures[] = {EIO, ESTALE, EMFILE, ENFILE, ENOMEM, ENOSPC, ETIMEDOUT};
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        assert_int_equal(file_open_status(mistakes[i]), ERR_USER);
        assert_int_equal(file_create_status(mistakes[i]), ERR_USER);
    }
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        assert_int_equal(file_open_status(failures[i]), ERR_ENV);
        assert_int_equal(file_create_status(failures[i]), ERR_ENV);
    }
    assert_int_equal(file_open_status(EACCES), ERR_USER);
    assert_int_equal(file_create_status(EACCES), ERR_ENV);
}

static void files_are_read_up_to_a_limit_and_fifos_not_at_all(void **state) {
    (void)state;
    StrBuf text = {0};
    const char *path = write_bytes("ten", "0123456789", 10);
    assert_status_ok(file_read_all(&text, path, "this file", 10));
    assert_string_equal(text.text, "0123456789");
    assert_status_fails(file_read_all(&text, path, "a short file", 9), ERR_USER,
                        "found more than 9 bytes, expected a short file");
    assert_status_fails(file_read_all(&text, in_folder("none"), "this file", 10), ERR_USER,
                        "none: cannot open this file: No such file");
    assert_status_fails(file_read_all(&text, folder, "this file", 10), ERR_USER,
                        "it is a directory");
    assert_status_fails(file_read_all(&text, "/dev/zero", "this file", 10), ERR_USER,
                        "it is a device or socket, expected a regular file");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_status_fails(file_read_all(&text, in_folder("fifo"), "this file", 10), ERR_USER,
                        "it is a FIFO");
    strbuf_free(&text);
    int ends[2]; /* as of <(command) */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "piped", 5), 5);
    close(ends[1]);
    char *name = mem_printf("/dev/fd/%d", ends[0]);
    assert_status_ok(file_read_all(&text, name, "this file", 10));
    assert_string_equal(text.text, "piped");
    close(ends[0]);
    free(name);
    strbuf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_well_formed_characters_are_utf8),
        cmocka_unit_test(what_is_printed_cannot_command_a_terminal),
        cmocka_unit_test(numbers_for_people_have_three_digits),
        cmocka_unit_test(json_strings_hold_no_control_character),
        cmocka_unit_test(a_wrong_path_is_a_mistake_and_a_failing_disk_is_not),
        cmocka_unit_test(files_are_read_up_to_a_limit_and_fifos_not_at_all),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
