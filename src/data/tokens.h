/* tokens.h: one file of token ids, mapped read-only. Formats are rows of a table in tokens.c. */
#ifndef CRIA_DATA_TOKENS_H
#define CRIA_DATA_TOKENS_H

#include "../base.h"
#include "../config.h"

typedef struct TokenFile TokenFile;

/* ERR_USER: missing, empty, size not a multiple of the id size, unknown format. */
Status tokens_open(TokenFile **file, const char *path, DataFormat format);
void tokens_close(TokenFile *file);
const char *tokens_path(const TokenFile *file);
int64_t tokens_count(const TokenFile *file);
/* ids [begin, begin + n) widened to int32; ids >= vocab are ERR_USER (file, byte offset, id). */
Status tokens_read(const TokenFile *file, int64_t begin, int64_t n, int64_t vocab, int32_t *out);
uint32_t tokens_fingerprint(const TokenFile *file);

#endif
