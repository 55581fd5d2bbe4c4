/* yaml.c: YAML, of a file or of one override, into the fields of a Config. */
#include "config/yaml_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define DEPTH_MAX 16 /* of lists and mappings; libyaml takes time quadratic in it */

int yaml_line(const YamlText *s) {
    return (int)s->event.start_mark.line + 1;
}

/* ---- events -------------------------------------------------------------------------------- */

bool yaml_is(const YamlText *s, yaml_event_type_t type) {
    return !s->broken && s->event.type == type;
}

/* libyaml gives a byte offset, not a line, for characters that it cannot read. */
static void report_syntax(YamlText *s) {
    const yaml_parser_t *p = &s->parser;
    size_t line = p->problem_mark.line + 1, column = p->problem_mark.column + 1;
    if (p->error == YAML_READER_ERROR) {
        line = column = 1;
        for (size_t i = 0; i < p->problem_offset && i < s->len; i++) {
            column++;
            if (s->text[i] == '\n') line++, column = 1;
        }
    }
    const char *what = p->problem != NULL ? p->problem : "unreadable", *hint = "";
    if (strstr(what, "cannot start any token") != NULL && p->problem_mark.index < s->len &&
        s->text[p->problem_mark.index] == '\t')
        hint = "; YAML indents by blanks, found a tab";
    else if (strstr(what, "mapping values are not allowed") != NULL)
        hint = "; expected this line to begin in the column of the key above, or that one to have "
               "no value";
    if (s->override != NULL)
        problem_in(s, 0, "not YAML: %s", what);
    else
        problem_in(s, (int)line, "column %zu: not YAML: %s%s%s%s", column, what,
                   p->context != NULL ? " " : "", p->context != NULL ? p->context : "", hint);
}

/* Anchors, aliases and tags make one text mean another; a config says what it means. */
static void refuse_features(YamlText *s) {
    const yaml_event_t *e = &s->event;
    bool anchor = false, tag = false;
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor != NULL;
        tag = e->data.scalar.tag != NULL;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor != NULL;
        tag = e->data.mapping_start.tag != NULL;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor != NULL;
        tag = e->data.sequence_start.tag != NULL;
    }
    if (anchor || e->type == YAML_ALIAS_EVENT)
        problem_in(s, yaml_line(s),
                   "found an anchor or alias (& or *), which a config may not "
                   "use; write the value out, or quote it if it is text");
    if (tag)
        problem_in(s, yaml_line(s),
                   "found a tag (!), which a config may not use; remove it, or "
                   "quote the value if it is text");
}

void yaml_advance(YamlText *s) {
    if (s->broken) return;
    if (s->event.type >= YAML_ALIAS_EVENT) s->end = s->event.end_mark.index;
    yaml_event_delete(&s->event);
    if (!yaml_parser_parse(&s->parser, &s->event)) {
        s->broken = true;
        report_syntax(s);
        return;
    }
    refuse_features(s);
    s->depth += yaml_is(s, YAML_MAPPING_START_EVENT) || yaml_is(s, YAML_SEQUENCE_START_EVENT);
    s->depth -= yaml_is(s, YAML_MAPPING_END_EVENT) || yaml_is(s, YAML_SEQUENCE_END_EVENT);
    if (s->depth > DEPTH_MAX) {
        problem_in(s, yaml_line(s), "found lists and mappings %d deep, expected at most %d",
                   s->depth, DEPTH_MAX);
        s->broken = true;
    }
}

void yaml_skip(YamlText *s) {
    int depth = 0;
    do {
        if (yaml_is(s, YAML_MAPPING_START_EVENT) || yaml_is(s, YAML_SEQUENCE_START_EVENT)) depth++;
        if (yaml_is(s, YAML_MAPPING_END_EVENT) || yaml_is(s, YAML_SEQUENCE_END_EVENT)) depth--;
        yaml_advance(s);
    } while (depth > 0 && !s->broken);
}

const char *yaml_text(const YamlText *s) {
    return (const char *)s->event.data.scalar.value;
}
size_t yaml_length(const YamlText *s) {
    return s->event.data.scalar.length;
}
const char *yaml_name(const YamlText *s) {
    const char *text = yaml_text(s);
    return strlen(text) == yaml_length(s) ? text : "(with a NUL byte)";
}
bool yaml_is_quoted(const YamlText *s) {
    return s->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
}

/* `key:` with nothing after it, or the end of an empty text */
static bool is_absent(const YamlText *s) {
    if (yaml_is(s, YAML_NO_EVENT)) return true; /* past the end */
    return yaml_is(s, YAML_SCALAR_EVENT) && !yaml_is_quoted(s) && yaml_length(s) == 0;
}
bool yaml_is_null(const YamlText *s) {
    if (is_absent(s)) return true;
    if (!yaml_is(s, YAML_SCALAR_EVENT) || yaml_is_quoted(s)) return false;
    return strcmp(yaml_text(s), "~") == 0 || strcmp(yaml_text(s), "null") == 0;
}
bool yaml_is_empty(const YamlText *s) {
    return yaml_is_null(s) || (yaml_is(s, YAML_SCALAR_EVENT) && yaml_length(s) == 0);
}

void yaml_refuse(YamlText *s, int line, const char *key, const char *expected) {
    StrBuf found = {0};
    if (yaml_is(s, YAML_MAPPING_START_EVENT)) {
        strbuf_printf(&found, "found a mapping");
    } else if (yaml_is(s, YAML_SEQUENCE_START_EVENT)) {
        strbuf_printf(&found, "found a list");
    } else if (yaml_is_null(s)) {
        strbuf_printf(&found, "its value is missing");
    } else if (yaml_is(s, YAML_SCALAR_EVENT)) {
        strbuf_printf(&found, "found ");
        config_quote(&found, yaml_text(s), yaml_length(s));
        if (yaml_is_quoted(s) && (s->override == NULL || yaml_length(s) > 0))
            strbuf_printf(&found, " (in quotes, so a string)");
    }
    if (found.len > 0) /* an alias has been refused already */
        problem_in(s, line, "%s: %s, expected %s", key, found.text, expected);
    strbuf_free(&found);
    yaml_skip(s);
}

/* ---- values -------------------------------------------------------------------------------- */

/* The value of a key, at the current event. */
static void read_value(YamlText *s, const ConfigKey *k, int line) {
    KeyOrigin *origin = &s->r->origin[k - config_keys];
    Config *c = s->r->config;
    bool mapping = yaml_is(s, YAML_MAPPING_START_EVENT);
    StrBuf expected = {0};
    config_key_expects(k, &expected);
    origin->line = s->override == NULL ? line : 0;
    origin->override = s->override;
    origin->valid = false;
    if (k->type == KEY_SOURCES && k->default_value != NULL && yaml_is_empty(s)) {
        config_value_free(k, c); /* none */
        origin->valid = true;
        yaml_skip(s);
    } else if (k->type == KEY_SOURCES && (!mapping || k->sets) && !yaml_is_null(s)) {
        origin->valid = yaml_read_sources(s, k, c);
    } else if (k->type == KEY_STAGES &&
               (yaml_is(s, YAML_SEQUENCE_START_EVENT) || yaml_is_empty(s))) {
        origin->valid = yaml_read_stages(s, c);
    } else if (yaml_is(s, YAML_SCALAR_EVENT) && k->count_offset == 0 && !yaml_is_null(s) &&
               config_value_set(k, c, yaml_text(s), yaml_length(s), yaml_is_quoted(s))) {
        origin->valid = true;
        yaml_advance(s);
    } else {
        yaml_refuse(s, line, k->name, expected.text);
    }
    strbuf_free(&expected);
}

/* The key of which the name may mean one set, as data.val.web; NULL: it does not. */
static const ConfigKey *key_of_set(const char *name) {
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        size_t n = strlen(k->name);
        if (k->sets && strncmp(name, k->name, n) == 0 && name[n] == '.' && name[n + 1] != '\0')
            return k;
    }
    return NULL;
}

static void report_unknown(YamlText *s, int line, const char *name) {
    StrBuf near = {0}, shown = {0};
    const char *elsewhere = config_key_elsewhere(name);
    const ConfigKey *sets = key_of_set(name);
    config_quote(&shown, name, strlen(name));
    if (elsewhere != NULL)
        problem_in(s, line, "unknown key %s: %s", shown.text, elsewhere);
    else if (sets != NULL)
        problem_in(s, line, "unknown key %s: %s is given as a whole, as '%s={%s: FILES}'",
                   shown.text, sets->name, sets->name, name + strlen(sets->name) + 1);
    else if (s->r->n_problems < CONFIG_LIST_MAX && config_key_nearest(name, &near))
        problem_in(s, line, "unknown key %s, did you mean %s?", shown.text, near.text);
    else
        problem_in(s, line, "unknown key %s; `cria config` lists them all", shown.text);
    strbuf_free(&near);
    strbuf_free(&shown);
}

/* ---- a file, an override ------------------------------------------------------------------- */

static void refuse_twice(YamlText *s, int line, const char *name, int first_line) {
    if (first_line == 0) return;
    problem_in(s, line, "%s: found twice, expected once; it is also on line %d", name, first_line);
}

/* Before the value of k is read. What an override holds has no line. */
static void refuse_second_value(YamlText *s, int line, const ConfigKey *k) {
    const KeyOrigin *first = &s->r->origin[k - config_keys];
    if (s->override == NULL)
        refuse_twice(s, line, k->name, first->line);
    else if (s->item != NULL && first->valid)
        problem_in(s, line, "%s: found twice, expected once", k->name);
}

/* Reads a mapping of keys and sections below `section` ("" at the top). Recursion is as deep as the
 * sections of the table, whatever the file holds. */
void yaml_read_section(YamlText *s, const char *section) {
    for (yaml_advance(s); !s->broken && !yaml_is(s, YAML_MAPPING_END_EVENT);) {
        int line = yaml_line(s);
        if (!yaml_is(s, YAML_SCALAR_EVENT)) {
            yaml_refuse(s, line, section[0] != '\0' ? section : "top level", "the name of a key");
            yaml_skip(s);
            continue;
        }
        char *name = mem_printf("%s%s%s", section, section[0] != '\0' ? "." : "", yaml_name(s));
        const ConfigKey *k = config_key_find(name);
        int below = config_section_find(name);
        yaml_advance(s);
        if (s->item != NULL && k != NULL && !k->in_stages) {
            problem_in(s, line,
                       "%s: found in a stage, expected one of the keys that may change "
                       "during a run; configs/KEYS.md lists them",
                       name);
            yaml_skip(s);
        } else if (s->item != NULL && yaml_read_begin(s, name, line)) {
            free(name);
            continue;
        } else if (k != NULL) {
            refuse_second_value(s, line, k);
            read_value(s, k, line);
        } else if (below < 0) {
            report_unknown(s, line, name);
            yaml_skip(s);
        } else if (yaml_is(s, YAML_MAPPING_START_EVENT)) {
            refuse_twice(s, line, name, s->r->section_line[below]);
            s->r->section_line[below] = line;
            yaml_read_section(s, name);
        } else if (yaml_is_null(s)) {
            yaml_skip(s); /* a section whose keys are all commented out */
        } else {
            yaml_refuse(s, line, name, "a mapping of its keys");
        }
        free(name);
    }
    yaml_advance(s);
}

static bool yaml_open(YamlText *s, ConfigReader *r, const char *override, const char *text,
                      size_t len) {
    *s = (YamlText){.r = r, .override = override, .text = text, .len = len};
    if (!yaml_parser_initialize(&s->parser)) {
        problem_in(s, 0, "out of memory");
        return false;
    }
    yaml_parser_set_input_string(&s->parser, (const unsigned char *)text, len);
    yaml_advance(s); /* stream start */
    yaml_advance(s); /* document start */
    yaml_advance(s); /* the value; nothing when the text is empty */
    return true;
}

static void yaml_close(YamlText *s) {
    yaml_event_delete(&s->event);
    yaml_parser_delete(&s->parser);
}

/* At the end of the first value: nothing may follow. */
static void expect_end(YamlText *s) {
    yaml_advance(s);
    if (yaml_is(s, YAML_DOCUMENT_START_EVENT))
        problem_in(s, yaml_line(s), "found a second document, expected one");
}

bool config_read_file(ConfigReader *r, const char *text, size_t len) {
    YamlText s;
    if (!yaml_open(&s, r, NULL, text, len)) return false;
    if (yaml_is_null(&s)) {
        problem_in(
            &s, 0,
            "it holds no keys, expected those of a configuration; `cria config` lists them all");
    } else if (yaml_is(&s, YAML_MAPPING_START_EVENT)) {
        yaml_read_section(&s, "");
        expect_end(&s);
    } else if (!s.broken) {
        yaml_refuse(&s, yaml_line(&s), "top level", "a mapping such as `model:`");
    }
    bool complete = !s.broken;
    yaml_close(&s);
    return complete;
}

/* YAML reads what follows '#' as a comment and "---" as the start of a document. In a shell's
 * argument both are meant as text: nothing but blanks may lie around the value. */
static void refuse_ignored_text(YamlText *s, size_t begin) {
    size_t at = 0, ignored = s->len;
    for (size_t i = 0; i < s->len; at++) {
        bool outside = at < begin || at >= s->end;
        if (outside && s->text[i] != ' ' && s->text[i] != '\t' && i < ignored) ignored = i;
        size_t n = utf8_length(s->text + i, s->len - i);
        i += n > 0 ? n : 1;
    }
    if (ignored == s->len || s->broken) return;
    StrBuf text = {0};
    config_quote(&text, s->text + ignored, s->len - ignored);
    problem_in(s, 0,
               "YAML would ignore %s; if it belongs to the value, put the value in double quotes "
               "within the shell's quotes, as in 'run.dir=\"exp #3\"'",
               text.text);
    strbuf_free(&text);
}

void config_read_override(ConfigReader *r, const char *override) {
    const char *equals = strchr(override, '=');
    YamlText s = {.r = r, .override = override};
    if (equals == NULL || equals == override) {
        problem_in(&s, 0, "expected section.key=value");
        return;
    }
    char *name = mem_printf("%.*s", (int)(equals - override), override);
    const ConfigKey *k = config_key_find(name);
    const char *text = equals + 1;
    if (text[0] == '\0' && k != NULL && k->type == KEY_STRING) text = "\"\""; /* not null */
    if (k == NULL && config_section_find(name) >= 0) {
        problem_in(&s, 0, "%s is a section, expected one of its keys", name);
    } else if (k == NULL) {
        report_unknown(&s, 0, name);
    } else if (strpbrk(text, "\r\n") != NULL) {
        problem_in(&s, 0, "found a line break, expected a value on one line");
    } else if (yaml_open(&s, r, override, text, strlen(text))) {
        size_t begin = s.event.start_mark.index;
        int problems = r->n_problems;
        if (is_absent(&s)) refuse_ignored_text(&s, 0);
        if (r->n_problems == problems) {
            read_value(&s, k, 0);
            if (r->n_problems == problems) refuse_ignored_text(&s, begin);
            if (r->n_problems == problems) expect_end(&s);
        } else {
            r->origin[k - config_keys] = (KeyOrigin){.override = override};
        }
        yaml_close(&s);
    }
    free(name);
}
