#include "base/log.h"

#include <stdarg.h>
#include <string.h>

#include "base/output.h"
#include "base/text.h"

static int log_rank = 0, log_world = 1;

void log_init(int rank, int world) {
    log_rank = rank;
    log_world = world;
}

/* One write per message, so that lines of several ranks do not mix. */
static void put(OutputStream to, const char *label, const char *fmt, va_list ap) {
    StrBuf line = {0};
    if (label != NULL && log_world > 1)
        strbuf_printf(&line, "cria: %s (rank %d): ", label, log_rank);
    else if (label != NULL)
        strbuf_printf(&line, "cria: %s: ", label);
    strbuf_vprintf(&line, fmt, ap);
    strbuf_append(&line, "\n", 1);
    text_make_printable(line.text, true);
    output_write(to, line.text, strlen(line.text));
    strbuf_free(&line);
}

void log_info(const char *fmt, ...) {
    if (log_rank != 0) return;
    va_list ap;
    va_start(ap, fmt);
    put(OUTPUT_STDOUT, NULL, fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    put(OUTPUT_STDERR, "warning", fmt, ap);
    va_end(ap);
}

void log_warn_once(const char *fmt, ...) {
    if (log_rank != 0) return;
    va_list ap;
    va_start(ap, fmt);
    put(OUTPUT_STDERR, "warning", fmt, ap);
    va_end(ap);
}

void log_error(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    put(OUTPUT_STDERR, "error", fmt, ap);
    va_end(ap);
}
