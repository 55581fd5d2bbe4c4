/* output.h: the two streams that this process prints to. Nothing else in src/ writes to them.
 *
 * cria keeps its stdout apart from file descriptor 1, which MPI, UCX and NCCL may write to: what
 * libraries print goes to stderr and never into JSON or YAML on stdout.
 *
 * By default a write waits for its reader, and a failure is remembered for output_finish(). During
 * training nothing may wait for a reader: a line that cannot be written at once is left out. */
#ifndef CRIA_BASE_OUTPUT_H
#define CRIA_BASE_OUTPUT_H

#include "base/base.h"

typedef enum { OUTPUT_STDOUT, OUTPUT_STDERR } OutputStream;

/* Call first in main. Closed standard streams are opened as /dev/null, so that no other file gets
 * their numbers. Without this call stdout is file descriptor 1. */
void output_open(void);

/* From here on a text that would block is left out. The first time a warning goes to stderr; when
 * stdout takes texts again, a line there says how many lines are missing. SIGPIPE is ignored. */
void output_never_block(void);

/* Each text is written by one call where the stream allows. Any thread. */
void output_print(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* to stdout */
void output_write(OutputStream to, const char *text, size_t n);

/* Whether stdout is a terminal; of a rank, whether that of mpirun on this host is, which passes
 * stdout on. */
bool output_is_terminal(void);
int output_descriptor(void); /* of stdout; -1: closed */

/* A last message to stderr: takes no lock, no memory, and never blocks. For signal handlers, and
 * for threads that must not wait for others. */
void output_write_urgent(const char *text);

/* Closes stdout. ERR_ENV if something printed did not get there, unless output_never_block()
 * allowed it; without a message where the reader has gone away, as in `cria config | head`. */
Status output_finish(void);

#endif
