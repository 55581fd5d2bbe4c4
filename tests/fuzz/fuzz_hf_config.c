/* Hostile JSON files of a Hugging Face directory: the input is read as config.json and as an index.
 * What is accepted is written, read again and written to the same text. */
#include <stdlib.h>
#include <string.h>

#include "hf/hf.h"

static void check_config(const char *text, int64_t len) {
    StrBuf written[2] = {{0}, {0}};
    Config c;
    HfExtra extra, kept;
    Status st = hf_config_parse(&c, &extra, "fuzz", text, len);
    for (int i = 0; i < 2 && st == OK; i++) {
        const ModelConfig *m = &c.model;
        REQUIRE(m->layers > 0 && m->heads % m->kv_heads == 0 && m->head_dim % 2 == 0);
        REQUIRE(c.data.eod < m->vocab);
        StrBuf entry = {0};
        hf_extra_print(&extra, &entry);
        REQUIRE(hf_extra_parse(&kept, "entry", entry.text) == OK);
        strbuf_free(&entry);
        extra = hf_extra_resolve(&kept, &c);
        hf_config_print(&c, &extra, DT_BF16, &written[i]);
        config_free(&c);
        st = hf_config_parse(&c, &extra, "again", written[i].text, (int64_t)written[i].len);
        REQUIRE(st == OK);
    }
    config_free(&c);
    REQUIRE(st == OK || (st == ERR_USER && status_message()[0] != '\0'));
    REQUIRE(strcmp(strbuf_text(&written[0]), strbuf_text(&written[1])) == 0);
    strbuf_free(&written[0]);
    strbuf_free(&written[1]);
    status_clear();
}

static void check_index(const char *text, int64_t len) {
    HfIndex index, again;
    Status st = hf_index_parse(&index, "fuzz", text, len);
    if (st == OK) {
        StrBuf written = {0};
        hf_index_print(&index, 1, 2, &written);
        REQUIRE(hf_index_parse(&again, "again", written.text, (int64_t)written.len) == OK);
        REQUIRE(again.n_places == index.n_places);
        for (int i = 0; i < index.n_places; i++) {
            REQUIRE(strcmp(again.places[i].key, index.places[i].key) == 0);
            REQUIRE(strcmp(again.places[i].value, index.places[i].value) == 0);
            REQUIRE(strchr(index.places[i].value, '/') == NULL);
        }
        hf_index_free(&index);
        hf_index_free(&again);
        strbuf_free(&written);
    }
    REQUIRE(st == OK || (st == ERR_USER && status_message()[0] != '\0'));
    status_clear();
}

static void check_extra(const char *text, int64_t len) {
    char *copy = mem_printf("%.*s", (int)len, text);
    HfExtra extra;
    Status st = hf_extra_parse(&extra, "fuzz", copy);
    REQUIRE(st == OK || (st == ERR_USER && status_message()[0] != '\0'));
    status_clear();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_extra((const char *)data, (int64_t)size);
    check_config((const char *)data, (int64_t)size);
    check_index((const char *)data, (int64_t)size);
    return 0;
}
