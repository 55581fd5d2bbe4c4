/* megatron.h: the index (.idx) of a Megatron-LM token file: where each sequence starts, and which
 * sequences make a document. Layout: data/README.md. */
#ifndef CRIA_DATA_MEGATRON_H
#define CRIA_DATA_MEGATRON_H

#include "data/bytes.h"
#include "data/share.h"

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
int64_t id_type_largest(IdType type); /* at most INT32_MAX, as ids are int32 in memory */

/* In memory that nothing outside changes, 8 bytes a sequence (and a document, where these have more
 * than one): a file that is cut or written anew while it is used does no harm. Held once for all
 * processes of a node. */
typedef struct {
    IdType type;
    int64_t sequences, documents;
    int64_t tokens;
    const int64_t *starts; /* [sequences + 1] first token of each sequence; the last: tokens */
    const int64_t *firsts; /* [documents + 1] number of the first sequence; NULL: each document is
                            * one sequence */
    Share *starts_share, *firsts_share;
} MegatronIndex;

enum { MEGATRON_HEADER = 34 };
#define MEGATRON_MAGIC "MMIDIDX\0\0" /* 9 bytes */

/* Reads and checks every number. data_path and data_bytes are of the .bin. ERR_USER: file, offset,
 * found and expected, remedy. *index must be closed in either case. */
Status megatron_open(MegatronIndex *index, ByteFile *file, const char *data_path,
                     int64_t data_bytes);
void megatron_close(MegatronIndex *index);

/* First token of a sequence; sequence == sequences: the number of tokens. */
static inline int64_t megatron_start(const MegatronIndex *x, int64_t sequence) {
    return x->starts[sequence];
}
static inline int64_t megatron_document_start(const MegatronIndex *x, int64_t document) {
    return x->starts[x->firsts != NULL ? x->firsts[document] : document];
}
/* The first document that starts at or behind this token (documents: none does). */
int64_t megatron_document_from(const MegatronIndex *index, int64_t token);

#endif
