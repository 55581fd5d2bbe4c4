/* tokens.h: one file of token ids in any of the formats of data/README.md, plain or gzip. Formats
 * are rows of a table in tokens.c. */
#ifndef CRIA_DATA_TOKENS_H
#define CRIA_DATA_TOKENS_H

#include "base/base.h"
#include "config/config.h"
#include "data/megatron.h"

typedef struct TokenFile TokenFile;

/* `path` is the file; for a Megatron pair either of the two, or what their names have in common.
 * ERR_USER: missing, empty, of unknown format, cut short, an index that does not fit. */
Status tokens_open(TokenFile **file, const char *path, DataFormat format);
void tokens_close(TokenFile *file);
const char *tokens_path(const TokenFile *file); /* of the ids */
int64_t tokens_count(const TokenFile *file);
DataFormat tokens_format(const TokenFile *file); /* never FORMAT_AUTO */
IdType tokens_id_type(const TokenFile *file);
const MegatronIndex *tokens_index(const TokenFile *file); /* NULL: the format has none */
bool tokens_is_gzip(const TokenFile *file);
int64_t tokens_bytes(const TokenFile *file); /* on disk, without an index */
uint32_t tokens_fingerprint(const TokenFile *file);
/* Have the ids, or has the index, been modified since they were opened? */
bool tokens_modified(const TokenFile *file, bool *index);
/* ERR_USER when no id of this file's type can be `eod`, which `name` names ("data.eod"). */
Status tokens_check_eod(const TokenFile *file, int64_t eod, const char *name);

/* ids [begin, begin + n) widened to int32; ids outside 0 <= id < vocab are ERR_USER (file, byte
 * offset, id). */
Status tokens_read(const TokenFile *file, int64_t begin, int64_t n, int64_t vocab, int32_t *out);

/* Where documents begin in a stretch of tokens that has been read: those p of 1..n, ascending, for
 * which one begins at token begin + p, into out [n]; returns how many. ids[n + 1] are the tokens
 * from `begin` on ([n] where the file ends). The index tells if there is one; otherwise eod does:
 * in llm.c shards it opens a document, elsewhere it ends one (-1: no id does, there are no
 * boundaries). */
int64_t tokens_boundaries(const TokenFile *file, int64_t begin, int64_t n, int64_t eod,
                          const int32_t *ids, int32_t *out);
/* The first token at or behind `token` that begins a document; the count when none does. */
Status tokens_document_from(const TokenFile *file, int64_t token, int64_t eod, int64_t *out);

#endif
