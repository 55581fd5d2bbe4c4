#include "session/guard_state.h"

#include <stdlib.h>

void guard_print(const GuardState *g, StrBuf *out) {
    strbuf_printf(out, "%lld %lld %lld", (long long)g->skipped, (long long)g->in_a_row,
                  (long long)g->seen);
    for (int64_t i = 0; i < guard_steps_kept(g); i++) strbuf_printf(out, " %.17g", g->losses[i]);
    for (int64_t i = 0; i < guard_steps_kept(g); i++) strbuf_printf(out, " %.17g", g->norms[i]);
}

Status guard_parse(GuardState *g, const char *text) {
    int64_t *const counts[] = {&g->skipped, &g->in_a_row, &g->seen};
    const char *at = text;
    char *end = NULL;
    bool valid = true;
    *g = (GuardState){0};
    for (int i = 0; i < 3 && valid; i++, at = end) {
        *counts[i] = strtoll(at, &end, 10);
        valid = end != at && *counts[i] >= 0;
    }
    for (int64_t i = 0; i < guard_steps_kept(g) && valid; i++, at = end) {
        g->losses[i] = strtod(at, &end);
        valid = end != at;
    }
    bool older = valid && *at == '\0'; /* without norms */
    for (int64_t i = 0; i < guard_steps_kept(g) && valid && !older; i++, at = end) {
        g->norms[i] = strtod(at, &end);
        valid = end != at && g->norms[i] >= 0;
    }
    if (valid && *at == '\0') return OK;
    return status_fail(ERR_USER,
                       "cria.guard is '%.60s', expected three counts and the losses and "
                       "gradient norms of the last steps",
                       text);
}
