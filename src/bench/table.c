#include "bench/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static void print_json(const Table *t, const TableCell *cells, StrBuf *line) {
    strbuf_printf(line, "{%s", t->members);
    for (int i = 0; i < t->n; i++) {
        const TableColumn *c = &t->columns[i];
        strbuf_printf(line, ",\"%s\":", c->key);
        if (c->kind == TABLE_TEXT)
            strbuf_json_string(line, cells[i].text);
        else if (!isfinite(cells[i].number))
            strbuf_printf(line, "null");
        else if (c->kind == TABLE_COUNT)
            strbuf_printf(line, "%.0f", cells[i].number);
        else
            strbuf_printf(line, "%.6g", cells[i].number);
    }
    strbuf_printf(line, "}");
}

/* Behind the point, for four digits in all. */
static int decimals(double x) {
    int n = 4;
    x = fabs(x);
    for (; x >= 1 && n > 0; n--) x /= 10;
    return n;
}

static void print_text(const Table *t, const TableCell *cells, StrBuf *line) {
    for (int i = 0; i < t->n; i++) {
        const TableColumn *c = &t->columns[i];
        double x = cells[i].number;
        if (c->kind == TABLE_TEXT)
            strbuf_printf(line, "%-*s  ", c->width, cells[i].text);
        else if (!isfinite(x))
            strbuf_printf(line, "%*s  ", c->width, "-");
        else
            strbuf_printf(line, "%*.*f  ", c->width, c->kind == TABLE_COUNT ? 0 : decimals(x), x);
    }
}

static void print_line(StrBuf *line) {
    while (line->len > 0 && line->text[line->len - 1] == ' ') line->text[--line->len] = '\0';
    log_info("%s", strbuf_text(line));
    strbuf_free(line);
}

void table_begin(const Table *t) {
    StrBuf line = {0};
    if (t->json) return;
    for (int i = 0; i < t->n; i++) {
        const TableColumn *c = &t->columns[i];
        strbuf_printf(&line, c->kind == TABLE_TEXT ? "%-*s  " : "%*s  ", c->width, c->title);
    }
    print_line(&line);
}

void table_row(const Table *t, const TableCell *cells) {
    StrBuf json = {0}, line = {0};
    print_json(t, cells, &json);
    if (t->json)
        strbuf_printf(&line, "%s", strbuf_text(&json));
    else
        print_text(t, cells, &line);
    print_line(&line);
    if (t->baseline != NULL) baseline_compare(t->baseline, strbuf_text(&json));
    strbuf_free(&json);
}
