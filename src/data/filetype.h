/* filetype.h: what a file is that holds no token ids, told by its first bytes. Any bytes are raw
 * uint16 ids; training on those of another file would only show as a strange loss. */
#ifndef CRIA_DATA_FILETYPE_H
#define CRIA_DATA_FILETYPE_H

#include "base/base.h"

typedef struct {
    const char *name;   /* "a PNG image" */
    const char *advice; /* what to do with it; NULL: nothing but naming another file */
    /* So many bits agree that no token file begins like this by chance: 2^-40 or less for random
     * ids. Not so for a short text. */
    bool certain;
} FileType;

/* From the first n bytes of a content of `size` bytes (-1: not known). False: none of the known
 * types, which is what raw ids are. */
bool filetype_find(FileType *type, const unsigned char *head, int64_t n, int64_t size);

/* Bytes of an id, 4 or 8, if these are the first bytes of ids that are wider than uint16: every
 * second 16-bit number is then the upper half of an id below 2^20 (of 8 bytes: three of four are).
 * 0: they are not. */
int filetype_id_bytes(const unsigned char *head, int64_t n);

#endif
