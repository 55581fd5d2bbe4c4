/* gzip.h: random access into a gzip file. Deflate can only be read from the front, so an index
 * keeps places to start from: the 32 KiB of output before a block boundary, or nothing at the start
 * of a member (after zlib's examples/zran.c, Adler 2005-2023). Making it reads the whole file once
 * and checks every CRC; it is kept beside the file as NAME.gz.index and read by later opens. */
#ifndef CRIA_DATA_GZIP_H
#define CRIA_DATA_GZIP_H

#include "base/base.h"

typedef struct Gzip Gzip;

/* fd and path stay the caller's. `fingerprint` names the contents of the compressed file: an index
 * of other contents is made anew. When the index cannot be saved it is kept in memory, with a
 * warning. ERR_USER: not gzip, damaged or cut short (file, byte offset, what to do). */
Status gzip_open(Gzip **gzip, int fd, const char *path, int64_t bytes, uint32_t fingerprint);
void gzip_close(Gzip *gzip);
int64_t gzip_size(const Gzip *gzip); /* bytes of content */
/* Content [offset, offset + n) into out; the range must lie inside. Goes on from the last read when
 * that is nearer than the index. Any thread; one at a time inflates. */
Status gzip_read(Gzip *gzip, int64_t offset, int64_t n, void *out);

/* Do these bytes begin a gzip member? Of random ones, one in 130 million does. */
bool gzip_has_magic(const unsigned char *bytes, int64_t n);
/* Inflates the first `room` bytes of content, or as many as n bytes of the file hold. -1 when they
 * are not gzip. */
int64_t gzip_inflate_head(const unsigned char *bytes, int64_t n, unsigned char *out, int64_t room);

#endif
