#include "bench/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

typedef struct {
    char *key, *text; /* text: NULL for a number */
    double number;
} Member;

typedef struct {
    Member *members;
    int n, cap;
} Row;

struct Baseline {
    char *path;
    bool quiet;
    Row *rows;
    int n, cap, compared, worse;
};

static const double margin = 0.02;

/* ---- rows ---------------------------------------------------------------------------------- */

static void free_row(Row *r) {
    for (int i = 0; i < r->n; i++) {
        free(r->members[i].key);
        free(r->members[i].text);
    }
    free(r->members);
    *r = (Row){0};
}

static bool parse_row(Row *r, const char *text, int64_t len) {
    Json j;
    char *key;
    *r = (Row){0};
    json_start(&j, text, len);
    json_object(&j);
    while (json_object_next(&j, &key)) {
        GROW(r->members, r->n, r->cap);
        Member *m = &r->members[r->n++];
        *m = (Member){.key = key, .number = NAN};
        if (json_peek(&j) == '"')
            m->text = json_string(&j);
        else if (json_peek(&j) == 'n')
            json_skip(&j);
        else
            m->number = json_double(&j);
    }
    json_end(&j);
    if (j.error == NULL) return true;
    free_row(r);
    return false;
}

static const Member *find(const Row *r, const char *key) {
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->members[i].key, key) == 0) return &r->members[i];
    return NULL;
}

/* What says which case a row is of: its texts, but for remarks, and its sizes. */
static bool is_case(const Member *m) {
    static const char *const sizes[] = {"D", "cp", "T", "N", "M", "area"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(m->key, sizes[i]) == 0) return true;
    return m->text != NULL && strcmp(m->key, "note") != 0;
}

static bool same_case(const Row *a, const Row *b) {
    for (int i = 0; i < a->n; i++) {
        const Member *x = &a->members[i], *y = find(b, x->key);
        if (!is_case(x)) continue;
        if (y == NULL || (x->text == NULL) != (y->text == NULL)) return false;
        if (x->text != NULL ? strcmp(x->text, y->text) != 0 : x->number != y->number) return false;
    }
    return true;
}

/* "fwd_of_gemm", "bwd_of_one", "of_peak": where "of_" begins; NULL for what is no share. */
static const char *share_of(const char *key) {
    const char *of = strstr(key, "of_");
    return of != NULL && (of == key || of[-1] == '_') ? of : NULL;
}

/* Of the calls that the share is the median of, as a share itself: "fwd_spread" is in percent. */
static double spread_of(const Row *r, const char *key) {
    char *name = mem_printf("%.*sspread", (int)(share_of(key) - key), key);
    const Member *m = find(r, name);
    free(name);
    return m != NULL && isfinite(m->number) ? m->number / 100 : 0;
}

/* ---- public -------------------------------------------------------------------------------- */

static Status read_rows(Baseline *b, const char *text) {
    for (int line = 1; *text != '\0'; line++) {
        int64_t len = (int64_t)strcspn(text, "\n");
        GROW(b->rows, b->n, b->cap);
        if (len > 0 && !parse_row(&b->rows[b->n++], text, len)) {
            b->n--;
            return status_fail(ERR_USER,
                               "%s:%d: found no JSON object of numbers and texts, as cria bench "
                               "--json prints",
                               b->path, line);
        }
        text += len + (text[len] == '\n');
    }
    return OK;
}

Status baseline_open(Baseline **out, const char *path, bool quiet) {
    StrBuf text = {0};
    Baseline *b = *out = NEW(Baseline, 1);
    b->path = mem_printf("%s", path);
    b->quiet = quiet;
    CHECK(file_read_all(&text, path, "the recorded table", 16 << 20));
    Status st = read_rows(b, strbuf_text(&text));
    strbuf_free(&text);
    if (st == OK && b->n == 0) st = status_fail(ERR_USER, "%s: there are no rows", path);
    return st;
}

void baseline_free(Baseline *b) {
    if (b == NULL) return;
    for (int i = 0; i < b->n; i++) free_row(&b->rows[i]);
    free(b->rows);
    free(b->path);
    free(b);
}

static void compare_share(Baseline *b, const Row *row, const Member *share) {
    double lowest = INFINITY, spread = spread_of(row, share->key);
    for (int i = 0; i < b->n; i++) {
        const Member *then = find(&b->rows[i], share->key);
        if (then == NULL || !isfinite(then->number) || !same_case(row, &b->rows[i])) continue;
        lowest = fmin(lowest, then->number);
        spread = fmax(spread, spread_of(&b->rows[i], share->key));
    }
    if (!isfinite(lowest) || !isfinite(share->number)) return;
    double change = share->number / lowest - 1;
    bool worse = change < -fmax(margin, 2 * spread);
    b->compared++;
    b->worse += worse;
    if (b->quiet) return;
    log_info("  %s: %.1f %%, recorded %.1f %%: %+.1f %%%s", share->key, share->number, lowest,
             100 * change, worse ? ", worse" : "");
}

void baseline_compare(Baseline *b, const char *text) {
    Row row;
    if (!parse_row(&row, text, (int64_t)strlen(text)))
        base_bug(__FILE__, __LINE__, "a row is JSON");
    for (int i = 0; i < row.n; i++)
        if (share_of(row.members[i].key) != NULL) compare_share(b, &row, &row.members[i]);
    free_row(&row);
}

Status baseline_finish(const Baseline *b) {
    if (b->compared == 0)
        return status_fail(
            ERR_ENV, "%s: none of its rows is of a case, device and state measured here", b->path);
    if (!b->quiet)
        log_info("compared with %s: %d shares, %d worse", b->path, b->compared, b->worse);
    if (b->worse == 0) return OK;
    return status_fail(ERR_ENV, "%d of %d shares are worse than %s", b->worse, b->compared,
                       b->path);
}
