/* Hostile tokenizer.json files: what is read encodes a text or says why not, and decodes to the
 * same text, but for a space in front of words. */
#include "text/tokenizer.h"

#include <string.h>

#include "fuzz_file.h"

static void remove_spaces(char *text) {
    char *to = text;
    for (; *text != '\0'; text++)
        if (*text != ' ') *to++ = *text;
    *to = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[] = "It's 12 <s>o \xc3\xa9\xf0\x9f\x98\x80\n\n  ab";
    Tokenizer *t;
    TokenIds list = {0};
    Status st = tokenizer_load(&t, fuzz_write("tokenizer.json", data, size));
    REQUIRE(st == OK || (t == NULL && st == ERR_USER && status_message()[0] != '\0'));
    if (st == OK) st = tokenizer_encode(t, text, (int64_t)strlen(text), false, &list);
    REQUIRE(st == OK || (st == ERR_USER && status_message()[0] != '\0'));
    if (st == OK) {
        StrBuf back = {0};
        TextStream stream = {0};
        for (int64_t i = 0; i < list.n; i++) tokenizer_decode(t, &stream, list.ids[i], &back);
        text_stream_end(&stream, &back);
        remove_spaces(back.text);
        remove_spaces(text);
        REQUIRE(strcmp(back.text, text) == 0);
        strbuf_free(&back);
    }
    status_clear();
    free(list.ids);
    tokenizer_free(t);
    return 0;
}
