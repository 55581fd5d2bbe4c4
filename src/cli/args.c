#include "cli/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- options --------------------------------------------------------------------------------- */

static int count_options(const Command *c) {
    int n = 0;
    while (c->options != NULL && c->options[n].name != NULL) n++;
    REQUIRE(n <= 64);
    return n;
}

static bool read_integer(const ArgOption *o, const char *text, int64_t *out) {
    char *end;
    if (o->names != NULL && strcmp(text, o->names[0]) == 0) {
        *out = -1;
        return true;
    }
    errno = 0;
    *out = strtoll(text, &end, 10);
    return end != text && *end == '\0' && errno == 0 && *out >= o->min && *out <= o->max;
}

static bool read_name(const ArgOption *o, const char *text, int *out) {
    for (*out = (int)o->min; o->names[*out] != NULL; ++*out)
        if (strcmp(o->names[*out], text) == 0) return true;
    return false;
}

static bool read_number(const ArgOption *o, const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end != '\0') return false;
    return o->kind == ARG_SHARE ? *out > 0 && *out < 1
                                : *out >= (double)o->min && *out <= (double)o->max;
}

static bool read_value(const ArgOption *o, const char *text, void *field) {
    switch (o->kind) {
    case ARG_FLAG:
        return *(bool *)field = true;
    case ARG_TEXT:
        *(const char **)field = text;
        return text[0] != '\0';
    case ARG_INTEGER:
        return read_integer(o, text, field);
    case ARG_NUMBER:
    case ARG_SHARE:
        return read_number(o, text, field);
    case ARG_NAME:
        return read_name(o, text, field);
    }
    return false;
}

static void print_expected(const ArgOption *o, StrBuf *out) {
    const char *number = o->kind == ARG_NUMBER ? "a number" : "an integer";
    if (o->kind == ARG_INTEGER && o->max == INT64_MAX)
        strbuf_printf(out, "an integer from %lld on", (long long)o->min);
    else if (o->kind == ARG_INTEGER || o->kind == ARG_NUMBER)
        strbuf_printf(out, "%s from %lld to %lld", number, (long long)o->min, (long long)o->max);
    else if (o->kind == ARG_SHARE)
        strbuf_printf(out, "a share between 0 and 1, such as 0.0005");
    else if (o->kind == ARG_TEXT)
        strbuf_printf(out, "%s", o->value);
    for (int i = o->kind == ARG_NAME ? (int)o->min : 0; o->names != NULL && o->names[i] != NULL;
         i++)
        strbuf_printf(out,
                      out->len == 0             ? "%s"
                      : o->names[i + 1] != NULL ? ", %s"
                                                : " or %s",
                      o->names[i]);
}

/* `value` NULL: there is none. */
static Status refuse_value(const Args *a, const ArgOption *o, const char *value) {
    StrBuf expected = {0};
    print_expected(o, &expected);
    char *found =
        value != NULL ? mem_printf("found '%s'", value) : mem_strdup("its value is missing");
    Status st = status_fail(ERR_USER, "cria %s: --%s: %s, expected %s", a->command->name, o->name,
                            found, strbuf_text(&expected));
    if (value != NULL && value[0] == '\0' && o->when_empty != NULL)
        status_suffix("; %s", o->when_empty);
    free(found);
    strbuf_free(&expected);
    return st;
}

static Status refuse_option(const Args *a, const char *given) {
    const char *name = given + strspn(given, "-"), *nearest = NULL, *value = strchr(name, '=');
    char *word = mem_printf("%.*s", (int)strcspn(name, "="), name);
    int best = 3;
    if (a->command->overrides && value != NULL && strchr(word, '.') != NULL) {
        free(word);
        return status_fail(ERR_USER, "cria %s: unknown option %s; write the key without dashes: %s",
                           a->command->name, given, name);
    }
    for (int i = 0; i < count_options(a->command); i++) {
        int d = text_distance(word, a->command->options[i].name);
        if (d < best) best = d, nearest = a->command->options[i].name;
    }
    free(word);
    if (nearest != NULL)
        return status_fail(ERR_USER, "cria %s: unknown option %s; did you mean --%s?",
                           a->command->name, given, nearest);
    return status_fail(ERR_USER, "cria %s: unknown option %s; `cria help %s` lists them",
                       a->command->name, given, a->command->name);
}

/* Takes argv[*i], and what follows if the value does. */
static Status take_option(Args *a, int argc, char **argv, int *i) {
    const char *given = argv[*i] + 2;
    size_t n = strcspn(given, "=");
    int k = 0, n_options = count_options(a->command);
    const ArgOption *o = a->command->options;
    if (strncmp(argv[*i], "--", 2) != 0) return refuse_option(a, argv[*i]);
    for (; k < n_options && (strlen(o->name) != n || strncmp(o->name, given, n) != 0); k++) o++;
    if (k == n_options) return refuse_option(a, argv[*i]);
    const char *value = given[n] == '=' ? given + n + 1 : NULL;
    if (o->kind == ARG_FLAG && value != NULL)
        return status_fail(ERR_USER, "cria %s: --%s: found '%s', expected no value",
                           a->command->name, o->name, value);
    if (o->kind != ARG_FLAG && value == NULL && *i + 1 == argc) return refuse_value(a, o, NULL);
    if (o->kind != ARG_FLAG && value == NULL) value = argv[++*i];
    a->given |= (uint64_t)1 << k;
    if (read_value(o, value, (char *)a->options + o->offset)) return OK;
    return refuse_value(a, o, value);
}

bool args_given(const Args *a, size_t offset) {
    int k = 0;
    while (a->command->options[k].name != NULL && a->command->options[k].offset != offset) k++;
    REQUIRE(a->command->options[k].name != NULL);
    return a->given >> k & 1;
}

/* ---- the command line ------------------------------------------------------------------------ */

static Status take_argument(Args *a, int argc, char **argv, int *i) {
    const Command *c = a->command;
    char *given = argv[*i];
    if (given[0] == '-') return take_option(a, argc, argv, i);
    if (c->overrides && strchr(given, '=') != NULL) {
        a->overrides[a->n_overrides++] = given;
    } else if (a->n_paths < c->max_paths) {
        a->paths[a->n_paths++] = given;
    } else {
        return status_fail(
            ERR_USER, "cria %s: unexpected argument %s%s; usage: cria %s %s", c->name, given,
            c->overrides ? " (overrides have the form key=value)" : "", c->name, c->arguments);
    }
    return OK;
}

Status args_parse(Args *a, const Command *c, int argc, char **argv) {
    *a = (Args){.command = c,
                .options = NEW(char, (int64_t)c->options_size),
                .paths = NEW(char *, argc),
                .overrides = NEW(char *, argc)};
    for (int i = 0; i < argc; i++)
        a->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
    for (int i = 0; i < argc && a->status == OK && !a->help; i++)
        a->status = take_argument(a, argc, argv, &i);
    if (a->status == OK && !a->help && a->n_paths < c->min_paths) {
        const char *word = c->arguments;
        for (int i = 0; i < a->n_paths; i++) word += strcspn(word, " ") + 1;
        a->status = status_fail(ERR_USER, "cria %s: missing %.*s; usage: cria %s %s", c->name,
                                (int)strcspn(word, " "), word, c->name, c->arguments);
    }
    return a->status;
}

void args_free(Args *a) {
    free(a->options);
    free(a->paths);
    free(a->overrides);
    *a = (Args){0};
}

/* ---- help ------------------------------------------------------------------------------------ */

void args_help(const Command *c, StrBuf *out) {
    strbuf_printf(out, "usage: cria %s%s%s%s\n\n", c->name, c->arguments[0] != '\0' ? " " : "",
                  c->arguments, c->options != NULL ? " [OPTION ...]" : "");
    strbuf_wrap(out, c->details != NULL ? c->details : c->summary, 0);
    if (c->options != NULL) strbuf_printf(out, "\n");
    for (const ArgOption *o = c->options; o != NULL && o->name != NULL; o++) {
        strbuf_printf(out, "  --%s%s%s  ", o->name, o->value != NULL ? " " : "",
                      o->value != NULL ? o->value : "");
        strbuf_wrap(out, o->help, 24);
    }
    if (c->more_help != NULL) c->more_help(c->name, out);
}
