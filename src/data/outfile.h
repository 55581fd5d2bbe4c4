/* outfile.h: a file that is seen whole or not at all: written as NAME.tmp, renamed when complete.
 * With gzip every MiB is a member of its own, compressed on all cores, so that reading anywhere
 * needs no windows (gzip.h); the bytes do not depend on the number of cores. */
#ifndef CRIA_DATA_OUTFILE_H
#define CRIA_DATA_OUTFILE_H

#include "base/base.h"

typedef struct OutFile OutFile;

/* The first `header` bytes are zero until outfile_header. ERR_USER: the file exists (unless
 * replace), or another process is writing it; ERR_ENV: cannot be made. */
Status outfile_open(OutFile **file, const char *path, int64_t header, bool gzip, bool replace);
Status outfile_write(OutFile *file, const void *data, int64_t n);
Status outfile_header(OutFile *file, const void *data);
Status outfile_finish(OutFile *file); /* everything is on disk, under the temporary name */
Status outfile_commit(OutFile *file); /* after outfile_finish: gives it its name */
void outfile_free(OutFile *file);     /* uncommitted: deletes it */
const char *outfile_path(const OutFile *file);

#endif
