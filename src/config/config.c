/* config.c: a Config from the defaults, a file and overrides. */
#include "config/keys.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"

#define FILE_MAX (1 << 20) /* bytes; a config is a page of text */

static void set_defaults(ConfigReader *r) {
    for (int i = 0; i < config_n_keys; i++) {
        const ConfigKey *k = &config_keys[i];
        bool valid = k->default_value != NULL &&
                     (k->count_offset > 0 || config_value_set(k, r->config, k->default_value,
                                                              strlen(k->default_value), false));
        REQUIRE(valid || k->default_value == NULL);
        r->origin[i].valid = valid;
    }
}

static void report_missing(ConfigReader *r) {
    for (int i = 0; i < config_n_keys; i++) {
        const KeyOrigin *o = &r->origin[i];
        if (o->valid || o->line > 0 || o->override != NULL) continue;
        StrBuf expected = {0};
        config_key_expects(&config_keys[i], &expected);
        config_problem(r, "%s: %s: missing, expected %s", r->name, config_keys[i].name,
                       expected.text);
        strbuf_free(&expected);
    }
}

/* Checks what was read, and makes the stages of it. */
static void complete(ConfigReader *r) {
    Config given = {0};
    config_copy(&given, r->config); /* checks resolve what is 0 = derived, in each stage anew */
    config_check_keys(r);
    if (r->n_problems == 0) config_build_stages(r, &given);
    config_free(&given);
}

Status config_parse(Config *out, const char *name, const char *text, size_t len, int n_overrides,
                    char *const *overrides) {
    ConfigReader r = {.config = out, .name = name};
    *out = (Config){0};
    set_defaults(&r);
    bool parsed = len <= FILE_MAX && config_read_file(&r, text, len);
    if (len > FILE_MAX)
        config_problem(&r, "%s: found more than %d bytes, expected a config", name, FILE_MAX);
    for (int i = 0; i < n_overrides; i++) config_read_override(&r, overrides[i]);
    if (parsed) { /* else what is missing is what could not be read */
        report_missing(&r);
        complete(&r);
    }
    return config_problems_status(&r);
}

Status config_parse_printed(Config *out, const char *text) {
    ConfigReader r = {.config = out, .name = "cria.config"};
    *out = (Config){0};
    set_defaults(&r);
    bool valid = config_read_file(&r, text, strlen(text));
    for (int i = 0; i < config_n_keys; i++) valid &= r.origin[i].valid;
    r.n_problems = 0; /* of keys that this version does not know */
    strbuf_free(&r.problems);
    if (valid) complete(&r);
    status_ignore(config_problems_status(&r));
    return valid ? OK
                 : status_fail(ERR_USER, "cria.config is not a configuration that cria prints");
}

Status config_load(Config *out, const char *path, int n_overrides, char *const *overrides) {
    StrBuf text = {0};
    *out = (Config){0};
    Status st = file_read_all(&text, path, "this config", FILE_MAX);
    if (st == OK)
        st = config_parse(out, path, strbuf_text(&text), text.len, n_overrides, overrides);
    strbuf_free(&text);
    return st;
}

void config_copy(Config *to, const Config *from) {
    for (int i = 0; i < config_n_keys; i++)
        if (config_keys[i].type != KEY_STAGES) config_value_copy(&config_keys[i], to, from);
}

void config_warn_notes(const Config *c) {
    for (const char *line = strbuf_text(&c->notes); *line != '\0';) {
        size_t n = strcspn(line, "\n");
        log_warn_once("%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
}

void config_free(Config *c) {
    config_free_stages(c);
    for (int i = 0; i < config_n_keys; i++) config_value_free(&config_keys[i], c);
    strbuf_free(&c->notes);
    *c = (Config){0};
}
