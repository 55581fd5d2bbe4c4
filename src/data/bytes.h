/* bytes.h: the content of one file at any offset, plain or gzip (told by its first bytes). Files
 * are read with pread and not mapped: a file cut short under a run, or a disk that fails, is then
 * an error with a message instead of a SIGBUS, and a copy of 16 KiB costs less than four page
 * faults. */
#ifndef CRIA_DATA_BYTES_H
#define CRIA_DATA_BYTES_H

#include "base/base.h"

typedef struct ByteFile ByteFile;

/* Opens the file and reads its first bytes; reading more of gzip needs bytes_index. The content is
 * taken as it is, not as gzip, if the file begins like gzip without being it, is not named *.gz,
 * and `raw` says that it may begin with any bytes. ERR_USER: missing, not a regular file, empty. */
Status bytes_open(ByteFile **file, const char *path, bool raw);
/* Of gzip: finds, or makes, the index that allows reading anywhere; checks all of the file when it
 * makes it. Must come before bytes_size and bytes_read. ERR_USER: damaged gzip. */
Status bytes_index(ByteFile *file);
void bytes_close(ByteFile *file);

const char *bytes_path(const ByteFile *file);
bool bytes_is_gzip(const ByteFile *file);
/* The first *n bytes of the content: all of it, or BYTES_HEAD; fewer of damaged gzip. */
enum { BYTES_HEAD = 8192 };
const unsigned char *bytes_head(const ByteFile *file, int64_t *n);
int64_t bytes_size(const ByteFile *file); /* of the content */
/* All of content [offset, offset + n), which must lie inside. Any thread. */
Status bytes_read(const ByteFile *file, int64_t offset, int64_t n, void *out);

/* Name (without directories), size, both ends, and blocks spread over the file as it lies on disk.
 */
uint32_t bytes_fingerprint(const ByteFile *file);
int64_t bytes_on_disk(const ByteFile *file);
/* Has the file been modified since it was opened, by its size and time? False if nobody can tell.
 */
bool bytes_modified(const ByteFile *file);
/* Appends what tells these contents from any others on this node: the file's device, number, size,
 * time of change and fingerprint. */
void bytes_identify(const ByteFile *file, StrBuf *out);

#endif
