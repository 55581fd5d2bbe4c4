/* file.h: whole transfers at byte offsets, with the CRC-32 of what was moved. They return 0, an
 * errno value, or FILE_ENDS, so that threads can use them; the caller words the sentence. */
#ifndef CRIA_CKPT_FILE_H
#define CRIA_CKPT_FILE_H

#include "base.h"

#define FILE_ENDS (-1) /* the file is shorter than offset + n */

int file_read_at(int fd, void *dst, int64_t n, int64_t offset);
int file_write_at(int fd, const void *src, int64_t n, int64_t offset);

/* The same for ranges of any size, in blocks spread over OpenMP threads; *crc is zlib's CRC-32. */
int file_read_crc(int fd, int64_t n, int64_t offset, uint32_t *crc);
int file_write_crc(int fd, const void *src, int64_t n, int64_t offset, uint32_t *crc);

const char *file_error(int error);
char *file_parent(const char *path);    /* its directory; "." when it names none */
int file_sync_parent(const char *path); /* makes a rename or unlink in that directory durable */

#endif
