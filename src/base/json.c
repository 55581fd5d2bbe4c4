#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { MAX_DEPTH = 64, MAX_NUMBER = 63 };

void json_start(Json *j, const char *text, int64_t len) {
    *j = (Json){.text = text, .len = len};
}

static bool fail(Json *j, const char *what) {
    if (j->error == NULL) j->error = what;
    return false;
}

char json_peek(Json *j) {
    if (j->error != NULL) return '\0';
    while (j->pos < j->len && memchr(" \t\r\n", j->text[j->pos], 4) != NULL) j->pos++;
    return j->pos < j->len ? j->text[j->pos] : '\0';
}

static bool take(Json *j, char c, const char *otherwise) {
    if (json_peek(j) != c) return fail(j, otherwise);
    j->pos++;
    return true;
}

bool json_object(Json *j) {
    return j->fresh = take(j, '{', "expected an object");
}
bool json_array(Json *j) {
    return j->fresh = take(j, '[', "expected an array");
}

/* Moves to the next element of the open object or array. */
static bool next(Json *j, char close, const char *otherwise) {
    bool first = j->fresh;
    j->fresh = false;
    if (json_peek(j) == close) {
        j->pos++;
        return false;
    }
    return first ? j->error == NULL : take(j, ',', otherwise);
}

bool json_object_next(Json *j, char **key) {
    *key = NULL;
    if (!next(j, '}', "expected ',' or '}'")) return false;
    *key = json_string(j);
    if (*key != NULL && take(j, ':', "expected ':' behind the key")) return true;
    free(*key);
    *key = NULL;
    return false;
}

bool json_array_next(Json *j) {
    return next(j, ']', "expected ',' or ']'");
}

static void append_utf8(StrBuf *b, uint32_t c) {
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    char out[4];
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    strbuf_append(b, out, n);
}

/* The four hex digits of \uXXXX. */
static uint32_t hex4(Json *j) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, j->pos++) {
        static const char digits[] = "0123456789abcdef";
        char c = j->pos < j->len ? j->text[j->pos] : '\0';
        const char *digit = strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
        if (c == '\0' || digit == NULL) return fail(j, "expected four hex digits behind \\u");
        value = value << 4 | (uint32_t)(digit - digits);
    }
    return value;
}

/* What follows a backslash. */
static bool escape(Json *j, StrBuf *b) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->pos < j->len ? j->text[j->pos] : '\0';
    const char *simple = c != '\0' ? strchr(from, c) : NULL;
    if (simple != NULL) {
        j->pos++;
        strbuf_append(b, &to[simple - from], 1);
        return true;
    }
    if (c != 'u') return fail(j, "unknown escape in a string");
    j->pos++;
    uint32_t unit = hex4(j);
    if (unit >= 0xd800 && unit < 0xdc00) {
        if (j->len - j->pos < 2 || memcmp(j->text + j->pos, "\\u", 2) != 0)
            return fail(j, "half of a surrogate pair in a string");
        j->pos += 2;
        uint32_t low = hex4(j);
        if (low < 0xdc00 || low >= 0xe000) return fail(j, "half of a surrogate pair in a string");
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    } else if (unit >= 0xdc00 && unit < 0xe000) {
        return fail(j, "half of a surrogate pair in a string");
    }
    if (unit == 0) return fail(j, "a NUL character in a string");
    if (j->error == NULL) append_utf8(b, unit);
    return j->error == NULL;
}

char *json_string(Json *j) {
    if (!take(j, '"', "expected a string")) return NULL;
    StrBuf b = {0};
    strbuf_append(&b, "", 0); /* so that "" has memory too */
    int64_t plain = j->pos;   /* where the run of characters that need no change began */
    while (j->error == NULL) {
        char c = j->pos < j->len ? j->text[j->pos] : '\0';
        if (c == '"' || c == '\\') {
            strbuf_append(&b, j->text + plain, (size_t)(j->pos++ - plain));
            if (c == '"') return mem_grow(b.text, (int64_t)b.len + 1, 1); /* no larger than it is */
            escape(j, &b);
            plain = j->pos;
        } else if (j->pos >= j->len) {
            fail(j, "the text ends inside a string");
        } else if ((unsigned char)c < 0x20) {
            fail(j, "a control character in a string");
        } else {
            int64_t n = (int64_t)utf8_length(j->text + j->pos, (size_t)(j->len - j->pos));
            if (n == 0) fail(j, "a string is not UTF-8");
            j->pos += n;
        }
    }
    strbuf_free(&b);
    return NULL;
}

static int64_t digits(const Json *j, int64_t at) {
    int64_t begin = at;
    while (at < j->len && j->text[at] >= '0' && j->text[at] <= '9') at++;
    return at - begin;
}

/* Checks a number against JSON's grammar and copies it to `out`; *is_integer: no fraction or
 * exponent.
 */
static bool number(Json *j, char out[MAX_NUMBER + 1], bool *is_integer) {
    int64_t begin = (json_peek(j), j->pos), at = begin;
    if (j->error != NULL) return false;
    if (at < j->len && j->text[at] == '-') at++;
    int64_t n = digits(j, at);
    bool ok = n == 1 || (n > 1 && j->text[at] != '0');
    at += n;
    *is_integer = true;
    if (at < j->len && j->text[at] == '.') {
        n = digits(j, at + 1);
        ok = ok && n > 0;
        at += 1 + n;
        *is_integer = false;
    }
    if (at < j->len && (j->text[at] == 'e' || j->text[at] == 'E')) {
        at++;
        if (at < j->len && (j->text[at] == '+' || j->text[at] == '-')) at++;
        n = digits(j, at);
        ok = ok && n > 0;
        at += n;
        *is_integer = false;
    }
    if (!ok) return fail(j, "expected a number");
    if (at - begin > MAX_NUMBER) return fail(j, "a number is too long");
    memcpy(out, j->text + begin, (size_t)(at - begin));
    out[at - begin] = '\0';
    j->pos = at;
    return true;
}

int64_t json_int(Json *j) {
    char text[MAX_NUMBER + 1];
    bool is_integer;
    int64_t begin = j->pos, value = 0;
    if (!number(j, text, &is_integer)) return 0;
    bool negative = text[0] == '-', fits = is_integer;
    for (const char *c = text + negative; is_integer && *c != '\0'; c++) {
        int64_t digit = negative ? '0' - *c : *c - '0';
        fits = fits && !__builtin_mul_overflow(value, 10, &value) &&
               !__builtin_add_overflow(value, digit, &value);
    }
    if (fits) return value;
    j->pos = begin;
    return fail(j, is_integer ? "an integer does not fit 64 bits" : "expected an integer");
}

double json_double(Json *j) {
    char text[MAX_NUMBER + 1];
    bool is_integer;
    return number(j, text, &is_integer) ? strtod(text, NULL) : 0;
}

static bool word(Json *j, const char *w) {
    int64_t n = (int64_t)strlen(w);
    if (j->len - j->pos < n || memcmp(j->text + j->pos, w, (size_t)n) != 0)
        return fail(j, "expected a value");
    j->pos += n;
    return true;
}

bool json_bool(Json *j) {
    char c = json_peek(j);
    if (c != 't' && c != 'f') return fail(j, "expected true or false");
    return word(j, c == 't' ? "true" : "false") && c == 't';
}

static void skip(Json *j, int depth) {
    char c = json_peek(j), *key;
    if (depth == 0) {
        fail(j, "nested too deeply");
    } else if (c == '{') {
        for (json_object(j); json_object_next(j, &key); free(key)) skip(j, depth - 1);
    } else if (c == '[') {
        for (json_array(j); json_array_next(j);) skip(j, depth - 1);
    } else if (c == '"') {
        free(json_string(j));
    } else if (c == 't' || c == 'f') {
        json_bool(j);
    } else if (c == 'n') {
        word(j, "null");
    } else {
        json_double(j);
    }
}

void json_skip(Json *j) {
    skip(j, MAX_DEPTH);
}

void json_end(Json *j) {
    json_peek(j);
    if (j->pos < j->len) fail(j, "expected the end of the text");
}

void json_members(Json *j, int n, const char *const *names, Json *values) {
    char *key;
    memset(values, 0, (size_t)n * sizeof *values);
    for (json_object(j); json_object_next(j, &key); free(key)) {
        bool null = json_peek(j) == 'n';
        for (int i = 0; i < n; i++)
            if (!null && strcmp(key, names[i]) == 0) values[i] = *j;
        json_skip(j);
    }
}

Status json_status(const Json *j) {
    if (j->error == NULL) return OK;
    return status_fail(ERR_USER, "%s at byte %lld", j->error, (long long)j->pos);
}
