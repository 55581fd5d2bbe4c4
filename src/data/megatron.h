/* megatron.h: the index (.idx) of a Megatron-LM token file: where each sequence starts, and which
 * sequences make a document. Layout: data/README.md. */
#ifndef CRIA_DATA_MEGATRON_H
#define CRIA_DATA_MEGATRON_H

#include <string.h>

#include "base.h"

/* Integer types of token ids; the first ten are Megatron's codes. */
typedef enum {
    ID_U8 = 1,
    ID_I8 = 2,
    ID_I16 = 3,
    ID_I32 = 4,
    ID_I64 = 5,
    ID_U16 = 8,
    ID_U32 = 32 /* llm.c's Llama-3 shards; not Megatron's */
} IdType;
int id_type_bytes(IdType type);
const char *id_type_name(IdType type);

/* Points into the bytes of the file, whose numbers are unaligned. */
typedef struct {
    IdType type;
    int64_t sequences, documents;
    int64_t tokens;
    const unsigned char *pointers; /* [sequences] int64: byte offset in the .bin */
    const unsigned char *firsts; /* [documents + 1] int64: number of the first sequence; NULL: each
                                  * document is one sequence */
} MegatronIndex;

enum { MEGATRON_HEADER = 34 };
#define MEGATRON_MAGIC "MMIDIDX\0\0" /* 9 bytes */

/* Checks every number. data_path and data_bytes are of the .bin. ERR_USER: file, offset, found and
 * expected, remedy. */
Status megatron_parse(MegatronIndex *index, const char *path, const unsigned char *data, int64_t n,
                      const char *data_path, int64_t data_bytes);

static inline int64_t megatron_i64(const unsigned char *numbers, int64_t i) {
    int64_t v;
    memcpy(&v, numbers + 8 * i, sizeof v);
    return v;
}
/* First token of a sequence; sequence == sequences: the number of tokens. */
static inline int64_t megatron_start(const MegatronIndex *x, int64_t sequence) {
    return sequence < x->sequences ? megatron_i64(x->pointers, sequence) / id_type_bytes(x->type)
                                   : x->tokens;
}
static inline int64_t megatron_document_start(const MegatronIndex *x, int64_t document) {
    if (document >= x->documents) return x->tokens;
    return megatron_start(x, x->firsts != NULL ? megatron_i64(x->firsts, document) : document);
}
/* The first document that starts at or behind this token (documents: none does). */
int64_t megatron_document_from(const MegatronIndex *index, int64_t token);

#endif
