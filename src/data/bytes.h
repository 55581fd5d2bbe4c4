/* bytes.h: the content of one file at any offset, plain or gzip (told by its first bytes). Plain
 * files are read with pread and not mapped: a file cut short under a run, or a disk that fails, is
 * then an error with a sentence instead of a SIGBUS, and a copy of 16 KiB costs less than four page
 * faults. */
#ifndef CRIA_DATA_BYTES_H
#define CRIA_DATA_BYTES_H

#include "base.h"

typedef struct ByteFile ByteFile;

/* ERR_USER: missing, not a regular file, empty, damaged gzip. */
Status bytes_open(ByteFile **file, const char *path);
void bytes_close(ByteFile *file);
const char *bytes_path(const ByteFile *file);
int64_t bytes_size(const ByteFile *file); /* of the content */
bool bytes_is_gzip(const ByteFile *file);
/* All of content [offset, offset + n), which must lie inside. Any thread. */
Status bytes_read(const ByteFile *file, int64_t offset, int64_t n, void *out);
/* Name (without directories), size, both ends, and blocks spread over the file as it lies on disk.
 */
uint32_t bytes_fingerprint(const ByteFile *file);
int64_t bytes_on_disk(const ByteFile *file);

/* The content in memory, mapped where it is plain, otherwise inflated once for all processes of the
 * node. Valid until bytes_close. */
Status bytes_map(ByteFile *file, const unsigned char **data);
/* Hands back the pages of a map that was walked through once: they count as this process's memory.
 */
void bytes_map_release(const ByteFile *file);

#endif
