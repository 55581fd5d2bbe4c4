#include "attn/mask.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { LIST_MAX = 64 << 20 }; /* bytes of a slice list: more than a million slices */

/* ---- construction ------------------------------------------------------------------------ */

static int compare_bands(const void *x, const void *y) {
    const Band *a = x, *b = y;
    if (a->q_begin != b->q_begin) return a->q_begin < b->q_begin ? -1 : 1;
    if (a->k_begin != b->k_begin) return a->k_begin < b->k_begin ? -1 : 1;
    return (a->lo > b->lo) - (a->lo < b->lo); /* only to make the order total for odd input */
}

/* Takes over `bands` (disjoint): sorts, merges neighbours, indexes. */
static void finish(Mask *out, int64_t S, Band *bands, int64_t n) {
    bool sorted = true;
    for (int64_t i = 0; i < n; i++) {
        bands[i] = band_shrink(bands[i]);
        if (i > 0 && compare_bands(&bands[i - 1], &bands[i]) > 0) sorted = false;
    }
    if (!sorted) qsort(bands, (size_t)n, sizeof(Band), compare_bands);
    n = band_merge_list(bands, n);
    *out = (Mask){.S = S, .bands = bands, .n = n, .reach = NEW(int32_t, n)};
    for (int64_t i = 0, reach = 0; i < n; i++) {
        reach = i64_max(reach, bands[i].q_end);
        out->reach[i] = (int32_t)reach;
    }
}

static Status check_size(int64_t S) {
    if (S >= 1 && S <= BAND_MAX_TOKENS) return OK;
    return status_fail(ERR_USER, "mask: a stream of %" PRId64 " tokens; 1 to %d are possible", S,
                       BAND_MAX_TOKENS);
}

static Status check_sequences(int64_t S, int64_t T) {
    CHECK(check_size(S));
    if (T >= 1 && S % T == 0) return OK;
    return status_fail(
        ERR_USER, "mask: sequences of %" PRId64 " tokens do not divide a stream of %" PRId64, T, S);
}

Status mask_documents(Mask *out, int64_t S, const int64_t *doc_begin, int64_t n_docs,
                      int64_t window) {
    *out = (Mask){0};
    CHECK(check_size(S));
    if (n_docs < 1 || doc_begin[0] != 0)
        return status_fail(ERR_USER, "mask: the first document must begin at token 0");
    if (window < 0)
        return status_fail(ERR_USER, "mask: window %" PRId64 " is negative; 0 means no limit",
                           window);
    for (int64_t i = 0; i < n_docs; i++) {
        int64_t end = i + 1 < n_docs ? doc_begin[i + 1] : S;
        if (doc_begin[i] >= end)
            return status_fail(ERR_USER,
                               "mask: document %" PRId64 " begins at token %" PRId64
                               " but ends at %" PRId64 "; begins must ascend and lie below S",
                               i, doc_begin[i], end);
    }
    int32_t lo = window > 0 && window < S ? (int32_t)-window : BAND_NO_LO;
    Band *bands = NEW(Band, n_docs);
    for (int64_t i = 0; i < n_docs; i++) {
        int32_t begin = (int32_t)doc_begin[i];
        int32_t end = (int32_t)(i + 1 < n_docs ? doc_begin[i + 1] : S);
        bands[i] = (Band){begin, end, begin, end, lo, 0};
    }
    finish(out, S, bands, n_docs);
    return OK;
}

/* S / T sequences with the same n bands in each, given in coordinates of the first. */
static Status mask_repeat(Mask *out, int64_t S, int64_t T, const Band *bands, int64_t n) {
    Band *all = NEW(Band, S / T * n);
    for (int64_t i = 0; i < S / T * n; i++)
        all[i] = band_shift(bands[i % n], (int32_t)(i / n * T), (int32_t)(i / n * T));
    finish(out, S, all, S / T * n);
    return OK;
}

Status mask_causal(Mask *out, int64_t S, int64_t T, int64_t window) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    if (window < 0)
        return status_fail(ERR_USER, "mask: window %" PRId64 " is negative; 0 means no limit",
                           window);
    int32_t lo = window > 0 && window < T ? (int32_t)-window : BAND_NO_LO;
    return mask_repeat(out, S, T, &(Band){0, (int32_t)T, 0, (int32_t)T, lo, 0}, 1);
}

Status mask_full(Mask *out, int64_t S, int64_t T) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    Band whole = {0, (int32_t)T, 0, (int32_t)T, BAND_NO_LO, BAND_NO_HI};
    return mask_repeat(out, S, T, &whole, 1);
}

Status mask_prefix_lm(Mask *out, int64_t S, int64_t T, int64_t prefix) {
    *out = (Mask){0};
    CHECK(check_sequences(S, T));
    if (prefix < 0 || prefix > T)
        return status_fail(ERR_USER,
                           "mask: a prefix of %" PRId64 " tokens; 0 to %" PRId64
                           " (the sequence) are possible",
                           prefix, T);
    int32_t p = (int32_t)prefix, t = (int32_t)T;
    const Band bands[] = {{0, p, 0, p, BAND_NO_LO, BAND_NO_HI}, {p, t, 0, t, BAND_NO_LO, 0}};
    return mask_repeat(out, S, T, bands, 2);
}

static void print_band(char *text, size_t size, Band b) {
    snprintf(text, size, "q [%d, %d) x k [%d, %d), k - q in [%d, %d]", b.q_begin, b.q_end,
             b.k_begin, b.k_end, b.lo, b.hi);
}

Status mask_bands(Mask *out, int64_t S, const Band *bands, int64_t n) {
    *out = (Mask){0};
    CHECK(check_size(S));
    Band *copy = NEW(Band, n);
    Status st = OK;
    int64_t first, second;
    char text[2][128];
    for (int64_t i = 0; i < n; i++) {
        Band b = copy[i] = band_shrink(bands[i]);
        if (b.q_begin >= 0 && b.q_end <= S && b.k_begin >= 0 && b.k_end <= S) continue;
        print_band(text[0], sizeof text[0], b);
        st = status_fail(ERR_USER, "mask: band %" PRId64 ", %s, leaves the %" PRId64 " tokens", i,
                         text[0], S);
        goto fail;
    }
    if (!mask_check(copy, n, &first, &second)) {
        print_band(text[0], sizeof text[0], copy[first]);
        print_band(text[1], sizeof text[1], copy[second]);
        st = status_fail(ERR_USER,
                         "mask: bands %" PRId64 " (%s) and %" PRId64 " (%s) cover a pair twice",
                         first, text[0], second, text[1]);
        goto fail;
    }
    finish(out, S, copy, n);
    return OK;
fail:
    free(copy);
    return st;
}

void mask_free(Mask *m) {
    free(m->bands);
    free(m->reach);
    *m = (Mask){0};
}

void mask_copy(Mask *out, const Mask *m) {
    *out = (Mask){.S = m->S, .n = m->n, .bands = NEW(Band, m->n), .reach = NEW(int32_t, m->n)};
    if (m->n == 0) return;
    memcpy(out->bands, m->bands, (size_t)m->n * sizeof(Band));
    memcpy(out->reach, m->reach, (size_t)m->n * sizeof(int32_t));
}

/* ---- slices from text -------------------------------------------------------------------- */

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
                             "%s:%d: the slice ends at %" PRId64 ", behind the stream of %" PRId64
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
    if (S == 0) S = last;
    CHECK_GOTO(check_size(S), done);
    finish(out, S, bands, n);
    bands = NULL;
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

/* ---- questions --------------------------------------------------------------------------- */

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

int64_t mask_area(const Mask *m) {
    int64_t area = 0;
    for (int64_t i = 0; i < m->n; i++) area += band_area(m->bands[i]);
    return area;
}

MaskRows mask_rows(const Mask *m, Range rows) {
    int64_t low = 0, high = m->n; /* the first band that reaches behind rows.begin */
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (m->reach[mid] <= rows.begin)
            low = mid + 1;
        else
            high = mid;
    }
    return (MaskRows){m, rows, low};
}

bool mask_next(MaskRows *at, Band *cut) {
    const Mask *m = at->mask;
    while (at->next < m->n && m->bands[at->next].q_begin < at->rows.end) {
        *cut = band_cut_q(m->bands[at->next++], at->rows);
        if (!band_is_empty(*cut)) return true;
    }
    return false;
}

void mask_keys(const Mask *m, Range rows, RangeList *out) {
    Band cut;
    for (MaskRows at = mask_rows(m, rows); mask_next(&at, &cut);)
        range_list_add(out, cut.k_begin, cut.k_end);
}

MaskForm mask_form(const Mask *m, int64_t *T) {
    *T = m->S;
    if (m->n == 0) return MASK_FORM_OTHER;
    Band b = m->bands[0];
    int64_t t = b.q_end;
    if (b.q_begin != 0 || b.k_begin != 0 || b.k_end != t || m->n * t != m->S)
        return MASK_FORM_OTHER;
    for (int64_t i = 1; i < m->n; i++)
        if (!band_equal(m->bands[i], band_shift(b, (int32_t)(i * t), (int32_t)(i * t))))
            return MASK_FORM_OTHER;
    *T = t;
    bool no_lo = b.lo <= 1 - t, no_hi = b.hi >= t - 1;
    if (no_lo && no_hi) return MASK_FORM_FULL;
    if (no_lo && b.hi == 0) return MASK_FORM_CAUSAL;
    return no_lo || no_hi ? MASK_FORM_OTHER : MASK_FORM_WINDOW;
}

/* Multiply and fold per word; the finaliser of splitmix64 (Steele et al., 2014). */
uint64_t hash_words(uint64_t hash, const int32_t *words, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)words[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    hash = (hash ^ (uint64_t)n ^ hash >> 30) * 0xBF58476D1CE4E5B9u;
    hash = (hash ^ hash >> 27) * 0x94D049BB133111EBu;
    return hash ^ hash >> 31;
}

uint64_t mask_hash(const Mask *m) {
    const int32_t size[] = {(int32_t)m->S, (int32_t)m->n};
    uint64_t hash = hash_words(0, size, 2);
    for (int64_t i = 0; i < m->n; i++) {
        Band b = m->bands[i];
        hash = hash_words(hash, (int32_t[]){b.q_begin, b.q_end, b.k_begin, b.k_end, b.lo, b.hi}, 6);
    }
    return hash;
}
