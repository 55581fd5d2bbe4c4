/* log.h: words for people. info goes to stdout from rank 0 only; warnings and errors go to stderr
 * with a rank prefix. Numbers for machines go through sinks (metrics/sink.h). */
#ifndef CRIA_BASE_LOG_H
#define CRIA_BASE_LOG_H

void log_init(int rank, int world);
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* rank 0 */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* any rank */
/* From rank 0 alone: of what every rank finds. */
void log_warn_once(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* any rank */

#endif
