/* config_value.c: one value between its text and its field. What config_value_print writes,
 * config_value_set (or the list reader in config_yaml.c) takes back unchanged. */
#include "config_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text -> field ------------------------------------------------------------------------- */

/* Decimal digits with an optional minus. No leading zeros: YAML 1.1 reads them as octal. */
static bool integer_parse(const char *text, size_t len, int64_t *out) {
    size_t digits = len > 0 && text[0] == '-' ? len - 1 : len;
    const char *p = text + (len - digits);
    if (digits == 0 || (p[0] == '0' && len > 1)) return false;
    int64_t v = 0;
    for (size_t i = 0; i < digits; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, p[i] - '0', &v))
            v = INT64_MAX; /* out of any bounds, but still an integer */
    }
    *out = p != text ? -v : v;
    return true;
}

bool config_number_parse(const char *text, size_t len, double *out) {
    char copy[64], *end;
    if (len == 0 || len >= sizeof copy) return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (strspn(copy, "0123456789+-.eE") != len) return false; /* no hex, inf, nan, blanks */
    double v = strtod(copy, &end);
    if (*end != '\0' || !isfinite(v)) return false;
    *out = v + 0.0; /* -0 becomes 0 */
    return true;
}

/* Decodes one character and returns its bytes; what is not UTF-8 is one byte, unprintable. */
static size_t utf8_decode(const char *text, size_t left, uint32_t *code) {
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    *code = n == 1 ? p[0] : p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (i >= left || (p[i] & 0xC0) != 0x80) {
            *code = 0;
            return 1;
        }
        *code = *code << 6 | (p[i] & 0x3Fu);
    }
    return n;
}

static bool is_printable(uint32_t c) {
    if (c < 0xA0) return c >= 0x20 && c < 0x7F;
    bool line_break = c == 0x2028 || c == 0x2029;
    bool not_text = c == 0xFEFF || c == 0xFFFE || c == 0xFFFF;
    return !line_break && !not_text;
}

bool config_text_is_printable(const char *text, size_t len) {
    uint32_t code;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_decode(text + i, len - i, &code);
        if (!is_printable(code)) return false;
    }
    return true;
}

void config_quote(StrBuf *out, const char *text, size_t len) {
    enum { LONGEST = 60 };
    strbuf_append(out, "'", 1);
    uint32_t code;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_decode(text + i, len - i, &code);
        if (i + n > LONGEST) {
            strbuf_printf(out, "...");
            break;
        }
        if (is_printable(code))
            strbuf_append(out, text + i, n);
        else
            strbuf_append(out, "?", 1);
    }
    strbuf_append(out, "'", 1);
}

static int name_index(const char *const *names, const char *text, size_t len) {
    for (int i = 0; names[i] != NULL; i++)
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0) return i;
    return -1;
}

static bool within(const ConfigKey *k, double v) {
    return v >= k->min && v <= k->max;
}

bool config_value_set(const ConfigKey *k, Config *c, const char *text, size_t len, bool quoted) {
    void *field = config_key_field(k, c);
    int64_t integer;
    double number;
    switch (k->type) {
    case KEY_INT:
        if (k->names != NULL && name_index(k->names, text, len) == 0) {
            *(int *)field = -1;
            return true;
        }
        if (quoted || !integer_parse(text, len, &integer) || !within(k, (double)integer))
            return false;
        *(int *)field = (int)integer;
        return true;
    case KEY_INT64:
        if (quoted || !integer_parse(text, len, &integer) || !within(k, (double)integer))
            return false;
        *(int64_t *)field = integer;
        return true;
    case KEY_DOUBLE:
        if (quoted || !config_number_parse(text, len, &number) || !within(k, number)) return false;
        *(double *)field = number;
        return true;
    case KEY_BOOL: {
        static const char *const words[] = {"false", "true", NULL};
        int i = quoted ? -1 : name_index(words, text, len);
        if (i < 0) return false;
        *(bool *)field = i == 1;
        return true;
    }
    case KEY_STRING: {
        if (!within(k, (double)len) || !config_text_is_printable(text, len)) return false;
        char **string = field;
        free(*string);
        *string = mem_printf("%.*s", (int)len, text);
        return true;
    }
    case KEY_ENUM: {
        int i = name_index(k->names, text, len);
        if (i < 0) return false;
        *(int *)field = i;
        return true;
    }
    case KEY_SOURCES:
        break;
    }
    return false;
}

void config_value_free(const ConfigKey *k, Config *c) {
    if (k->type == KEY_STRING) {
        char **string = config_key_field(k, c);
        free(*string);
        *string = NULL;
    } else if (k->type == KEY_SOURCES) {
        DataSource **list = config_key_field(k, c);
        int *count = config_key_count(k, c);
        for (int i = 0; i < *count; i++) free((*list)[i].path);
        free(*list);
        *list = NULL;
        *count = 0;
    }
}

/* ---- field -> text ------------------------------------------------------------------------- */

/* The shorter of the forms that read back to the same value. */
static void print_number(double v, StrBuf *out) {
    char text[40];
    snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) != v) snprintf(text, sizeof text, "%.17g", v);
    strbuf_printf(out, "%s", text);
}

static void print_name(const char *name, bool json, StrBuf *out) {
    strbuf_printf(out, json ? "\"%s\"" : "%s", name);
}

void config_value_print(const ConfigKey *k, const Config *c, bool json, StrBuf *out) {
    const void *field = config_key_field(k, c);
    switch (k->type) {
    case KEY_INT: {
        int v = *(const int *)field;
        if (k->names != NULL && v == -1)
            print_name(k->names[0], json, out);
        else
            strbuf_printf(out, "%d", v);
        break;
    }
    case KEY_INT64:
        strbuf_printf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case KEY_DOUBLE:
        print_number(*(const double *)field, out);
        break;
    case KEY_BOOL:
        strbuf_printf(out, "%s", *(const bool *)field ? "true" : "false");
        break;
    case KEY_STRING:
        strbuf_json_string(out, *(char *const *)field);
        break;
    case KEY_ENUM:
        print_name(k->names[*(const int *)field], json, out);
        break;
    case KEY_SOURCES: {
        const DataSource *sources = *(DataSource *const *)field;
        strbuf_printf(out, "[");
        for (int i = 0; i < *config_key_count(k, c); i++) {
            if (i > 0) strbuf_printf(out, ", ");
            if (sources[i].weight > 0) strbuf_printf(out, "{\"path\": ");
            strbuf_json_string(out, sources[i].path);
            if (sources[i].weight > 0) {
                strbuf_printf(out, ", \"weight\": ");
                print_number(sources[i].weight, out);
                strbuf_printf(out, "}");
            }
        }
        strbuf_printf(out, "]");
    }
    }
}
