/* Arbitrary texts as what a checkpoint's entries say of a run: the first line is cria.step, the
 * second cria.tokens, the rest cria.guard. What is accepted can be continued from, and printed and
 * read says the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session/train_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const TrainState *s) {
    const GuardState *g = &s->guard;
    TrainState again;
    StrBuf first = {0}, second = {0};
    REQUIRE(s->step >= 0 && s->tokens >= 0 && isfinite(s->tokens));
    REQUIRE(g->seen >= 0 && g->in_a_row >= 0 && g->skipped >= g->in_a_row);
    REQUIRE(s->step - g->skipped >= g->seen);
    char *step = mem_printf("%lld", (long long)s->step), *tokens = mem_printf("%.0f", s->tokens);
    guard_print(g, &first);
    REQUIRE(state_parse(&again, step, tokens, first.text) == OK);
    guard_print(&again.guard, &second);
    REQUIRE(again.step == s->step && fabs(again.tokens - s->tokens) <= 0.5);
    REQUIRE(strcmp(first.text, second.text) == 0);
    free(step);
    free(tokens);
    strbuf_free(&first);
    strbuf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = mem_printf("%.*s", (int)size, size > 0 ? (const char *)data : "");
    char *rest = text, *step = strsep(&rest, "\n"), *tokens = strsep(&rest, "\n");
    TrainState s;
    if (state_parse(&s, step, tokens != NULL ? tokens : "0", rest) == OK)
        check(&s);
    else
        REQUIRE(strncmp(status_message(), "cria.", 5) == 0);
    status_clear();
    free(text);
    return 0;
}
