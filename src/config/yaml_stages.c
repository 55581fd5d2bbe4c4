/* yaml_stages.c: the value of `stages`: a list of {from: STEP or from_tokens: TOKENS, and keys}. */
#include "config/yaml_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char FROM[] = "from", FROM_TOKENS[] = "from_tokens";

bool yaml_read_begin(YamlText *s, const char *name, int line) {
    StageItem *item = s->item;
    bool steps = strcmp(name, FROM) == 0;
    double value;
    if (!steps && strcmp(name, FROM_TOKENS) != 0) return false;
    if (item->from != 0 || item->from_tokens != 0) {
        problem_in(s, line, "%s: found a second begin, expected from or from_tokens, once", name);
        yaml_skip(s);
    } else if (!yaml_is(s, YAML_SCALAR_EVENT) || yaml_is_quoted(s) ||
               !config_number_parse(yaml_text(s), yaml_length(s), &value) || value < 1 ||
               value > CONFIG_EXACT_MAX || value != floor(value)) {
        item->from = -1; /* it has been reported */
        yaml_refuse(s, line, name,
                    steps ? "a number of steps from 1 on: the first stage is the file's own keys"
                          : "a number of tokens from 1 on");
    } else {
        *(steps ? &item->from : &item->from_tokens) = (int64_t)value;
        yaml_advance(s);
    }
    return true;
}

/* At the beginning of its mapping. */
static void read_item(YamlText *s, Config *c, int i) {
    ConfigReader *outer = s->r;
    StageItem *item = &c->stages[i];
    char *name = config_item_name(i);
    *item = (StageItem){.line = s->override == NULL ? yaml_line(s) : 0, .values = NEW(Config, 1)};
    ConfigReader inner = {.config = item->values,
                          .name = outer->name,
                          .stage = name,
                          .problems = outer->problems,
                          .n_problems = outer->n_problems};
    int line = yaml_line(s);
    s->r = &inner;
    s->item = item;
    yaml_read_section(s, "");
    item->keys = NEW(int, config_n_keys);
    for (int k = 0; k < config_n_keys; k++)
        if (inner.origin[k].valid) item->keys[item->n_keys++] = k;
    if (item->from == 0 && item->from_tokens == 0 && !s->broken)
        problem_in(s, line,
                   "found neither from nor from_tokens, expected the step or token at "
                   "which the stage begins");
    else if (item->n_keys == 0 && inner.n_problems == outer->n_problems)
        problem_in(s, line, "found no key, expected those that change");
    s->item = NULL;
    s->r = outer;
    outer->problems = inner.problems;
    outer->n_problems = inner.n_problems;
    free(name);
}

bool yaml_read_stages(YamlText *s, Config *c) {
    config_value_free(config_key_find("stages"), c);
    if (yaml_is_empty(s)) {
        yaml_skip(s);
        return true;
    }
    int problems = s->r->n_problems;
    for (yaml_advance(s); !s->broken && !yaml_is(s, YAML_SEQUENCE_END_EVENT);) {
        if (!yaml_is(s, YAML_MAPPING_START_EVENT)) {
            yaml_refuse(s, yaml_line(s), "stages",
                        "{from: STEP or from_tokens: TOKENS, KEY: VALUE, ...}");
            continue;
        }
        c->stages = mem_grow(c->stages, c->n_stages + 1, sizeof *c->stages);
        c->n_stages++; /* before it is read: it is freed with the rest */
        read_item(s, c, c->n_stages - 1);
    }
    yaml_advance(s);
    return s->r->n_problems == problems && !s->broken;
}
