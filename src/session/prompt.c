#include "session/prompt.h"

#include <stdlib.h>
#include <string.h>

static Status parse_ids(const char *text, TokenIds *out) {
    for (const char *at = text + strspn(text, " ,"); *at != '\0'; at += strspn(at, " ,")) {
        char *end;
        long long id = strtoll(at, &end, 10);
        if (end == at || id < 0 || id > INT32_MAX)
            return status_fail(ERR_USER, "the prompt is '%s', expected token ids as in '1 2 3'",
                               text);
        token_ids_append(out, (int32_t)id);
        at = end;
    }
    return OK;
}

Status prompt_read(const Tokenizer *t, const char *text, int64_t start, int vocab, TokenIds *out) {
    CHECK(t == NULL ? parse_ids(text, out)
                    : tokenizer_encode(t, text, (int64_t)strlen(text), true, out));
    if (out->n == 0 && start < 0)
        return status_fail(ERR_USER, "the prompt is empty, and the model has no token that begins "
                                     "or ends a text");
    if (out->n == 0) token_ids_append(out, (int32_t)start);
    for (int64_t i = 0; i < out->n; i++)
        if (out->ids[i] >= vocab)
            return status_fail(ERR_USER,
                               "the prompt has the token id %d, but the model has %d ids: is the "
                               "tokenizer of another model?",
                               out->ids[i], vocab);
    return OK;
}
