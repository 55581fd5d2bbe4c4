#include "log.h"

#include <stdarg.h>
#include <stdio.h>

static int log_rank = 0, log_world = 1;

void log_init(int rank, int world) {
    log_rank = rank;
    log_world = world;
}

/* One write per message, so that lines of several ranks do not mix. */
static void put(FILE *to, const char *label, const char *fmt, va_list ap) {
    char line[16384];
    int n = 0;
    if (label != NULL && log_world > 1)
        n = snprintf(line, sizeof line, "cria: %s (rank %d): ", label, log_rank);
    else if (label != NULL)
        n = snprintf(line, sizeof line, "cria: %s: ", label);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    fprintf(to, "%s\n", line);
    fflush(to);
}

void log_info(const char *fmt, ...) {
    if (log_rank != 0) return;
    va_list ap;
    va_start(ap, fmt);
    put(stdout, NULL, fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    put(stderr, "warning", fmt, ap);
    va_end(ap);
}

void log_error(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    put(stderr, "error", fmt, ap);
    va_end(ap);
}
