/* Text to ids and back, against what the package `tokenizers` makes of the same texts
 * (tests/golden/tokenizers/), and tokenizers that are refused. */
#include <stdlib.h>

#include "base/json.h"
#include "hf_dir.h"
#include "text/tokenizer.h"

static TokenIds read_ids(Json j) {
    TokenIds ids = {0};
    for (json_array(&j); json_array_next(&j);) token_ids_append(&ids, (int32_t)json_int(&j));
    assert_null(j.error);
    return ids;
}

static void assert_ids(TokenIds found, Json expected, const char *text) {
    TokenIds ids = read_ids(expected);
    bool same = found.n == ids.n &&
                (ids.n == 0 || memcmp(found.ids, ids.ids, (size_t)ids.n * sizeof *ids.ids) == 0);
    for (int64_t i = 0; !same && i < i64_max(found.n, ids.n); i++)
        print_message("%d, expected %d\n", i < found.n ? found.ids[i] : -1,
                      i < ids.n ? ids.ids[i] : -1);
    if (!same) fail_msg("other ids of \"%s\"", text);
    free(ids.ids);
    free(found.ids);
}

static TokenIds encode(const Tokenizer *t, const char *text, bool marks) {
    TokenIds ids = {0};
    assert_status_ok(tokenizer_encode(t, text, (int64_t)strlen(text), marks, &ids));
    return ids;
}

static char *decode(const Tokenizer *t, TokenIds ids) {
    StrBuf text = {0};
    TextStream stream = {0};
    strbuf_append(&text, "", 0);
    for (int64_t i = 0; i < ids.n; i++) tokenizer_decode(t, &stream, ids.ids[i], &text);
    text_stream_end(&stream, &text);
    free(ids.ids);
    return text.text;
}

enum { TEXT, IDS, MARKED, DECODED, MEMBERS };
static const char *const members[MEMBERS] = {"text", "ids", "marked", "decoded"};

static void check_case(const Tokenizer *t, Json *j) {
    Json v[MEMBERS];
    json_members(j, MEMBERS, members, v);
    if (v[TEXT].text != NULL) {
        char *text = json_string(&v[TEXT]);
        assert_ids(encode(t, text, false), v[IDS], text);
        assert_ids(encode(t, text, true), v[MARKED], text);
        free(text);
    }
    char *decoded = decode(t, read_ids(v[IDS])), *expected = json_string(&v[DECODED]);
    assert_string_equal(decoded, expected);
    free(decoded);
    free(expected);
}

static void texts_have_the_ids_that_tokenizers_gives_them(void **state) {
    (void)state;
    StrBuf text = read_file("tests/golden/tokenizers", "cases.json");
    Json j;
    char *path;
    int n = 0;
    json_start(&j, text.text, (int64_t)text.len);
    for (json_object(&j); json_object_next(&j, &path); free(path)) {
        Tokenizer *t;
        assert_status_ok(tokenizer_load(&t, path));
        for (json_array(&j); json_array_next(&j); n++) check_case(t, &j);
        tokenizer_free(t);
    }
    assert_null(j.error);
    assert_true(n > 300);
    strbuf_free(&text);
}

static void characters_come_when_they_are_whole(void **state) {
    (void)state;
    Tokenizer *t;
    assert_status_ok(tokenizer_load(&t, "data/tokenizer.json"));
    TokenIds ids = encode(t, "\xf0\x9f\x98\x80", false);
    TextStream stream = {0};
    StrBuf out = {0};
    int64_t bytes = 0;
    for (int64_t i = 0; i < ids.n; i++) bytes += tokenizer_bytes(t, ids.ids[i]);
    assert_int_equal(bytes, 4);
    assert_int_equal(tokenizer_bytes(t, 0), 0); /* <|endoftext|> */
    assert_int_equal(tokenizer_bytes(t, 4096), 0);
    assert_int_equal(tokenizer_bytes(t, -1), 0);
    assert_true(ids.n > 1);
    for (int64_t i = 0; i + 1 < ids.n; i++) {
        tokenizer_decode(t, &stream, ids.ids[i], &out);
        assert_int_equal(out.len, 0);
    }
    tokenizer_decode(t, &stream, ids.ids[ids.n - 1], &out);
    assert_string_equal(out.text, "\xf0\x9f\x98\x80");
    tokenizer_decode(t, &stream, ids.ids[0], &out);
    tokenizer_decode(t, &stream, 1 << 30, &out);
    assert_string_equal(out.text, "\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd");
    strbuf_free(&out);
    free(ids.ids);
    ids = (TokenIds){0};
    assert_status_fails(tokenizer_encode(t, "ab\xff", 3, false, &ids), ERR_USER,
                        "not UTF-8 at byte 2");
    free(ids.ids);
    assert_int_equal(tokenizer_size(t), 4096);
    tokenizer_free(t);
}

static void a_long_word_takes_no_longer_than_its_letters(void **state) {
    (void)state;
    enum { N = 200000 };
    Tokenizer *t;
    assert_status_ok(tokenizer_load(&t, "data/tokenizer.json"));
    char *word = NEW(char, N + 1);
    for (int i = 0; i < N; i++) word[i] = (char)('a' + i * 7 % 26);
    char *back = decode(t, encode(t, word, false));
    assert_string_equal(back, word);
    free(back);
    free(word);
    tokenizer_free(t);
}

/* Joined, a tokenizer that is read. */
#define MODEL "\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}"
#define WORDS "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}"

static const char *write_tokenizer(const char *text) {
    static char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    write_file(dir, "tokenizer.json", text, strlen(text));
    return path;
}

static void what_is_not_supported_is_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{" WORDS "}", "it has no model"},
        {"{" MODEL "}", "a pre-tokenizer without ByteLevel is not supported"},
        {"\x01\x02", "expected an object at byte 0"},
        {"{" MODEL "," WORDS, "expected ',' or '}'"},
        {"{" WORDS ", \"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]]}}",
         "a model of type Unigram is not supported"},
        {"{" WORDS ", \"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", "WordPiece"},
        {"{" WORDS ", \"model\": {\"byte_fallback\": true, \"vocab\": {}, \"merges\": []}}",
         "byte_fallback"},
        {"{" WORDS
         ", \"model\": {\"end_of_word_suffix\": \"</w>\", \"vocab\": {}, \"merges\": []}}",
         "end_of_word_suffix"},
        {"{" WORDS ", \"model\": {\"dropout\": 0.1, \"vocab\": {}, \"merges\": []}}", "dropout"},
        {"{" WORDS ", \"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "the id -1"},
        {"{" WORDS ", \"model\": {\"vocab\": {\"a\": 9999999}, \"merges\": []}}", "9999999"},
        {"{" WORDS ", \"model\": {\"vocab\": {\"a\": 1, \"b\": 1}, \"merges\": []}}",
         "two tokens have the id 1"},
        {"{" WORDS ", \"model\": {\"vocab\": {\"a\": 1}, \"merges\": [\"a b\"]}}",
         "the merge a b is not of the vocabulary"},
        {"{" WORDS ", \"model\": {\"vocab\": {\"a\": 1}, \"merges\": [\"ab\"]}}",
         "fewer than two tokens"},
        {"{" WORDS ", \"model\": {\"vocab\": {}, \"merges\": [[\"a\", \"b\", \"c\"]]}}",
         "more than two tokens"},
        {"{" MODEL "," WORDS ", \"normalizer\": {\"type\": \"NFC\"}}", "the normalizer NFC"},
        {"{" MODEL "," WORDS ", \"decoder\": {\"type\": \"Metaspace\"}}", "the decoder Metaspace"},
        {"{" MODEL ", \"pre_tokenizer\": {\"type\": \"Metaspace\"}}",
         "as the last pre-tokenizer Metaspace"},
        {"{" MODEL ", \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
         "\"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(\"}}, {\"type\": "
         "\"ByteLevel\"}]}}",
         "the pattern ( is not a regular expression"},
        {"{" MODEL "," WORDS ", \"post_processor\": {\"type\": \"BertProcessing\"}}",
         "the post-processor BertProcessing"},
        {"{" MODEL "," WORDS ", \"added_tokens\": [{\"id\": 5, \"content\": \"<m>\", \"lstrip\": "
         "true}]}",
         "an added token with lstrip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Tokenizer *t;
        assert_status_fails(tokenizer_load(&t, write_tokenizer(cases[i].text)), ERR_USER,
                            cases[i].message);
        assert_null(t);
    }
    Tokenizer *t;
    assert_status_fails(tokenizer_load(&t, "/nowhere"), ERR_USER, "/nowhere");
    write_tokenizer("{" MODEL "," WORDS "}");
    assert_status_ok(tokenizer_load(&t, dir));
    TokenIds ids = encode(t, "abba", false);
    assert_int_equal(ids.n, 3);
    assert_status_fails(tokenizer_encode(t, "c", 1, false, &ids), ERR_USER,
                        "no token for the byte 0x63");
    free(ids.ids);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_have_the_ids_that_tokenizers_gives_them),
        cmocka_unit_test(characters_come_when_they_are_whole),
        cmocka_unit_test(a_long_word_takes_no_longer_than_its_letters),
        cmocka_unit_test(what_is_not_supported_is_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
