/* The safetensors container: what is written can be read, what Hugging Face writes can be read, and
 * headers that lie are refused with a sentence that says how. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ckpt/safetensors.h"
#include "base/rng.h"

static Status parse(SafeFile *f, const char *json, int64_t data_bytes) {
    int64_t len = (int64_t)strlen(json);
    return safetensors_parse(f, "test.safetensors", json, len, 8 + len + data_bytes);
}

static uint64_t draw(uint64_t *counter, uint64_t n) {
    return rng_u64(1, rng_stream(RNG_TEST, 0), (*counter)++) % n;
}

static void a_compact_header_is_read(void **state) {
    (void)state;
    SafeFile f;
    assert_status_ok(
        parse(&f, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}   ", 24));
    assert_int_equal(f.n_tensors, 1);
    const SafeTensor *a = safetensors_find(&f, "a");
    assert_non_null(a);
    assert_true(a->dtype == DT_F32 && a->ndim == 2 && a->shape[0] == 2 && a->shape[1] == 3);
    assert_true(a->begin == 0 && a->end == 24 && safetensors_count(a) == 6);
    assert_null(safetensors_find(&f, "b"));
    assert_null(safetensors_entry(&f, "a"));
    safetensors_free(&f);
}

/* As written by the Python package safetensors 0.8.0 (safetensors.numpy.save_file). */
static const char python_header[] =
    "{\"__metadata__\":{\"note\":\"\303\251 \360\237\230\200 \\\"q\\\"\\n\",\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"I64\",\"shape\":[3],\"data_offsets\":[0,24]},"
    "\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[24,32]},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[32,56]},"
    "\"empty\":{\"dtype\":\"U8\",\"shape\":[0,4],\"data_offsets\":[56,56]}}      ";

static void what_the_python_package_writes_is_read(void **state) {
    (void)state;
    SafeFile f;
    assert_status_ok(parse(&f, python_header, 56));
    assert_int_equal(f.n_tensors, 4);
    assert_int_equal(safetensors_find(&f, "b")->dtype, DT_I64);
    assert_int_equal(safetensors_count(safetensors_find(&f, "s")), 1);
    assert_int_equal(safetensors_count(safetensors_find(&f, "empty")), 0);
    assert_int_equal(safetensors_find(&f, "a")->end - safetensors_find(&f, "a")->begin, 24);
    assert_string_equal(safetensors_entry(&f, "format"), "pt");
    assert_string_equal(safetensors_entry(&f, "note"), "\xc3\xa9 \xf0\x9f\x98\x80 \"q\"\n");
    safetensors_free(&f);
}

static void written_headers_are_read_back_whatever_they_hold(void **state) {
    (void)state;
    uint64_t r = 0;
    for (int round = 0; round < 200; round++) {
        SafeTensor tensors[12] = {0};
        SafeEntry entries[6];
        int n = (int)draw(&r, 13), n_entries = (int)draw(&r, 7);
        for (int i = 0; i < n; i++) {
            SafeTensor *t = &tensors[i];
            t->name = mem_printf("\xe2\x82\xac.\"%d\"\\%d", i * 7919 % 13, i);
            t->dtype = (Dtype)draw(&r, 6);
            t->ndim = (int)draw(&r, SAFE_MAX_DIMS + 1);
            for (int d = 0; d < t->ndim; d++) t->shape[d] = (int64_t)draw(&r, 5);
        }
        for (int i = 0; i < n_entries; i++)
            entries[i] = (SafeEntry){mem_printf("key %d", i), mem_printf("\n\t\x01%d\"\x7f", i)};
        StrBuf out = {0};
        strbuf_printf(&out, "before");
        safetensors_layout(tensors, n);
        safetensors_header(&out, tensors, n, entries, n_entries);
        int64_t len = (int64_t)out.len - 6, data = n > 0 ? tensors[n - 1].end : 0;
        assert_int_equal(len % 64, 0);
        assert_int_equal((unsigned char)out.text[6] + 256 * (unsigned char)out.text[7], len - 8);
        SafeFile f;
        assert_status_ok(safetensors_parse(&f, "test", out.text + 14, len - 8, len + data));
        assert_int_equal(f.data_start, len);
        assert_int_equal(f.n_tensors, n);
        assert_int_equal(f.n_entries, n_entries);
        for (int i = 0; i < n; i++) {
            const SafeTensor *t = safetensors_find(&f, tensors[i].name);
            assert_non_null(t);
            assert_true(t->dtype == tensors[i].dtype && t->ndim == tensors[i].ndim);
            assert_true(t->begin == tensors[i].begin && t->end == tensors[i].end);
            assert_memory_equal(t->shape, tensors[i].shape, sizeof t->shape);
            free(tensors[i].name);
        }
        for (int i = 0; i < n_entries; i++) {
            assert_string_equal(safetensors_entry(&f, entries[i].key), entries[i].value);
            free(entries[i].key);
            free(entries[i].value);
        }
        safetensors_free(&f);
        strbuf_free(&out);
    }
}

/* Buffers that nobody reads may be of any type: only the size is checked where it is known. */
static void every_type_of_the_format_is_accepted(void **state) {
    (void)state;
    static const struct {
        const char *type;
        Dtype dtype;
        int elements, bytes;
    } cases[] = {{"BOOL", DT_OTHER, 3, 3},
                 {"F4", DT_OTHER, 6, 3},
                 {"F6_E2M3", DT_OTHER, 4, 3},
                 {"F6_E3M2", DT_OTHER, 8, 6},
                 {"U8", DT_U8, 3, 3},
                 {"I8", DT_OTHER, 3, 3},
                 {"F8_E5M2", DT_OTHER, 3, 3},
                 {"F8_E4M3", DT_OTHER, 3, 3},
                 {"F8_E8M0", DT_OTHER, 3, 3},
                 {"F8_E4M3FNUZ", DT_OTHER, 3, 3},
                 {"F8_E5M2FNUZ", DT_OTHER, 3, 3},
                 {"I16", DT_OTHER, 3, 6},
                 {"U16", DT_OTHER, 3, 6},
                 {"F16", DT_F16, 3, 6},
                 {"BF16", DT_BF16, 3, 6},
                 {"I32", DT_I32, 3, 12},
                 {"U32", DT_OTHER, 3, 12},
                 {"F32", DT_F32, 3, 12},
                 {"C64", DT_OTHER, 3, 24},
                 {"F64", DT_F64, 3, 24},
                 {"I64", DT_I64, 3, 24},
                 {"U64", DT_OTHER, 3, 24},
                 {"OF_THE_FUTURE", DT_OTHER, 3, 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SafeFile f;
        char *json = mem_printf("{\"a\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%d]}}",
                                cases[i].type, cases[i].elements, cases[i].bytes);
        assert_status_ok(parse(&f, json, cases[i].bytes));
        assert_string_equal(f.tensors[0].type, cases[i].type);
        assert_int_equal(f.tensors[0].dtype, cases[i].dtype);
        if (cases[i].dtype != DT_OTHER)
            assert_string_equal(safetensors_dtype_name(cases[i].dtype), cases[i].type);
        safetensors_free(&f);
        free(json);
    }
}

#define T(shape, begin, end)                                                                       \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void headers_that_lie_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int64_t data;
        const char *says;
    } cases[] = {
        {"", 0, "does not start with {"},
        {" {}", 0, "does not start with {"},
        {"[]", 0, "does not start with {"},
        {"{", 0, "expected a string at byte 9"},
        {"{} x", 0, "end of the text at byte 11"},
        {"{\"a\":1}", 0, "expected an object"},
        {"{\"a\":{}}", 0, "'a': needs exactly dtype, shape and data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "needs exactly"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "needs exactly"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
         "needs exactly"},
        {"{\"a\":{\"dtype\":\"\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "has dtype ''"},
        {"{\"a\":{\"dtype\":\"F8_E4M3FNUZ_X_Y_Z\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "has dtype 'F8_E4M3FNUZ_X_Y_Z', expected one such as F32"},
        {"{\"a\":{\"dtype\":\"\xc2\x9b[2J\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "has dtype '?'"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,4]}}", 4, "need 6 bytes"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "fill whole bytes"},
        {"{\"a\":{\"dtype\":\"NEW\",\"shape\":[17],\"data_offsets\":[0,1]}}", 1, "need 2 bytes"},
        {"{\"a\":{\"dtype\":\"NEW\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,1]}}", 1,
         "64 bits can count"},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "expected a string"},
        {"{\"a\":" T("[-1]", "0", "4") "}", 4, "shape must be"},
        {"{\"a\":" T("[1.0]", "0", "4") "}", 4, "expected an integer"},
        {"{\"a\":" T("[99999999999999999999]", "0", "4") "}", 4, "does not fit 64 bits"},
        {"{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "at most 8 numbers"},
        {"{\"a\":" T("[[1]]", "0", "4") "}", 4, "expected a number"},
        {"{\"a\":" T("[4294967296,4294967296]", "0", "0") "}", 0, "64 bits can count"},
        {"{\"a\":" T("[2305843009213693952,4]", "0", "0") "}", 0, "64 bits can count"},
        {"{\"a\":" T("[1]", "4", "0") "}", 4, "begin <= end"},
        {"{\"a\":" T("[1]", "-4", "0") "}", 4, "data_offsets must be"},
        {"{\"a\":" T("[1]", "0", "4,8") "}", 4, "data_offsets must be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4, "begin <= end"},
        {"{\"a\":" T("[2]", "0", "4") "}", 4, "need 8 bytes, data_offsets [0, 4] hold 4"},
        {"{\"a\":" T("[1]", "0", "4") ",\"a\":" T("[1]", "4", "8") "}", 8,
         "'a': its name appears twice"},
        {"{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[1]", "4", "8") "}", 8,
         "'b' begins at data byte 4, inside another that ends at 8"},
        {"{\"a\":" T("[1]", "0", "4") ",\"b\":" T("[1]", "8", "12") "}", 12,
         "'b' begins at data byte 8, behind a hole from 4"},
        {"{\"a\":" T("[1]", "4", "8") "}", 8, "behind a hole from 0"},
        {"{\"a\":" T("[1]", "0", "4") "}", 3, "cut short"},
        {"{\"a\":" T("[1]", "0", "4") "}", 5, "followed by something else"},
        {"{\"a\\n\":" T("[1]", "0", "4") "}", 4, "control characters"},
        {"{\"a\xc2\x9b\":" T("[1]", "0", "4") "}", 4, "control characters"},
        {"{\"a\\u009b\":" T("[1]", "0", "4") "}", 4, "control characters"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "expected a string"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "'a' appears twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ appears twice"},
        {"{\"__metadata__\":[]}", 0, "expected an object"},
        {"{\"__metadata__\":{\"\\u001b[2J\":\"\"}}", 0, "control characters"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SafeFile f;
        Status st = parse(&f, cases[i].json, cases[i].data);
        if (st != ERR_USER || strstr(status_message(), cases[i].says) == NULL ||
            strstr(status_message(), "test.safetensors: ") != status_message())
            fail_msg("%s: status %d \"%s\", expected \"%s\"", cases[i].json, st, status_message(),
                     cases[i].says);
        assert_null(f.tensors);
        status_clear();
    }
}

/* Deep nesting, and 10^5 tensors: time and stack stay small (the test would hang or crash). */
static void large_and_deep_headers_are_no_trouble(void **state) {
    (void)state;
    enum { DEEP = 4 << 20, MANY = 100000 };
    SafeFile f;
    StrBuf b = {0};
    strbuf_printf(&b, "{\"a\":");
    for (int i = 0; i < DEEP; i++) strbuf_append(&b, "[", 1);
    assert_status_fails(parse(&f, b.text, 0), ERR_USER, "expected an object at byte 13");
    strbuf_free(&b);
    for (int i = 0; i < MANY; i++)
        strbuf_printf(&b, "%c\"t%d\":{\"data_offsets\":[%d,%d],\"dtype\":\"I32\",\"shape\":[1]}",
                      i == 0 ? '{' : ',', i * 31 % MANY, i * 4, i * 4 + 4);
    strbuf_printf(&b, "}");
    assert_status_ok(parse(&f, b.text, 4 * MANY));
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i * 31 % MANY);
        assert_int_equal(safetensors_find(&f, name)->begin, 4 * i);
    }
    safetensors_free(&f);
    strbuf_free(&b);
}

static void read_bytes(const void *bytes, size_t n, Status expected, const char *says) {
    FILE *file = tmpfile();
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fflush(file);
    SafeFile f;
    assert_status_fails(safetensors_read(&f, "PATH", fileno(file)), expected, says);
    fclose(file);
}

static void files_that_claim_impossible_headers_are_refused(void **state) {
    (void)state;
    read_bytes("", 0, ERR_USER, "0 bytes, at least 10 expected");
    read_bytes("1234567", 7, ERR_USER, "7 bytes, at least 10 expected");
    read_bytes("\0\0\0\0\0\0\0\0", 8, ERR_USER, "does not start with {");
    read_bytes("run: {steps: 1}\n", 16, ERR_USER, "does not start with {"); /* text: no length */
    read_bytes("\3\0\0\0\0\0\0\0{}", 10, ERR_USER, "its header claims 3 bytes, the file has 10");
    read_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, ERR_USER, "claims 18446744073709551615");
    SafeFile f;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_status_fails(safetensors_read(&f, "PIPE", fds[0]), ERR_USER, "not a regular file");
    close(fds[0]);
    close(fds[1]);

    /* A sparse file of 1 TiB whose header claims half of it is refused before anything is read. */
    FILE *file = tmpfile();
    assert_int_equal(fwrite("\0\0\0\0\x80\0\0\0{", 1, 9, file), 9);
    fflush(file);
    assert_int_equal(ftruncate(fileno(file), 1LL << 40), 0);
    assert_status_fails(safetensors_read(&f, "PATH", fileno(file)), ERR_USER, "the limit is");
    fclose(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_compact_header_is_read),
        cmocka_unit_test(what_the_python_package_writes_is_read),
        cmocka_unit_test(written_headers_are_read_back_whatever_they_hold),
        cmocka_unit_test(every_type_of_the_format_is_accepted),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(large_and_deep_headers_are_no_trouble),
        cmocka_unit_test(files_that_claim_impossible_headers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
