/* Hostile tokenizers: the input as each of the files that tokenizer_config.json is made of. What is
 * written is JSON. */
#include "hf/hf.h"

#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    const HfExtra extra = {.max_positions = 8, .bos = 1, .pad = 2, .eos = {0}, .n_eos = 1};
    for (int i = 0; i < 3; i++) {
        StrBuf text = {0};
        Status st = hf_tokenizer_config(fuzz_write(names[i], data, size), &extra, 4, &text);
        REQUIRE(st == OK || (st == ERR_USER && status_message()[0] != '\0'));
        status_clear();
        Json j;
        json_start(&j, strbuf_text(&text), (int64_t)text.len);
        if (text.len > 0) json_skip(&j), json_end(&j);
        REQUIRE(j.error == NULL && (st == OK || text.len == 0));
        strbuf_free(&text);
    }
    return 0;
}
