/* mask_slices.c: masks that are lists of slices: read from text, and checked for pairs that two of
 * them cover. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "attn/mask.h"
#include "base/file.h"

enum { LIST_MAX = 64 << 20 }; /* bytes of a slice list: more than a million slices */

typedef struct {
    Band band;
    int64_t index;
} IndexedBand;

static int compare_indexed(const void *x, const void *y) {
    const IndexedBand *a = x, *b = y;
    if (a->band.q_begin != b->band.q_begin) return a->band.q_begin < b->band.q_begin ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

bool mask_check(const Band *bands, int64_t n, int64_t *first, int64_t *second) {
    IndexedBand *sorted = NEW(IndexedBand, n);
    int64_t *active = NEW(int64_t, n); /* positions in sorted whose rows reach the sweep */
    for (int64_t i = 0; i < n; i++) sorted[i] = (IndexedBand){band_shrink(bands[i]), i};
    qsort(sorted, (size_t)n, sizeof *sorted, compare_indexed);
    *first = *second = n;
    for (int64_t i = 0, n_active = 0; i < n; i++) {
        int64_t kept = 0;
        for (int64_t j = 0; j < n_active; j++) {
            const IndexedBand *other = &sorted[active[j]];
            if (other->band.q_end <= sorted[i].band.q_begin) continue;
            active[kept++] = active[j];
            if (band_is_empty(band_intersect(other->band, sorted[i].band))) continue;
            int64_t low = i64_min(other->index, sorted[i].index);
            int64_t high = i64_max(other->index, sorted[i].index);
            if (high > *second || (high == *second && low >= *first)) continue;
            *first = low;
            *second = high;
        }
        active[kept++] = i;
        n_active = kept;
    }
    free(sorted);
    free(active);
    return *second == n;
}

static bool parse_type(const char *word, SliceType *type) {
    static const char *const brief[SLICE_TYPES] = {"F", "C", "INV", "BI"};
    for (int t = 0; t < SLICE_TYPES; t++) {
        if (strcmp(word, slice_type_names[t]) != 0 && strcmp(word, brief[t]) != 0) continue;
        *type = (SliceType)t;
        return true;
    }
    return false;
}

/* One line without its comment: false when blank, else the slice. */
static Status parse_line(char *line, const char *name, int line_no, bool *found, Band *band,
                         int64_t *end) {
    static const char *const what[] = {"q_begin", "q_end", "k_begin", "k_end"};
    int64_t v[4];
    char *save = NULL;
    char *word = strtok_r(line, " \t\r", &save);
    *found = word != NULL;
    if (!*found) return OK;
    for (int i = 0; i < 4; i++, word = strtok_r(NULL, " \t\r", &save)) {
        char *stop = word;
        errno = 0;
        if (word) v[i] = strtoll(word, &stop, 10);
        if (!word || stop == word || *stop || errno || v[i] < 0 || v[i] > BAND_MAX_TOKENS)
            return status_fail(ERR_USER, "%s:%d: %s must be a whole number from 0 to %d, not '%s'",
                               name, line_no, what[i], BAND_MAX_TOKENS, word ? word : "");
    }
    SliceType type;
    if (!word || !parse_type(word, &type))
        return status_fail(ERR_USER,
                           "%s:%d: the slice type must be FULL, CAUSAL, INV_CAUSAL or BI_CAUSAL, "
                           "not '%s'",
                           name, line_no, word ? word : "");
    if ((word = strtok_r(NULL, " \t\r", &save)) != NULL)
        return status_fail(ERR_USER, "%s:%d: '%s' follows a complete slice; one slice a line", name,
                           line_no, word);
    if (v[0] > v[1] || v[2] > v[3])
        return status_fail(ERR_USER, "%s:%d: a range ends before it begins", name, line_no);
    *end = i64_max(v[1], v[3]);
    *band = band_from_slice((Range){(int32_t)v[0], (int32_t)v[1]},
                            (Range){(int32_t)v[2], (int32_t)v[3]}, type);
    return OK;
}

Status mask_parse(Mask *out, const char *name, const char *text, size_t len, int64_t S) {
    *out = (Mask){0};
    if (len > 0 && memchr(text, '\0', len))
        return status_fail(ERR_USER, "%s: holds a zero byte; a slice list is plain text", name);
    char *copy = NEW(char, (int64_t)len + 1);
    if (len > 0) memcpy(copy, text, len);
    Band *bands = NULL;
    int *lines = NULL;
    int64_t n = 0, cap = 0, lines_cap = 0, last = 0, first, second;
    Status st = OK;
    int line_no = 0;
    for (char *line = copy, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        line[strcspn(line, "#")] = '\0';
        line_no++;
        GROW(bands, n, cap);
        GROW(lines, n, lines_cap);
        bool found;
        int64_t end = 0;
        CHECK_GOTO(parse_line(line, name, line_no, &found, &bands[n], &end), done);
        if (!found) continue;
        last = i64_max(last, end);
        if (S > 0 && end > S) {
            st = status_fail(ERR_USER,
                             "%s:%d: the slice ends at %" PRId64 ", beyond a sequence of %" PRId64
                             " tokens",
                             name, line_no, end, S);
            goto done;
        }
        lines[n++] = line_no;
    }
    if (n == 0) {
        st = status_fail(ERR_USER, "%s: no slice found; expected lines like '0 1024 0 1024 CAUSAL'",
                         name);
        goto done;
    }
    if (!mask_check(bands, n, &first, &second)) {
        st = status_fail(ERR_USER, "%s:%d: this slice covers pairs that line %d covers already",
                         name, lines[second], lines[first]);
        goto done;
    }
    st = mask_bands(out, S > 0 ? S : last, bands, n);
done:
    free(bands);
    free(lines);
    free(copy);
    return st;
}

Status mask_load(Mask *out, const char *path, int64_t S) {
    StrBuf text = {0};
    *out = (Mask){0};
    Status st = file_read_all(&text, path, "the slice list", LIST_MAX);
    if (st == OK) st = mask_parse(out, path, strbuf_text(&text), text.len, S);
    strbuf_free(&text);
    return st;
}
