/* yaml_sources.c: the values of data.train and data.val. */
#include "config/yaml_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static void add_source(DataSource **list, int *count) {
    *list = mem_grow(*list, *count + 1, sizeof **list);
    (*list)[(*count)++] = (DataSource){.path = mem_strdup("")};
}

static bool read_path(YamlText *s, const ConfigKey *k, DataSource *source) {
    double n = yaml_is(s, YAML_SCALAR_EVENT) ? (double)yaml_length(s) : 0;
    if (n < k->min || n > k->max || yaml_is_null(s) ||
        !text_is_printable(yaml_text(s), yaml_length(s))) {
        yaml_refuse(s, yaml_line(s), k->name, "the path of a token file");
        return false;
    }
    free(source->path);
    source->path = mem_strdup(yaml_text(s));
    yaml_advance(s);
    return true;
}

static bool read_weight(YamlText *s, const ConfigKey *k, DataSource *source) {
    if (!yaml_is(s, YAML_SCALAR_EVENT) || yaml_is_quoted(s) ||
        !config_number_parse(yaml_text(s), yaml_length(s), &source->weight) ||
        source->weight <= 0) {
        yaml_refuse(s, yaml_line(s), k->name, "a weight above 0");
        return false;
    }
    yaml_advance(s);
    return true;
}

/* {path: P, weight: W} */
static bool read_weighted(YamlText *s, const ConfigKey *k, DataSource *source) {
    bool valid = true, has_path = false, has_weight = false;
    int line = yaml_line(s);
    for (yaml_advance(s); !s->broken && !yaml_is(s, YAML_MAPPING_END_EVENT);) {
        const char *word = yaml_is(s, YAML_SCALAR_EVENT) ? yaml_name(s) : "";
        bool path = strcmp(word, "path") == 0, weight = strcmp(word, "weight") == 0;
        if ((!path && !weight) || (path && has_path) || (weight && has_weight)) {
            yaml_refuse(s, yaml_line(s), k->name, "path and weight, once each");
            yaml_skip(s);
            valid = false;
            continue;
        }
        has_path |= path;
        has_weight |= weight;
        yaml_advance(s);
        valid &= path ? read_path(s, k, source) : read_weight(s, k, source);
    }
    if (valid && !has_path && !s->broken) {
        problem_in(s, line, "%s: found a file without a path, expected {path, weight}", k->name);
        valid = false;
    }
    yaml_advance(s);
    return valid && !s->broken;
}

/* A path, or a list of paths and {path, weight}: added to the field. */
static bool read_files(YamlText *s, const ConfigKey *k, Config *c) {
    DataSource **list = config_key_field(k, c);
    int *count = config_key_count(k, c);
    if (yaml_is(s, YAML_MAPPING_START_EVENT)) {
        yaml_refuse(s, yaml_line(s), k->name,
                    "a path, a list of paths, or a list of {path, weight}");
        return false;
    }
    if (!yaml_is(s, YAML_SEQUENCE_START_EVENT)) {
        add_source(list, count);
        return read_path(s, k, &(*list)[*count - 1]);
    }
    bool valid = true;
    for (yaml_advance(s); !s->broken && !yaml_is(s, YAML_SEQUENCE_END_EVENT);) {
        add_source(list, count);
        DataSource *source = &(*list)[*count - 1];
        valid &= yaml_is(s, YAML_MAPPING_START_EVENT) ? read_weighted(s, k, source)
                                                      : read_path(s, k, source);
    }
    yaml_advance(s);
    return valid && !s->broken;
}

/* A word of a file that should be in a list. */
static bool is_of_a_file(const char *name) {
    return strcmp(name, "path") == 0 || strcmp(name, "weight") == 0;
}

/* Names go into logs. */
static bool is_set_name(const char *name) {
    enum { LONGEST = 32 };
    size_t n = strlen(name);
    return n >= 1 && n <= LONGEST && !is_of_a_file(name) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

/* A set's files, at the event of its name. */
static bool read_set(YamlText *s, const ConfigKey *k, Config *c) {
    DataSource **list = config_key_field(k, c);
    int *count = config_key_count(k, c), first = *count, line = yaml_line(s);
    char *name = mem_strdup(yaml_is(s, YAML_SCALAR_EVENT) ? yaml_name(s) : "");
    bool valid = is_set_name(name), twice = false;
    for (int i = 0; i < first; i++) twice |= strcmp((*list)[i].set, name) == 0;
    if (!valid) {
        yaml_refuse(s, line, k->name,
                    is_of_a_file(name) ? "the name of a set; files with weights are a list, "
                                         "[{path: FILE, weight: W}, ...]"
                                       : "the name of a set: 1 to 32 letters, digits, _ or -");
        yaml_skip(s);
    } else {
        if (twice)
            problem_in(s, line, "%s: found the set %s twice, expected each name once", k->name,
                       name);
        yaml_advance(s);
        bool none = yaml_is_empty(s);
        if (none)
            yaml_skip(s);
        else
            valid = read_files(s, k, c);
        if (valid && !s->broken && *count == first)
            problem_in(s, line, "%s: found no file in the set %s, expected one or more", k->name,
                       name);
        valid = valid && !twice && *count > first;
    }
    for (int i = first; i < *count; i++) (*list)[i].set = mem_strdup(name);
    free(name);
    return valid;
}

/* As read_files(), or {NAME: files, ...} where the key takes sets. */
bool yaml_read_sources(YamlText *s, const ConfigKey *k, Config *c) {
    config_value_free(k, c);
    if (!yaml_is(s, YAML_MAPPING_START_EVENT)) return read_files(s, k, c);
    bool valid = true;
    for (yaml_advance(s); !s->broken && !yaml_is(s, YAML_MAPPING_END_EVENT);)
        valid &= read_set(s, k, c);
    yaml_advance(s);
    return valid && !s->broken;
}
