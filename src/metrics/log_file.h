/* log_file.h: a file to which whole records are appended. A record that does not fit, as on a full
 * disk, leaves nothing behind: the records after it can be read. A log that cannot be written is no
 * reason to stop a run. */
#ifndef CRIA_METRICS_LOG_FILE_H
#define CRIA_METRICS_LOG_FILE_H

#include <sys/types.h>

#include "base/base.h"

typedef struct {
    int fd;
    char *path;
    off_t end;   /* behind the last whole record; -1: a stream, such as a FIFO */
    bool failed; /* the last record could not be written */
} LogFile;

/* Appends to what is there. ERR_ENV if it cannot be opened. */
Status log_file_open(LogFile *f, const char *path);
/* Warns when records begin to be missing. */
void log_file_append(LogFile *f, const void *record, size_t n);
void log_file_close(LogFile *f);

#endif
