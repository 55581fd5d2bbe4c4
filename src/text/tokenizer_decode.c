#include "text/tokenizer_data.h"

#include <string.h>

#include "base/text.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Can more bytes make a character of these? Some of 0x80 or of 0xbf do if any do. */
static bool begins_character(const char *bytes, int n) {
    char low[4] = {0}, high[4] = {0};
    memset(low, 0x80, sizeof low);
    memset(high, 0xbf, sizeof high);
    memcpy(low, bytes, (size_t)n);
    memcpy(high, bytes, (size_t)n);
    return (int)utf8_length(low, 4) > n || (int)utf8_length(high, 4) > n;
}

static void drop(TextStream *s, int n) {
    s->n_held -= n;
    memmove(s->held, s->held + n, (size_t)s->n_held);
}

/* Unicode 15, section 3.9, "maximal subparts": what could have begun a character is one U+FFFD. */
static void decode_byte(TextStream *s, char byte, StrBuf *out) {
    s->held[s->n_held++] = byte;
    while (s->n_held > 0 && !(s->n_held < 4 && begins_character(s->held, s->n_held))) {
        int n = (int)utf8_length(s->held, (size_t)s->n_held);
        if (n > 0) {
            strbuf_append(out, s->held, (size_t)n);
            drop(s, n);
        } else {
            strbuf_append(out, replacement, 3);
            drop(s, s->n_held > 1 ? s->n_held - 1 : 1);
        }
    }
}

void tokenizer_decode(const Tokenizer *t, TextStream *stream, int32_t id, StrBuf *out) {
    const Token *token = id >= 0 && id < t->n_tokens ? &t->tokens[id] : NULL;
    if (token == NULL || token->bytes == NULL) {
        text_stream_end(stream, out);
        strbuf_append(out, replacement, 3);
        return;
    }
    for (int64_t i = 0; i < token->n; i++) decode_byte(stream, token->bytes[i], out);
}

int64_t tokenizer_bytes(const Tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n_tokens && !t->tokens[id].special ? t->tokens[id].n : 0;
}

void text_stream_end(TextStream *stream, StrBuf *out) {
    if (stream->n_held > 0) strbuf_append(out, replacement, 3);
    stream->n_held = 0;
}
