/* file.h: what several modules need of files: opening for reading, whole transfers at byte offsets
 * with the CRC-32 of what was moved, files that are replaced whole, and shared memory. Transfers
 * return 0, an errno value, or FILE_ENDS, so that threads can use them; the caller words the
 * message. */
#ifndef CRIA_BASE_FILE_H
#define CRIA_BASE_FILE_H

#include "base/base.h"

#define FILE_ENDS (-1) /* the file is shorter than offset + n */

/* ERR_USER when an open() that failed with this errno was given a path that is wrong (missing, a
 * folder, not permitted), ERR_ENV when the machine failed and another try may succeed (EIO, ESTALE,
 * EMFILE, ...). */
Status file_open_status(int error);
/* The same of a file or folder that could not be created. EACCES and EROFS are ERR_ENV: the path is
 * right, the file system does not take it now. */
Status file_create_status(int error);
/* Opens a regular file for reading; anything else, such as a FIFO, is ERR_USER. */
Status file_open(const char *path, int *fd);

/* Appends the content of a regular file, or of an anonymous pipe such as <(command), to *text.
 * `what` says in messages what it should be: "this config". A FIFO is refused, as reading one can
 * wait for ever. ERR_USER also for more than `limit` bytes. */
Status file_read_all(StrBuf *text, const char *path, const char *what, int64_t limit);

/* What `git clone` leaves in place of a large file where Git LFS is not installed, by its first
 * bytes; file_lfs_fail is the ERR_USER that says what to do. */
bool file_is_lfs_pointer(const char *bytes, int64_t n);
Status file_lfs_fail(const char *path);

/* One read: up to n bytes, 0 at the end of the file, -1 with errno. */
int64_t file_read_some(int fd, void *dst, int64_t n, int64_t offset);
int file_read_at(int fd, void *dst, int64_t n, int64_t offset);
int file_write_at(int fd, const void *src, int64_t n, int64_t offset);

/* The same for ranges of any size, in blocks spread over OpenMP threads; *crc is zlib's CRC-32. dst
 * NULL: the bytes are not kept. */
int file_read_crc(int fd, void *dst, int64_t n, int64_t offset, uint32_t *crc);
int file_write_crc(int fd, const void *src, int64_t n, int64_t offset, uint32_t *crc);

/* Makes `path` a file of these bytes, on disk when it returns. Writes PATH.tmp, which it does not
 * follow where it is a link, and renames it: a crash or a full disk leaves the earlier file.
 * Returns 0 or errno. */
int file_write_atomic(const char *path, const void *bytes, int64_t n);
/* The end of such a write, where the caller has written `tmp` through fd: syncs and closes it, and
 * gives it its name. Where `error` is not 0, or something fails, deletes it. Returns 0 or errno. */
int file_commit(int fd, const char *tmp, const char *path, int error);

/* Writes a text to any path, /dev/stdout included. `what` names it in messages. ERR_USER when the
 * path is wrong. */
Status file_write_text(const char *path, const StrBuf *text, const char *what);

const char *file_error(int error);
const char *file_name(const char *path); /* behind its last '/' */
char *file_parent(const char *path);     /* its directory; "." when it names none */
int file_sync_parent(const char *path);  /* makes a rename or unlink in that directory durable */

/* Memory of a file that all processes that map it have in common. `reserve`: takes its blocks
 * first, so that a full disk is an error here and not a signal at a later write. Returns 0 or
 * errno. */
int file_map_shared(int fd, int64_t bytes, bool reserve, void **memory);

/* What tells this start of the machine from any other; "" where the kernel does not say. */
enum { BOOT_ID_SIZE = 37 };
void file_boot_id(char id[BOOT_ID_SIZE]);

#endif
