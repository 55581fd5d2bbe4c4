/* prompt.h: what a generated text begins with. */
#ifndef CRIA_SESSION_PROMPT_H
#define CRIA_SESSION_PROMPT_H

#include "text/tokenizer.h"

/* Appends the ids of a text, with those that the tokenizer puts around it; without a tokenizer
 * (NULL) the text is ids, "1 2 3". Of an empty text it is `start`, the id at which documents begin
 * (-1: there is none). ERR_USER when nothing comes of it, or an id is not below `vocab`. */
Status prompt_read(const Tokenizer *t, const char *text, int64_t start, int vocab, TokenIds *out);

#endif
