/* documents.h: a token file from front to back, in pieces of documents: what `cria data` works on.
 */
#ifndef CRIA_DATA_DOCUMENTS_H
#define CRIA_DATA_DOCUMENTS_H

#include "data/tokens.h"

/* How far a command is, on stderr when that is a terminal. */
typedef struct {
    int64_t total, done; /* tokens */
    double begin, shown;
} Progress;
void progress_start(Progress *p, int64_t total);
void progress_end(Progress *p);

typedef struct {
    const int32_t *ids; /* valid until the next call */
    int64_t n;          /* > 0 */
    bool begins, ends;  /* the document's first, last piece */
} Piece;

typedef struct DocumentReader DocumentReader;

/* Documents are found as tokens_boundaries does; without index and eod the file is one document.
 * Empty documents of an index are passed over. The file is borrowed. */
DocumentReader *documents_open(const TokenFile *file, int64_t eod, int64_t vocab,
                               Progress *progress);
void documents_close(DocumentReader *reader);
/* false: the end, or an error (*st). */
bool documents_next(DocumentReader *reader, Piece *piece, Status *st);

#endif
