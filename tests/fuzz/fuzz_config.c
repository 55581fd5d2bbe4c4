/* fuzz_config.c: any text either fails with a sentence or gives a Config that prints and reads back
 * the same. Lines after a line "===" are overrides. */
#include "config/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OVERRIDES_MAX = 8 };

static void check_printing(const Config *c) {
    Config again;
    StrBuf first = {0}, second = {0}, json = {0};
    config_print(c, &first);
    REQUIRE(config_parse(&again, "printed", first.text, first.len, 0, NULL) == OK);
    config_print(&again, &second);
    REQUIRE(strcmp(first.text, second.text) == 0);
    REQUIRE(config_hash(c) == config_hash(&again));
    config_free(&again);
    config_print_json(c, &json); /* JSON is YAML as well */
    REQUIRE(config_parse(&again, "json", json.text, json.len, 0, NULL) == OK);
    REQUIRE(config_hash(c) == config_hash(&again));
    config_free(&again);
    strbuf_free(&first);
    strbuf_free(&second);
    strbuf_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char mark[] = "\n===\n";
    char *overrides[OVERRIDES_MAX], *rest = NULL;
    int n_overrides = 0;
    const uint8_t *cut = size > 0 ? memmem(data, size, mark, sizeof mark - 1) : NULL;
    size_t len = cut != NULL ? (size_t)(cut - data) : size;
    if (cut != NULL) {
        const uint8_t *begin = cut + sizeof mark - 1;
        rest = mem_printf("%.*s", (int)(data + size - begin), (const char *)begin);
        char *state = NULL;
        for (char *p = strtok_r(rest, "\n", &state); p != NULL && n_overrides < OVERRIDES_MAX;
             p = strtok_r(NULL, "\n", &state))
            overrides[n_overrides++] = p;
    }
    Config c;
    status_clear();
    Status st = config_parse(&c, "fuzz", (const char *)data, len, n_overrides, overrides);
    if (st == OK) {
        check_printing(&c);
        for (int world = 1; world <= 6; world++) {
            bool good = config_check_world(&c, world) == OK;
            REQUIRE(good == (status_message()[0] == '\0'));
            status_clear();
        }
    } else {
        REQUIRE(st == ERR_USER && status_message()[0] != '\0');
    }
    status_clear();
    config_free(&c);
    free(rest);
    return 0;
}
