#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"

#undef status_fail /* the analyzer's */

static _Thread_local char message[16384];
static _Thread_local bool message_agreed;

int status_exit_code(Status s) {
    switch (s) {
#define X(name, exit_code, text)                                                                   \
    case name:                                                                                     \
        return exit_code;
        STATUS_LIST(X)
#undef X
    }
    return 1;
}

Status status_fail(Status code, const char *fmt, ...) {
    if (message[0] == '\0') {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(message, sizeof message, fmt, ap);
        va_end(ap);
        text_make_printable(message, true); /* it may quote files and their names */
        message_agreed = false;
    }
    return code;
}

static void set_message(StrBuf *b) {
    size_t n = b->len < sizeof message ? b->len : sizeof message - 1;
    memcpy(message, b->text, n);
    message[n] = '\0';
    text_make_printable(message, true);
    strbuf_free(b);
}

void status_prefix(const char *fmt, ...) {
    StrBuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    strbuf_printf(&b, ": %s", message);
    set_message(&b);
}

void status_suffix(const char *fmt, ...) {
    StrBuf b = {0};
    strbuf_printf(&b, "%s", message);
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    set_message(&b);
}

const char *status_message(void) {
    return message;
}
void status_clear(void) {
    message[0] = '\0';
    message_agreed = false;
}

Status status_ignore(Status st) {
    if (st != OK) status_clear();
    return OK;
}

void status_set_agreed(bool agreed) {
    message_agreed = agreed;
}
bool status_is_agreed(void) {
    return message_agreed;
}

void base_bug(const char *file, int line, const char *what) {
    fprintf(stderr, "cria: bug at %s:%d: %s does not hold\n", file, line, what);
    fflush(stderr);
    abort();
}

static _Noreturn void out_of_memory(int64_t n, size_t size) {
    fprintf(stderr, "cria: out of host memory asking for %lld x %zu bytes\n", (long long)n, size);
    exit(status_exit_code(ERR_ENV));
}

void *mem_new(int64_t n, size_t size) {
    REQUIRE(n >= 0);
    void *p = calloc(n > 0 ? (size_t)n : 1, size > 0 ? size : 1);
    if (p == NULL) out_of_memory(n, size);
    return p;
}

void *mem_grow(void *ptr, int64_t n, size_t size) {
    size_t bytes;
    REQUIRE(n >= 0);
    void *p =
        __builtin_mul_overflow((size_t)n, size, &bytes) ? NULL : realloc(ptr, bytes ? bytes : 1);
    if (p == NULL) out_of_memory(n, size);
    return p;
}

char *mem_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    char *p = mem_new((int64_t)n, 1);
    memcpy(p, s, n);
    return p;
}

char *mem_printable(const char *s) {
    char *p = mem_strdup(s);
    text_make_printable(p, false);
    return p;
}

char *mem_printf(const char *fmt, ...) {
    StrBuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    return b.text != NULL ? b.text : mem_strdup("");
}

static void strbuf_room(StrBuf *b, size_t more) {
    if (b->len + more + 1 <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + more + 1) cap *= 2;
    b->text = mem_grow(b->text, (int64_t)cap, 1);
    b->cap = cap;
}

void strbuf_vprintf(StrBuf *b, const char *fmt, va_list ap) {
    REQUIRE(fmt != NULL);
    va_list measure;
    va_copy(measure, ap);
    int n = vsnprintf(NULL, 0, fmt, measure);
    va_end(measure);
    REQUIRE(n >= 0);
    strbuf_room(b, (size_t)n);
    vsnprintf(b->text + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

void strbuf_printf(StrBuf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(b, fmt, ap);
    va_end(ap);
}

void strbuf_append(StrBuf *b, const char *text, size_t len) {
    strbuf_room(b, len);
    memcpy(b->text + b->len, text, len);
    b->len += len;
    b->text[b->len] = '\0';
}

void strbuf_json_string(StrBuf *b, const char *s) {
    size_t left = strlen(s);
    strbuf_append(b, "\"", 1);
    for (size_t n; left > 0; s += n, left -= n) {
        n = utf8_length(s, left);
        uint32_t code = n > 0 ? utf8_decode(s, n) : 0xfffd; /* the replacement character */
        if (n == 0) n = 1;
        if (code == '"' || code == '\\')
            strbuf_printf(b, "\\%c", *s);
        else if (code == '\n')
            strbuf_append(b, "\\n", 2);
        else if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xfffd)
            strbuf_printf(b, "\\u%04x", code);
        else
            strbuf_append(b, s, n);
    }
    strbuf_append(b, "\"", 1);
}

void strbuf_wrap(StrBuf *b, const char *text, int indent) {
    enum { WIDTH = 80 };
    size_t line = b->len; /* where the current line begins */
    while (line > 0 && b->text[line - 1] != '\n') line--;
    bool first = true; /* word of its line */
    for (size_t n; *text != '\0'; text += n + (text[n] == ' ')) {
        n = strcspn(text, " ");
        size_t column = b->len - line;
        bool full = first ? column > 0 && column >= (size_t)indent : column + 1 + n > WIDTH;
        if (full) {
            strbuf_append(b, "\n", 1);
            line = b->len;
            first = true;
        }
        int blanks = first ? indent - (int)(b->len - line) : 1;
        strbuf_printf(b, "%*s%.*s", blanks, "", (int)n, text);
        first = false;
    }
    strbuf_append(b, "\n", 1);
}

const char *strbuf_text(const StrBuf *b) {
    return b->text != NULL ? b->text : "";
}

void strbuf_free(StrBuf *b) {
    free(b->text);
    *b = (StrBuf){0};
}

double time_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
