/* value.c: one value between its text and its field. What config_value_print writes,
 * config_value_set (or the list reader in config_yaml.c) takes back unchanged. */
#include "config/keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

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

void config_quote(StrBuf *out, const char *text, size_t len) {
    enum { LONGEST = 60 };
    strbuf_append(out, "'", 1);
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_length(text + i, len - i);
        bool valid = n > 0 && utf8_is_printable(utf8_decode(text + i, n));
        if (n == 0) n = 1;
        if (i + n > LONGEST) {
            strbuf_printf(out, "...");
            break;
        }
        strbuf_append(out, valid ? text + i : "?", valid ? n : 1);
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
        if (!within(k, (double)len) || !text_is_printable(text, len)) return false;
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
    case KEY_STAGES:
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
        for (int i = 0; i < *count; i++) {
            free((*list)[i].path);
            free((*list)[i].set);
        }
        free(*list);
        *list = NULL;
        *count = 0;
    } else if (k->type == KEY_STAGES) {
        for (int i = 0; i < c->n_stages; i++) {
            config_free(c->stages[i].values);
            free(c->stages[i].values);
            free(c->stages[i].keys);
        }
        free(c->stages);
        c->stages = NULL;
        c->n_stages = 0;
    }
}

static char *copy_text(const char *text) {
    return text != NULL ? mem_strdup(text) : NULL;
}

void config_value_copy(const ConfigKey *k, Config *to, const Config *from) {
    static const size_t sizes[] = {[KEY_INT] = sizeof(int),
                                   [KEY_INT64] = sizeof(int64_t),
                                   [KEY_DOUBLE] = sizeof(double),
                                   [KEY_BOOL] = sizeof(bool),
                                   [KEY_ENUM] = sizeof(int)};
    REQUIRE(k->type != KEY_STAGES);
    config_value_free(k, to);
    void *field = config_key_field(k, to), *source = config_key_field(k, from);
    if (k->type == KEY_STRING) {
        *(char **)field = copy_text(*(char **)source);
    } else if (k->type == KEY_SOURCES) {
        int n = *config_key_count(k, to) = *config_key_count(k, from);
        DataSource *list = n > 0 ? NEW(DataSource, n) : NULL;
        for (int i = 0; i < n; i++) {
            list[i] = (*(DataSource **)source)[i];
            list[i].path = copy_text(list[i].path);
            list[i].set = copy_text(list[i].set);
        }
        *(DataSource **)field = list;
    } else {
        memcpy(field, source, sizes[k->type]);
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

int config_set_end(const DataSource *sources, int n, int first) {
    const char *set = sources[first].set;
    int end = first + 1;
    while (end < n && (set == NULL || strcmp(sources[end].set, set) == 0)) end++;
    return end;
}

static void print_files(const DataSource *sources, int n, StrBuf *out) {
    strbuf_printf(out, "[");
    for (int i = 0; i < n; i++) {
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

/* A list, or {"NAME": a list, ...}. */
static void print_sources(const DataSource *sources, int n, StrBuf *out) {
    bool named = n > 0 && sources[0].set != NULL;
    if (!named) {
        print_files(sources, n, out);
        return;
    }
    for (int i = 0, end; i < n; i = end) {
        end = config_set_end(sources, n, i);
        strbuf_printf(out, i > 0 ? ", " : "{");
        strbuf_json_string(out, sources[i].set);
        strbuf_printf(out, ": ");
        print_files(&sources[i], end - i, out);
    }
    strbuf_printf(out, "}");
}

/* JSON, which is YAML, too. */
static void print_stages(const Config *c, StrBuf *out) {
    strbuf_printf(out, "[");
    for (int i = 0; i < c->n_stages; i++) {
        const StageItem *item = &c->stages[i];
        bool steps = item->from > 0;
        strbuf_printf(out, "%s{\"%s\": %lld", i > 0 ? ", " : "", steps ? "from" : "from_tokens",
                      (long long)(steps ? item->from : item->from_tokens));
        for (int j = 0; j < item->n_keys; j++) {
            const ConfigKey *k = &config_keys[item->keys[j]];
            strbuf_printf(out, ", \"%s\": ", k->name);
            config_value_print(k, item->values, true, out);
        }
        strbuf_printf(out, "}");
    }
    strbuf_printf(out, "]");
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
    case KEY_SOURCES:
        print_sources(*(DataSource *const *)field, *config_key_count(k, c), out);
        break;
    case KEY_STAGES:
        print_stages(c, out);
    }
}

bool config_value_is_default(const ConfigKey *k, const Config *c) {
    if (k->type == KEY_STRING)
        return strcmp(*(char *const *)config_key_field(k, c), k->default_value) == 0;
    StrBuf value = {0};
    config_value_print(k, c, false, &value);
    bool same = strcmp(strbuf_text(&value), k->default_value) == 0;
    strbuf_free(&value);
    return same;
}
