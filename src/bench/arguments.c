#include "bench/arguments.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "attn/band.h"
#include "base/text.h"
#include "config/keys.h"

/* ---- one value ----------------------------------------------------------------------------- */

/* A whole number from 0 on, k for 1,024 and m for 1,048,576; false when it is not one, or is too
 * large. */
static bool read_count(const char *text, const char **end, int64_t *out) {
    char *stop;
    errno = 0;
    int64_t n = strtoll(text, &stop, 10), unit = 1;
    if (stop == text || errno != 0 || n < 0) return false;
    if (*stop == 'k') unit = 1 << 10;
    if (*stop == 'm') unit = 1 << 20;
    *end = stop + (unit > 1);
    return checked_mul(n, unit, out);
}

static bool read_pair(const char *text, char between, SettingValue *v) {
    const char *end;
    return read_count(text, &end, &v->a) && *end == between && read_count(end + 1, &end, &v->b) &&
           *end == '\0';
}

static bool read_tokens(const char *text, SettingValue *v) {
    const char *end;
    if (!read_pair(text, 'x', v)) {
        v->a = 1;
        if (!read_count(text, &end, &v->b) || *end != '\0') return false;
    }
    int64_t all;
    return v->a >= 1 && v->b >= 1 && checked_mul(v->a, v->b, &all) && all <= BAND_MAX_TOKENS;
}

static bool read_name(const Setting *s, const char *text, SettingValue *v) {
    for (v->a = 0; s->names != NULL && s->names[v->a] != NULL; v->a++)
        if (strcmp(s->names[v->a], text) == 0) return true;
    return false;
}

static int64_t least_count(const Setting *s) {
    return s->names == NULL; /* where a name stands for -1, 0 has a meaning, too */
}

static int64_t most_count(const Setting *s) {
    return s->most > 0 ? s->most : BAND_MAX_TOKENS;
}

static bool read_value(const Setting *s, const char *text, SettingValue *v) {
    const char *end;
    *v = (SettingValue){0};
    switch (s->kind) {
    case SETTING_COUNT:
        if (s->names != NULL && strcmp(text, s->names[0]) == 0) {
            v->a = -1;
            return true;
        }
        return read_count(text, &end, &v->a) && *end == '\0' && v->a >= least_count(s) &&
               v->a <= most_count(s);
    case SETTING_TOKENS:
        return read_tokens(text, v);
    case SETTING_HEADS:
        return read_pair(text, '/', v) && v->b >= 1 && v->a >= v->b && v->a % v->b == 0 &&
               v->a <= BENCH_HEADS_MAX;
    case SETTING_NAME:
        return read_name(s, text, v);
    }
    return false;
}

static void print_expected(const Setting *s, StrBuf *out) {
    switch (s->kind) {
    case SETTING_COUNT:
        strbuf_printf(out, "a number from %" PRId64 " to %" PRId64, least_count(s), most_count(s));
        if (most_count(s) >= 8192) strbuf_printf(out, ", such as 8192 or 8k");
        if (s->names != NULL) strbuf_printf(out, ", or %s", s->names[0]);
        return;
    case SETTING_TOKENS:
        strbuf_printf(out,
                      "tokens such as 8192, 8k, or 4x2k for four sequences of 2,048, in all at "
                      "most %d",
                      BAND_MAX_TOKENS);
        return;
    case SETTING_HEADS:
        strbuf_printf(out,
                      "query heads/kv heads, the second dividing the first, at most %d, such as "
                      "32/8",
                      BENCH_HEADS_MAX);
        return;
    case SETTING_NAME:
        strbuf_printf(out, "one of");
        for (int i = 0; s->names[i] != NULL; i++)
            strbuf_printf(out, "%s %s", i > 0 ? "," : "", s->names[i]);
    }
}

/* "a,b,c" */
static Status set_values(Setting *s, const char *list) {
    char *copy = mem_strdup(list), *item = copy, *next;
    Status st = OK;
    s->n = 0;
    for (; item != NULL && st == OK; item = next) {
        next = strchr(item, ',');
        if (next != NULL) *next++ = '\0';
        if (s->n == (s->single ? 1 : SETTING_VALUES)) {
            st = status_fail(ERR_USER, "%s=%s: found more than %d value%s", s->key, list, s->n,
                             s->n > 1 ? "s" : "");
        } else if (read_value(s, item, &s->values[s->n])) {
            s->n++;
        } else {
            StrBuf expected = {0};
            print_expected(s, &expected);
            st = status_fail(ERR_USER, "%s=%s: found '%s', expected %s", s->key, list, item,
                             strbuf_text(&expected));
            strbuf_free(&expected);
        }
    }
    free(copy);
    return st;
}

/* ---- the command line ---------------------------------------------------------------------- */

static Status unknown(const char *what, const char *given, bool config, const Setting *settings) {
    StrBuf keys = {0};
    const char *nearest = NULL;
    char *key = mem_printf("%.*s", (int)strcspn(given, "="), given);
    for (const Setting *s = settings; s->key != NULL; s++) {
        strbuf_printf(&keys, " %s=", s->key);
        if (strlen(key) > 2 && text_distance(key, s->key) <= 2) nearest = s->key;
    }
    free(key);
    Status st = status_fail(ERR_USER, "cria bench %s: what is '%s'? It takes%s device=%s", what,
                            given, strbuf_text(&keys), config ? " and keys of CONFIG" : "");
    if (nearest != NULL) status_suffix("; did you mean %s=?", nearest);
    strbuf_free(&keys);
    return st;
}

static Status take_device(BenchArguments *a, char *text) {
    const char *value = strchr(text, '=') + 1;
    for (int d = DEVICE_AUTO; d <= DEVICE_CUDA; d++)
        if (strcmp(value, config_enum_name(d, "device")) == 0) {
            a->device = (DeviceKind)d;
            a->overrides[a->n_overrides++] = text;
            return OK;
        }
    return status_fail(ERR_USER, "%s: expected auto, cpu or cuda", text);
}

static Status take_text(BenchArguments *a, const char *what, bool config, Setting *settings,
                        char *text) {
    size_t length = strcspn(text, "=");
    if (strncmp(text, "device=", length + 1) == 0) return take_device(a, text);
    for (Setting *s = settings; s->key != NULL; s++)
        if (strlen(s->key) == length && strncmp(s->key, text, length) == 0) {
            s->given = true;
            return set_values(s, text + length + 1);
        }
    char *key = mem_printf("%.*s", (int)length, text);
    bool known = config && (strchr(key, '.') != NULL || config_key_find(key) != NULL);
    free(key);
    if (!known) return unknown(what, text, config, settings);
    a->overrides[a->n_overrides++] = text;
    return OK;
}

Status bench_arguments_parse(BenchArguments *a, const char *what, bool config, Setting *settings,
                             int n, char **texts) {
    a->overrides = texts; /* those that are none are taken out */
    for (int i = 0; i < n; i++) CHECK(take_text(a, what, config, settings, texts[i]));
    return OK;
}

void bench_settings_fill(Setting *settings, bool gpu) {
    for (Setting *s = settings; s->key != NULL; s++) {
        const char *default_value = gpu ? s->gpu : s->cpu;
        if (!s->given && default_value != NULL) REQUIRE(set_values(s, default_value) == OK);
    }
}

void bench_settings_print(const Setting *settings, StrBuf *out) {
    for (const Setting *s = settings; s->key != NULL; s++) {
        strbuf_printf(out, "  %s  ", s->key);
        char *values = s->gpu == NULL ? mem_strdup("")
                       : strcmp(s->gpu, s->cpu) == 0
                           ? mem_printf(" [%s]", s->gpu)
                           : mem_printf(" [GPU %s; CPU %s]", s->gpu, s->cpu);
        char *help = mem_printf("%s%s", s->help, values);
        strbuf_wrap(out, help, 19);
        free(help);
        free(values);
    }
}
