/* tokenizer_data.h: what a loaded tokenizer holds; for the files of this folder. */
#ifndef CRIA_TEXT_TOKENIZER_DATA_H
#define CRIA_TEXT_TOKENIZER_DATA_H

#include "base/json.h"
#include "text/split.h"
#include "text/tokenizer.h"

enum {
    TOKENIZER_BYTES_MAX = 256 << 20, /* of the file; that of Llama 3 has 17 million */
    TOKENIZER_IDS_MAX = 1 << 20,
    TOKENIZER_STAGES_MAX = 16,
    TOKENIZER_MARKS_MAX = 8
};

/* What an id stands for; bytes NULL: there is no token of this id. */
typedef struct {
    char *bytes;
    int64_t n;
    bool special; /* no text: it marks something, as the end of a document */
} Token;

/* The tokens left and right, side by side, become `result`; a lower rank goes first. */
typedef struct {
    int32_t left, right, rank, result;
} Merge;

/* A token that is looked for in the text before the text is cut into words: first those of pass 0
 * ("normalized": false), then, in what is left, those of pass 1. */
typedef struct {
    int32_t id;
    int pass;
} AddedToken;

/* Cuts words into matches and what is between them. */
typedef struct {
    Split *split;      /* NULL: words stay whole */
    bool prefix_space; /* a word that does not begin with a space gets one */
} Stage;

struct Tokenizer {
    Token *tokens;     /* [TOKENIZER_IDS_MAX] by id */
    int32_t n_tokens;  /* one more than the largest id */
    int32_t *by_bytes; /* [n_words] ids of the vocabulary's words, in order of their bytes */
    int32_t n_words;
    int32_t byte_ids[256]; /* of words of one byte; -1: none */
    Merge *merges;         /* in order of left, right */
    int64_t n_merges;
    AddedToken *added;
    int n_added;
    Stage stages[TOKENIZER_STAGES_MAX];
    int n_stages;
    bool byte_level;    /* the last stage's words are written in the byte-level alphabet */
    bool ignore_merges; /* a word of the vocabulary is one token, whatever the merges make of it */
    int32_t before[TOKENIZER_MARKS_MAX], after[TOKENIZER_MARKS_MAX];
    int n_before, n_after;
};

/* Reads "model": vocabulary and merges. */
Status tokenizer_read_model(Tokenizer *t, Json *model);
/* ERR_USER when the id is not one or belongs to other bytes. Takes `bytes`. */
Status tokenizer_add(Tokenizer *t, int64_t id, char *bytes, int64_t n);
/* "WHAT VALUE is not supported" */
Status tokenizer_unsupported(const char *what, const char *value);

/* The word of the vocabulary that has these bytes; -1: none. */
int32_t tokenizer_find(const Tokenizer *t, const char *bytes, int64_t n);
/* NULL when these two do not merge. */
const Merge *tokenizer_find_merge(const Tokenizer *t, int32_t left, int32_t right);

#endif
