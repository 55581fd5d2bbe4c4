/* tokenizer.h: text to token ids and back, as Hugging Face's `tokenizers` does it, for the
 * tokenizer.json of a byte-level BPE: GPT-2's, Llama 3's, and what that library trains. */
#ifndef CRIA_TEXT_TOKENIZER_H
#define CRIA_TEXT_TOKENIZER_H

#include "base/base.h"

typedef struct Tokenizer Tokenizer;

typedef struct {
    int32_t *ids; /* free() */
    int64_t n, cap;
} TokenIds;

void token_ids_append(TokenIds *list, int32_t id);

/* Reads a tokenizer.json, or the one of a directory. ERR_USER when it is none, is damaged, or does
 * what is not supported: another model than BPE, byte_fallback, a normalizer, words without the
 * byte-level alphabet. */
Status tokenizer_load(Tokenizer **out, const char *path);
void tokenizer_free(Tokenizer *t);
int32_t tokenizer_size(const Tokenizer *t); /* one more than the largest id */

/* Bytes of the text that the id stands for; 0 for special tokens and where there is no token. */
int64_t tokenizer_bytes(const Tokenizer *t, int32_t id);

/* Appends the ids of text[n]; the names of added tokens in it become those tokens. `marks`: with
 * the tokens that the post-processor puts around a text, such as Llama 3's <|begin_of_text|>.
 * ERR_USER when the text is not UTF-8 or has a byte for which there is no token. */
Status tokenizer_encode(const Tokenizer *t, const char *text, int64_t n, bool marks, TokenIds *out);

/* Decodes ids one by one. A character whose bytes come from several tokens is held back until it is
 * whole; bytes that are no UTF-8 become U+FFFD, as does an id without a token. */
typedef struct {
    char held[4];
    int n_held;
} TextStream;

void tokenizer_decode(const Tokenizer *t, TextStream *stream, int32_t id, StrBuf *out);
/* What is still held back. */
void text_stream_end(TextStream *stream, StrBuf *out);

#endif
