/* Byte-level BPE (Sennrich, Haddow and Birch, 2016; Radford et al., 2019). */
#include "text/tokenizer_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

void token_ids_append(TokenIds *list, int32_t id) {
    GROW(list->ids, list->n, list->cap);
    list->ids[list->n++] = id;
}

/* ---- a word ---------------------------------------------------------------------------------- */
/* Replaces every pair that is `best`, from left to right; pair[i] is the merge of ids[i] and
 * ids[i + 1], or NULL. Returns how many ids are left. */
static int64_t apply_merge(const Tokenizer *t, const Merge *best, int32_t *ids, const Merge **pair,
                           int64_t n) {
    bool merged_before = false;
    int64_t to = 0;
    for (int64_t from = 0; from < n; from++, to++) {
        bool merged = pair[from] == best;
        ids[to] = merged ? best->result : ids[from];
        if (to > 0 && (merged || merged_before))
            pair[to - 1] = tokenizer_find_merge(t, ids[to - 1], ids[to]);
        from += merged;
        pair[to] = pair[from];
        merged_before = merged;
    }
    return to;
}

static int64_t merge_all(const Tokenizer *t, int32_t *ids, int64_t n) {
    const Merge **pair = NEW(const Merge *, n);
    for (int64_t i = 0; i + 1 < n; i++) pair[i] = tokenizer_find_merge(t, ids[i], ids[i + 1]);
    for (;;) {
        const Merge *best = NULL;
        for (int64_t i = 0; i < n; i++)
            if (pair[i] != NULL && (best == NULL || pair[i]->rank < best->rank)) best = pair[i];
        if (best == NULL) break;
        n = apply_merge(t, best, ids, pair, n);
    }
    free(pair);
    return n;
}

static Status encode_word(const Tokenizer *t, const char *word, int64_t n, TokenIds *out) {
    int32_t whole = t->ignore_merges ? tokenizer_find(t, word, n) : -1;
    if (whole >= 0) {
        token_ids_append(out, whole);
        return OK;
    }
    int64_t begin = out->n;
    for (int64_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)word[i];
        if (t->byte_ids[byte] < 0)
            return status_fail(ERR_USER, "the tokenizer has no token for the byte 0x%02x", byte);
        token_ids_append(out, t->byte_ids[byte]);
    }
    if (n > 1) out->n = begin + merge_all(t, out->ids + begin, n);
    return OK;
}

/* ---- a text ---------------------------------------------------------------------------------- */
static Status encode_stage(const Tokenizer *t, int stage, const char *text, int64_t n,
                           TokenIds *out);

static Status split_and_encode(const Tokenizer *t, int stage, const char *text, int64_t n,
                               TokenIds *out) {
    int64_t begin, end = 0;
    for (int64_t at = 0; at < n; at = end) {
        CHECK(split_find(t->stages[stage].split, text, n, at, &begin, &end));
        CHECK(encode_stage(t, stage + 1, text + at, begin - at, out));
        CHECK(encode_stage(t, stage + 1, text + begin, end - begin, out));
    }
    return OK;
}

/* A word as the stages before `stage` have left it. */
static Status encode_stage(const Tokenizer *t, int stage, const char *text, int64_t n,
                           TokenIds *out) {
    if (n == 0) return OK;
    if (stage == t->n_stages) return encode_word(t, text, n, out);
    const Stage *s = &t->stages[stage];
    char *copy = NULL;
    if (s->prefix_space && text[0] != ' ') {
        copy = NEW(char, n + 1);
        copy[0] = ' ';
        memcpy(copy + 1, text, (size_t)n++);
        text = copy;
    }
    Status st = s->split != NULL ? split_and_encode(t, stage, text, n, out)
                                 : encode_stage(t, stage + 1, text, n, out);
    free(copy);
    return st;
}

/* The longest added token of this pass that text[n] begins with; -1: none. */
static int32_t added_token_at(const Tokenizer *t, int pass, const char *text, int64_t n) {
    int32_t best = -1;
    for (int i = 0; i < t->n_added; i++) {
        const Token *token = &t->tokens[t->added[i].id];
        if (t->added[i].pass != pass || token->n > n ||
            memcmp(token->bytes, text, (size_t)token->n) != 0)
            continue;
        if (best < 0 || token->n > t->tokens[best].n) best = t->added[i].id;
    }
    return best;
}

static Status encode_added(const Tokenizer *t, int pass, const char *text, int64_t n,
                           TokenIds *out) {
    if (pass == 2) return encode_stage(t, 0, text, n, out);
    int64_t begin = 0;
    for (int64_t at = 0; at < n;) {
        int32_t id = added_token_at(t, pass, text + at, n - at);
        if (id < 0) {
            at++;
            continue;
        }
        CHECK(encode_added(t, pass + 1, text + begin, at - begin, out));
        token_ids_append(out, id);
        begin = at += t->tokens[id].n;
    }
    return encode_added(t, pass + 1, text + begin, n - begin, out);
}

static Status check_utf8(const char *text, int64_t n) {
    for (int64_t i = 0, length; i < n; i += length) {
        length = (int64_t)utf8_length(text + i, (size_t)(n - i));
        if (length == 0)
            return status_fail(ERR_USER, "the text is not UTF-8 at byte %lld", (long long)i);
    }
    return OK;
}

Status tokenizer_encode(const Tokenizer *t, const char *text, int64_t n, bool marks,
                        TokenIds *out) {
    CHECK(check_utf8(text, n));
    for (int i = 0; marks && i < t->n_before; i++) token_ids_append(out, t->before[i]);
    CHECK(encode_added(t, 0, text, n, out));
    for (int i = 0; marks && i < t->n_after; i++) token_ids_append(out, t->after[i]);
    return OK;
}
