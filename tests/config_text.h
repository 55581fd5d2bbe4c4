/* config_text.h: the least that is a configuration, for tests to add to. */
#ifndef CRIA_CONFIG_TEXT_H
#define CRIA_CONFIG_TEXT_H

#include "config/config.h"

/* What follows it in a case begins at line 12, still inside `data`. */
#define LEAST                                                                                      \
    "model:\n"                                                                                     \
    "  layers: 2\n"                                                                                \
    "  hidden: 64\n"                                                                               \
    "  heads: 4\n"                                                                                 \
    "  kv_heads: 2\n"                                                                              \
    "  ffn: 128\n"                                                                                 \
    "  vocab: 256\n"                                                                               \
    "  seq_len: 32\n"                                                                              \
    "data:\n"                                                                                      \
    "  train: a.bin\n"                                                                             \
    "# ---\n"

static inline Status parse(Config *c, const char *text) {
    return config_parse(c, "t.yaml", text, strlen(text), 0, NULL);
}

static inline Status parse_with(Config *c, const char *text, char *override) {
    return config_parse(c, "t.yaml", text, strlen(text), override != NULL ? 1 : 0, &override);
}

#endif
