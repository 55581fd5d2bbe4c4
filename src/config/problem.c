/* problem.c: what is wrong with a configuration: every problem is noted with its place, so
 * that one run of the program shows all of them. */
#include "config/keys.h"

#include <string.h>

/* "FILE:LINE" or "override 'model.layers=3'" */
static void print_place(const ConfigReader *r, const char *override, int line, StrBuf *out) {
    if (override != NULL) {
        strbuf_printf(out, "override ");
        config_quote(out, override, strlen(override));
    } else {
        strbuf_printf(out, "%s", r->name);
        if (line > 0) strbuf_printf(out, ":%d", line);
    }
    if (r->stage != NULL) strbuf_printf(out, ": %s", r->stage);
}

/* "FILE:LINE: KEY" */
static void print_origin(const ConfigReader *r, const ConfigKey *k, StrBuf *out) {
    const KeyOrigin *o = &r->origin[k - config_keys];
    print_place(r, o->override, o->line, out);
    strbuf_printf(out, ": %s", k->name);
}

static void problem_v(ConfigReader *r, const char *place, const char *fmt, va_list ap) {
    if (r->n_problems++ >= CONFIG_LIST_MAX) return;
    strbuf_printf(&r->problems, r->n_problems > 1 ? "\n" : "");
    strbuf_printf(&r->problems, place[0] != '\0' ? "%s: " : "%s", place);
    strbuf_vprintf(&r->problems, fmt, ap);
}

void config_problem(ConfigReader *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    problem_v(r, "", fmt, ap);
    va_end(ap);
}

void config_problem_at(ConfigReader *r, const ConfigKey *k, const char *fmt, ...) {
    StrBuf place = {0};
    va_list ap;
    va_start(ap, fmt);
    print_origin(r, k, &place);
    problem_v(r, strbuf_text(&place), fmt, ap);
    va_end(ap);
    strbuf_free(&place);
}

void config_note_at(ConfigReader *r, const ConfigKey *k, const char *fmt, ...) {
    StrBuf *notes = &r->config->notes;
    va_list ap;
    va_start(ap, fmt);
    if (notes->len > 0) strbuf_printf(notes, "\n");
    print_origin(r, k, notes);
    strbuf_printf(notes, ": ");
    strbuf_vprintf(notes, fmt, ap);
    va_end(ap);
}

void config_problem_in(ConfigReader *r, const char *override, int line, const char *fmt, ...) {
    StrBuf place = {0};
    va_list ap;
    va_start(ap, fmt);
    print_place(r, override, line, &place);
    problem_v(r, strbuf_text(&place), fmt, ap);
    va_end(ap);
    strbuf_free(&place);
}

Status config_problems_status(ConfigReader *r) {
    Status st = OK;
    if (r->n_problems == 1)
        st = status_fail(ERR_USER, "%s", strbuf_text(&r->problems));
    else if (r->n_problems > 1 && r->n_problems <= CONFIG_LIST_MAX)
        st = status_fail(ERR_USER, "%d problems:\n%s", r->n_problems, strbuf_text(&r->problems));
    else if (r->n_problems > 1)
        st = status_fail(ERR_USER, "%d problems, of which the first %d:\n%s", r->n_problems,
                         CONFIG_LIST_MAX, strbuf_text(&r->problems));
    strbuf_free(&r->problems);
    return st;
}
