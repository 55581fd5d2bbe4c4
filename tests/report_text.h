/* report_text.h: for tests of reports: values of a JSON text by their paths, and whether XML is
 * well-formed. */
#ifndef CRIA_TESTS_REPORT_TEXT_H
#define CRIA_TESTS_REPORT_TEXT_H

#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "test.h"

/* The text of the value at `path` ("a.b.3.c") of a whole JSON text that must be valid. */
static inline char *json_at(const char *text, const char *path) {
    Json j;
    json_start(&j, text, (int64_t)strlen(text));
    for (const char *part = path; *part != '\0';) {
        size_t n = strcspn(part, ".");
        bool found = false;
        if (json_peek(&j) == '[') {
            json_array(&j);
            for (int i = atoi(part); (found = json_array_next(&j)) && i > 0; i--) json_skip(&j);
        } else {
            char *key;
            json_object(&j);
            while (!found && json_object_next(&j, &key)) {
                found = strncmp(key, part, n) == 0 && key[n] == '\0';
                if (!found) json_skip(&j);
                free(key);
            }
        }
        if (!found) fail_msg("%s: there is no '%s' in %s", path, part, text);
        part += n + (part[n] == '.');
    }
    json_peek(&j);
    int64_t begin = j.pos;
    json_skip(&j);
    if (j.error != NULL) fail_msg("%s: %s at byte %ld", path, j.error, (long)j.pos);
    return mem_printf("%.*s", (int)(j.pos - begin), text + begin);
}

static inline double number_at(const char *text, const char *path) {
    char *value = json_at(text, path), *end;
    double x = strtod(value, &end);
    if (end == value || *end != '\0') fail_msg("%s: '%s' is no number", path, value);
    free(value);
    return x;
}

static inline void assert_json(const char *text, const char *path, const char *expected) {
    char *value = json_at(text, path);
    if (strcmp(value, expected) != 0) fail_msg("%s: '%s', expected '%s'", path, value, expected);
    free(value);
}

static inline double sum_at(const char *text, const char *array, int n, const char *key) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s.%d.%s", array, i, key);
        sum += number_at(text, path);
    }
    return sum;
}

static inline void assert_valid_json(const char *text) {
    Json j;
    json_start(&j, text, (int64_t)strlen(text));
    json_skip(&j);
    json_end(&j);
    if (j.error != NULL) fail_msg("%s at byte %ld of %s", j.error, (long)j.pos, text);
}

/* Well-formed as far as this writer goes: tags nest, attributes are quoted, text has no bare & or
 * <. Returns the number of elements. */
static inline int assert_well_formed_xml(const char *s) {
    const char *open[32];
    size_t length[32];
    int depth = 0, elements = 0;
    for (; *s != '\0'; s++) {
        assert_true(*s != '&' && *s != '>');
        if (*s != '<') continue;
        bool closing = *++s == '/';
        const char *name = s += closing;
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz");
        assert_true(n > 0);
        s += n;
        if (closing) {
            assert_true(depth > 0 && length[depth - 1] == n &&
                        memcmp(open[depth - 1], name, n) == 0);
            depth--;
        } else {
            elements++;
            while (*s == ' ') {
                s += 1 + strcspn(s + 1, "=<> ");
                assert_true(s[0] == '=' && s[1] == '"');
                s += 2 + strcspn(s + 2, "\"<&");
                assert_true(*s == '"');
                s++;
            }
            if (*s == '/') {
                s++;
            } else {
                assert_true(depth < 32);
                open[depth] = name;
                length[depth++] = n;
            }
        }
        assert_true(*s == '>');
    }
    assert_int_equal(depth, 0);
    return elements;
}

#endif
