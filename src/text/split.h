/* split.h: regular expressions that cut a text into words, as a tokenizer.json gives them.
 *
 * By PCRE2, which takes every pattern in use, rather than by own code for each. Its Unicode tables
 * are those of the installed version (10.42: Unicode 14, `tokenizers` 0.23: Unicode 16): a letter
 * that Unicode got in between can be cut otherwise. */
#ifndef CRIA_TEXT_SPLIT_H
#define CRIA_TEXT_SPLIT_H

#include "base/base.h"

typedef struct Split Split;

/* ERR_USER with PCRE2's message when the pattern is not a regular expression. */
Status split_compile(Split **out, const char *pattern);
void split_free(Split *split);

/* The first match of at least one byte in text[n] that starts at `from` or later, as [*begin,
 * *end); both are n when there is none. ERR_USER when the search needs too many steps. */
Status split_find(const Split *split, const char *text, int64_t n, int64_t from, int64_t *begin,
                  int64_t *end);

#endif
