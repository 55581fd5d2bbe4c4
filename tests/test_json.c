/* The JSON reader: what it accepts, with which values, and what it refuses, where. */
#include "test.h"

#include <stdlib.h>

#include "base/json.h"

static Json start(const char *text) {
    Json j;
    json_start(&j, text, (int64_t)strlen(text));
    return j;
}

static void a_document_is_walked_in_order(void **state) {
    (void)state;
    Json j = start(" { \"n\" : -12 , \"list\":[[],[1,2],{}],\"pi\":3.25e+1,\"yes\":true,"
                   "\"none\":null,\"s\":\"x\"} ");
    char *key;
    StrBuf seen = {0};
    assert_true(json_object(&j));
    while (json_object_next(&j, &key)) {
        strbuf_printf(&seen, "%s ", key);
        if (strcmp(key, "n") == 0)
            assert_int_equal(json_int(&j), -12);
        else if (strcmp(key, "pi") == 0)
            assert_true(json_double(&j) == 32.5);
        else if (strcmp(key, "yes") == 0)
            assert_true(json_bool(&j));
        else
            json_skip(&j);
        free(key);
    }
    json_end(&j);
    assert_null(j.error);
    assert_string_equal(strbuf_text(&seen), "n list pi yes none s ");
    strbuf_free(&seen);
}

static void strings_are_decoded_to_utf8(void **state) {
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\"", ""},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac"},
        {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
        {"\"\xf0\x9f\x98\x80 \xe2\x82\xac\x7f\"", "\xf0\x9f\x98\x80 \xe2\x82\xac\x7f"},
        {"\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Json j = start(cases[i].json);
        char *text = json_string(&j);
        assert_null(j.error);
        assert_string_equal(text, cases[i].text);
        free(text);
    }
}

static void what_is_not_json_is_refused_at_its_byte(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int at;
        const char *error;
    } cases[] = {
        {"", 0, "number"},
        {"[1,]", 3, "number"},
        {"[1 2]", 3, "',' or ']'"},
        {"[1", 2, "',' or ']'"},
        {"{\"a\":1,}", 7, "string"},
        {"{\"a\" 1}", 5, "':'"},
        {"{a:1}", 1, "string"},
        {"{'a':1}", 1, "string"},
        {"{\"a\":1", 6, "',' or '}'"},
        {"{} {}", 3, "end of the text"},
        {"tru", 0, "value"},
        {"nan", 0, "value"},
        {"01", 0, "number"},
        {"-", 0, "number"},
        {"+1", 0, "number"},
        {".5", 0, "number"},
        {"1.", 0, "number"},
        {"1e", 0, "number"},
        {"1e+", 0, "number"},
        {"# comment", 0, "number"},
        {"&a [1]", 0, "number"},
        {"\"abc", 4, "ends inside"},
        {"\"a\nb\"", 2, "control"},
        {"\"\\x\"", 2, "escape"},
        {"\"\\u12g4\"", 5, "hex"},
        {"\"\\u00", 5, "hex"},
        {"\"\\u0000\"", 7, "NUL"},
        {"\"\\ud800\"", 7, "surrogate"},
        {"\"\\ud800\\u0041\"", 13, "surrogate"},
        {"\"\\udc00\"", 7, "surrogate"},
        {"\"\x80\"", 1, "UTF-8"},
        {"\"\xc0\xaf\"", 1, "UTF-8"},
        {"\"\xe0\x80\x80\"", 1, "UTF-8"},
        {"\"\xed\xa0\x80\"", 1, "UTF-8"},
        {"\"\xf4\x90\x80\x80\"", 1, "UTF-8"},
        {"\"\xf8\x88\x80\x80\x80\"", 1, "UTF-8"},
        {"\"\xe2\x82\"", 1, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Json j = start(cases[i].json);
        json_skip(&j);
        json_end(&j);
        if (j.error == NULL || strstr(j.error, cases[i].error) == NULL || j.pos != cases[i].at)
            fail_msg("%s: \"%s\" at %d, expected \"%s\" at %d", cases[i].json,
                     j.error != NULL ? j.error : "accepted", (int)j.pos, cases[i].error,
                     cases[i].at);
    }
}

static void integers_are_read_exactly_or_not_at_all(void **state) {
    (void)state;
    Json j = start("[9223372036854775807,-9223372036854775808,0,-0]");
    json_array(&j);
    assert_true(json_array_next(&j) && json_int(&j) == INT64_MAX);
    assert_true(json_array_next(&j) && json_int(&j) == INT64_MIN);
    assert_true(json_array_next(&j) && json_int(&j) == 0);
    assert_true(json_array_next(&j) && json_int(&j) == 0);
    assert_false(json_array_next(&j));
    assert_null(j.error);
    static const char *const bad[] = {"9223372036854775808", "-9223372036854775809", "1.0", "1e3",
                                      "99999999999999999999999999999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        j = start(bad[i]);
        assert_int_equal(json_int(&j), 0);
        assert_non_null(j.error);
    }
}

static void nesting_is_limited(void **state) {
    (void)state;
    enum { DEEP = 1000000 };
    char *text = NEW(char, DEEP);
    memset(text, '[', DEEP);
    Json j;
    json_start(&j, text, DEEP);
    json_skip(&j);
    assert_string_equal(j.error, "nested too deeply");
    free(text);
    j = start("[[[[[[[[[[{\"a\":[[[[[[[[[[1]]]]]]]]]]}]]]]]]]]]]");
    json_skip(&j);
    json_end(&j);
    assert_null(j.error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_walked_in_order),
        cmocka_unit_test(strings_are_decoded_to_utf8),
        cmocka_unit_test(what_is_not_json_is_refused_at_its_byte),
        cmocka_unit_test(integers_are_read_exactly_or_not_at_all),
        cmocka_unit_test(nesting_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
