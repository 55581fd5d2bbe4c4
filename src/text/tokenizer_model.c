/* The vocabulary and the merges of tokenizer.json's "model". */
#include "text/tokenizer_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- words ----------------------------------------------------------------------------------- */
/* GPT-2 writes every byte as a printable character: itself where it is one of Latin-1, otherwise
 * one from U+0100 on. byte[c] is what character c stands for, or -1. */
typedef struct {
    int16_t byte[0x144];
} Alphabet;

static Alphabet alphabet(void) {
    Alphabet a;
    int next = 0x100;
    memset(&a, 0xff, sizeof a);
    for (int b = 0; b < 256; b++) {
        bool printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        a.byte[printable ? b : next++] = (int16_t)b;
    }
    return a;
}

/* Changes a word to the bytes that it stands for and returns their number; -1, and nothing is
 * changed, when a character is not of the alphabet. */
static int64_t word_to_bytes(const Alphabet *a, char *word) {
    size_t length = strlen(word), size, n = 0;
    for (int pass = 0; pass < 2; pass++) { /* check, then change */
        n = 0;
        for (size_t i = 0; i < length; i += size, n++) {
            size = utf8_length(word + i, length - i);
            uint32_t c = utf8_decode(word + i, size);
            if (c >= sizeof a->byte / sizeof *a->byte || a->byte[c] < 0) return -1;
            if (pass == 1) word[n] = (char)a->byte[c];
        }
    }
    return (int64_t)n;
}

static int compare_bytes(const char *a, int64_t n, const char *b, int64_t m) {
    int order = memcmp(a, b, (size_t)i64_min(n, m));
    return order != 0 ? order : (n > m) - (n < m);
}

static int by_bytes(const void *a, const void *b, void *tokens) {
    const Token *x = (const Token *)tokens + *(const int32_t *)a;
    const Token *y = (const Token *)tokens + *(const int32_t *)b;
    return compare_bytes(x->bytes, x->n, y->bytes, y->n);
}

int32_t tokenizer_find(const Tokenizer *t, const char *bytes, int64_t n) {
    int32_t begin = 0, end = t->n_words;
    while (begin < end) {
        int32_t middle = begin + (end - begin) / 2;
        const Token *token = &t->tokens[t->by_bytes[middle]];
        int order = compare_bytes(bytes, n, token->bytes, token->n);
        if (order == 0) return t->by_bytes[middle];
        if (order < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return -1;
}

Status tokenizer_add(Tokenizer *t, int64_t id, char *bytes, int64_t n) {
    Token *token = id >= 0 && id < TOKENIZER_IDS_MAX ? &t->tokens[id] : NULL;
    bool same = token != NULL && token->bytes != NULL && token->n == n &&
                memcmp(token->bytes, bytes, (size_t)n) == 0;
    if (token == NULL || (token->bytes != NULL && !same)) {
        free(bytes);
        return status_fail(ERR_USER,
                           token == NULL ? "the id %lld is not below %d"
                                         : "two tokens have the id %lld (of %d)",
                           (long long)id, TOKENIZER_IDS_MAX);
    }
    free(token->bytes);
    *token = (Token){.bytes = bytes, .n = n};
    t->n_tokens = (int32_t)i64_max(t->n_tokens, id + 1);
    return OK;
}

static Status read_vocabulary(Tokenizer *t, const Alphabet *a, Json *j) {
    TokenIds words = {0};
    Status st = OK;
    char *word;
    for (json_object(j); st == OK && json_object_next(j, &word);) {
        int64_t id = json_int(j), n = word_to_bytes(a, word);
        st = j->error != NULL ? json_status(j) : OK;
        if (st == OK)
            st = tokenizer_add(t, id, word, n >= 0 ? n : (int64_t)strlen(word));
        else
            free(word);
        if (st == OK && n > 0) token_ids_append(&words, (int32_t)id);
    }
    t->by_bytes = words.ids;
    t->n_words = (int32_t)words.n;
    if (words.n > 1) qsort_r(words.ids, (size_t)words.n, sizeof *words.ids, by_bytes, t->tokens);
    for (int b = 0; b < 256; b++) t->byte_ids[b] = tokenizer_find(t, &(char){(char)b}, 1);
    return st == OK ? json_status(j) : st;
}

/* ---- merges ---------------------------------------------------------------------------------- */
/* ["left", "right"], or "left right" in files of before 2024 */
static Status read_pair(Json *j, char **left, char **right) {
    *left = *right = NULL;
    if (json_peek(j) == '[') {
        json_array(j);
        if (json_array_next(j)) *left = json_string(j);
        if (json_array_next(j)) *right = json_string(j);
        if (json_array_next(j) && j->error == NULL) j->error = "a merge of more than two tokens";
    } else {
        *left = json_string(j);
        char *space = *left != NULL ? strchr(*left, ' ') : NULL;
        if (space != NULL) {
            *right = mem_strdup(space + 1);
            *space = '\0';
        }
    }
    CHECK(json_status(j));
    if (*left != NULL && *right != NULL) return OK;
    return status_fail(ERR_USER, "a merge of fewer than two tokens before byte %lld",
                       (long long)j->pos);
}

static Status resolve_merge(const Tokenizer *t, const Alphabet *a, char *left, char *right,
                            Merge *merge) {
    char *shown = mem_printf("%s %s", left, right);
    int64_t n = word_to_bytes(a, left), m = word_to_bytes(a, right);
    if (n > 0 && m > 0) {
        char *both = NEW(char, n + m);
        memcpy(both, left, (size_t)n);
        memcpy(both + n, right, (size_t)m);
        merge->left = tokenizer_find(t, left, n);
        merge->right = tokenizer_find(t, right, m);
        merge->result = tokenizer_find(t, both, n + m);
        free(both);
    }
    bool known = n > 0 && m > 0 && merge->left >= 0 && merge->right >= 0 && merge->result >= 0;
    text_make_printable(shown, false);
    Status st = known ? OK : status_fail(ERR_USER, "the merge %s is not of the vocabulary", shown);
    free(shown);
    return st;
}

static int by_pair(const void *a, const void *b) {
    const Merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

const Merge *tokenizer_find_merge(const Tokenizer *t, int32_t left, int32_t right) {
    Merge wanted = {.left = left, .right = right};
    if (t->n_merges == 0) return NULL;
    return bsearch(&wanted, t->merges, (size_t)t->n_merges, sizeof wanted, by_pair);
}

static Status read_merges(Tokenizer *t, const Alphabet *a, Json *j) {
    Status st = OK;
    int64_t cap = 0;
    for (json_array(j); st == OK && json_array_next(j);) {
        char *left, *right;
        Merge merge = {.rank = (int32_t)t->n_merges};
        st = read_pair(j, &left, &right);
        if (st == OK) st = resolve_merge(t, a, left, right, &merge);
        free(left);
        free(right);
        if (st != OK) return st;
        GROW(t->merges, t->n_merges, cap);
        t->merges[t->n_merges++] = merge;
    }
    if (t->n_merges > 1) qsort(t->merges, (size_t)t->n_merges, sizeof *t->merges, by_pair);
    return json_status(j);
}

/* ---- the model ------------------------------------------------------------------------------- */
enum { TYPE, VOCAB, MERGES, FALLBACK, IGNORE_MERGES, DROPOUT, PREFIX, SUFFIX, MEMBERS };
static const char *const member_names[MEMBERS] = {"type",
                                                  "vocab",
                                                  "merges",
                                                  "byte_fallback",
                                                  "ignore_merges",
                                                  "dropout",
                                                  "continuing_subword_prefix",
                                                  "end_of_word_suffix"};

static Status check_model(Json *v) {
    char *type = v[TYPE].text != NULL ? json_string(&v[TYPE]) : NULL;
    Status st = json_status(&v[TYPE]);
    if (st == OK && type != NULL && strcmp(type, "BPE") != 0)
        st = tokenizer_unsupported("a model of type", type);
    free(type);
    CHECK(st);
    if (v[FALLBACK].text != NULL && json_bool(&v[FALLBACK]))
        return tokenizer_unsupported("byte_fallback,", "as SentencePiece models have it,");
    for (int i = PREFIX; i <= SUFFIX; i++) {
        char *text = v[i].text != NULL ? json_string(&v[i]) : NULL;
        bool empty = text == NULL || text[0] == '\0';
        free(text);
        if (!empty) return tokenizer_unsupported("the model's", member_names[i]);
    }
    if (v[DROPOUT].text != NULL && json_double(&v[DROPOUT]) > 0)
        return tokenizer_unsupported("the model's", member_names[DROPOUT]);
    if (v[VOCAB].text == NULL || v[MERGES].text == NULL)
        return status_fail(ERR_USER, "the model has no vocab or no merges");
    return OK;
}

Status tokenizer_read_model(Tokenizer *t, Json *model) {
    Json v[MEMBERS];
    Alphabet a = alphabet();
    json_members(model, MEMBERS, member_names, v);
    CHECK(json_status(model));
    CHECK(check_model(v));
    t->ignore_merges = v[IGNORE_MERGES].text != NULL && json_bool(&v[IGNORE_MERGES]);
    CHECK(read_vocabulary(t, &a, &v[VOCAB]));
    return read_merges(t, &a, &v[MERGES]);
}
