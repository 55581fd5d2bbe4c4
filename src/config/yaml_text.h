/* yaml_text.h: a YAML text as libyaml's events, for those who read values of it. Private to
 * config/yaml*.c. Functions that read a value leave behind it; problems go to the reader's list. */
#ifndef CRIA_CONFIG_YAML_TEXT_H
#define CRIA_CONFIG_YAML_TEXT_H

#include <yaml.h>

#include "config/keys.h"

/* A text being read: the file, or the value of one override. */
typedef struct {
    ConfigReader *r;
    const char *override; /* NULL: the file */
    const char *text;     /* what libyaml reads, to find the line of a byte */
    size_t len;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; the functions below consume what they handle */
    size_t end;         /* character behind the last event that has a text */
    int depth;          /* lists and mappings that are open */
    StageItem *item;    /* of `stages`, whose keys are being read; NULL: none */
    bool broken;        /* not YAML: nothing further can be read */
} YamlText;

/* A problem at a line of the source (or in the override that it is). */
#define problem_in(s, line, ...) config_problem_in((s)->r, (s)->override, line, __VA_ARGS__)

int yaml_line(const YamlText *s);
bool yaml_is(const YamlText *s, yaml_event_type_t type);
void yaml_advance(YamlText *s);
/* Passes over one value of any shape. */
void yaml_skip(YamlText *s);

/* Of a scalar. */
const char *yaml_text(const YamlText *s);
size_t yaml_length(const YamlText *s);
const char *yaml_name(const YamlText *s); /* as the name of a key, which ends at its first NUL */
bool yaml_is_quoted(const YamlText *s);
bool yaml_is_null(const YamlText *s);
bool yaml_is_empty(const YamlText *s);

/* Reports the current value and passes over it: "KEY: found 'x', expected EXPECTED". */
void yaml_refuse(YamlText *s, int line, const char *key, const char *expected);

/* The value of a key of token files into r->config; false when it is not one. */
bool yaml_read_sources(YamlText *s, const ConfigKey *k, Config *c);
/* Keys and sections up to the end of a mapping, below `section` ("" at the top). */
void yaml_read_section(YamlText *s, const char *section);
/* The list of `stages`, likewise. */
bool yaml_read_stages(YamlText *s, Config *c);
/* `from` or `from_tokens` of an item of it, at the event of its value; false: `name` is neither. */
bool yaml_read_begin(YamlText *s, const char *name, int line);

#endif
