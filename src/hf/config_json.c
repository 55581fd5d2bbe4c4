/* config_json.c: config.json of a Hugging Face directory as a configuration. */
#include "hf/hf.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "hf/fields.h"

/* What an import trains on is for a configuration to say. */
#define NO_DATA "imported"

typedef struct {
    const char *name; /* of the file, for messages */
    Json j;
    char *values[HF_FIELDS]; /* as in the text; NULL: missing or null */
    char *rope_type;
    HfExtra extra;
    bool is_llama; /* a model_type was seen, and so was found right */
} Reader;

/* The text of the next value. */
static char *take_text(Json *j) {
    json_peek(j); /* passes over white space */
    int64_t begin = j->pos;
    json_skip(j);
    return mem_printf("%.*s", (int)(j->pos - begin), j->text + begin);
}

/* Index of the field in [begin, end), or -1. */
static int find_field(const char *name, int begin, int end) {
    for (int i = begin; i < end; i++)
        if (strcmp(hf_fields[i].name, name) == 0) return i;
    return -1;
}

static Status read_field(Reader *r, int i) {
    char kind = json_peek(&r->j), *text = take_text(&r->j);
    Status st = OK;
    if (r->j.error != NULL ||
        kind == 'n') { /* the caller words errors; null is as good as missing */
        free(text);
    } else if (strchr("\"{[", kind) != NULL) {
        st = status_fail(ERR_USER, "%s: %s is %.60s, expected a number or a flag", r->name,
                         hf_fields[i].name, text);
        free(text);
    } else if (r->values[i] != NULL && strcmp(r->values[i], text) != 0) {
        st = status_fail(ERR_USER, "%s: %s is given twice, as %s and %s", r->name,
                         hf_fields[i].name, r->values[i], text);
        free(text);
    } else {
        free(r->values[i]);
        r->values[i] = text;
    }
    return st;
}

/* The number 1 may be written as 1 or 1.0. */
static bool is_value(const char *text, const char *value) {
    char *end[2];
    if (value == NULL) return false;
    if (strcmp(text, value) == 0) return true;
    double x = strtod(text, &end[0]), y = strtod(value, &end[1]);
    return end[0] > text && *end[0] == '\0' && end[1] > value && *end[1] == '\0' && x == y;
}

static Status read_fact(Reader *r, int i) {
    char *text = take_text(&r->j);
    Status st = OK;
    if (r->j.error == NULL && strcmp(text, "null") != 0 && !is_value(text, hf_facts[i].value) &&
        !is_value(text, hf_facts[i].same))
        st = status_fail(ERR_USER, "%s: %s is %.60s, but cria computes models with %s only",
                         r->name, hf_facts[i].name, text, hf_facts[i].value);
    else if (i == HF_MODEL_TYPE)
        r->is_llama = strcmp(text, hf_facts[i].value) == 0;
    free(text);
    return st;
}

/* rope_scaling (transformers 4) or rope_parameters (5), which holds rope_theta too. */
static Status read_rope(Reader *r, const char *name) {
    Status st = OK;
    char *key;
    if (json_peek(&r->j) == 'n') {
        json_skip(&r->j);
        return OK;
    }
    for (json_object(&r->j); st == OK && json_object_next(&r->j, &key); free(key)) {
        int i = find_field(key, HF_ROPE_THETA, HF_FIELDS);
        if (i >= 0) {
            st = read_field(r, i);
        } else if (strcmp(key, hf_facts[HF_PARTIAL_ROTARY].name) == 0) {
            st = read_fact(r, HF_PARTIAL_ROTARY);
        } else if (strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0) {
            free(r->rope_type); /* older files have both, saying the same */
            r->rope_type = json_string(&r->j);
        } else {
            st = status_fail(ERR_USER,
                             "%s: %s holds %.60s, which is not part of RoPE as cria "
                             "computes it (rope_type default or llama3)",
                             r->name, name, key);
        }
    }
    return st;
}

static Status read_architectures(Reader *r) {
    bool found = false;
    if (json_peek(&r->j) == 'n') {
        json_skip(&r->j);
        return OK;
    }
    for (json_array(&r->j); json_array_next(&r->j);) {
        char *text = json_string(&r->j);
        found |= text != NULL && strcmp(text, HF_ARCHITECTURE) == 0;
        free(text);
    }
    if (found || r->j.error != NULL) return OK;
    return status_fail(ERR_USER,
                       "%s: architectures has no " HF_ARCHITECTURE ", which is what cria trains",
                       r->name);
}

/* One entry of config.json. Those that change nothing in training (use_cache) are passed over. */
static Status read_entry(Reader *r, const char *key) {
    int i = find_field(key, 0, HF_SCALING);
    if (i >= 0) return read_field(r, i);
    for (i = 0; i < HF_FACTS; i++)
        if (strcmp(key, hf_facts[i].name) == 0) return read_fact(r, i);
    if (strcmp(key, "rope_scaling") == 0 || strcmp(key, "rope_parameters") == 0)
        return read_rope(r, key);
    if (strcmp(key, "architectures") == 0) return read_architectures(r);
    if (!hf_extra_read(&r->extra, key, &r->j)) json_skip(&r->j);
    return OK;
}

/* Is RoPE scaled? A partial rope_scaling is an error. */
static Status check_scaling(const Reader *r, bool *scaled) {
    const char *type = r->rope_type != NULL ? r->rope_type : "default";
    *scaled = strcmp(type, "llama3") == 0;
    if (!*scaled && strcmp(type, "default") != 0)
        return status_fail(ERR_USER, "%s: rope_type is '%.60s', cria knows default and llama3",
                           r->name, type);
    for (int i = HF_SCALING; i < HF_FIELDS; i++)
        if ((r->values[i] != NULL) != *scaled)
            return status_fail(ERR_USER, "%s: rope_type is %s, %s a field %s", r->name, type,
                               *scaled ? "so it needs" : "but there is", hf_fields[i].name);
    return OK;
}

/* The same as text that config_parse reads, which checks every bound. */
static Status translate(const Reader *r, StrBuf *yaml) {
    bool scaled;
    CHECK(check_scaling(r, &scaled));
    int64_t eos = r->extra.n_eos > 0 ? r->extra.eos[0] : -1;
    strbuf_printf(yaml, "data: {train: " NO_DATA ", eod: %lld}\nmodel:\n", (long long)eos);
    for (int i = 0; i < (scaled ? HF_FIELDS : HF_SCALING); i++) {
        const char *value = r->values[i] != NULL ? r->values[i] : hf_fields[i].otherwise;
        if (value != NULL && value[0] == '\0') value = r->values[HF_HEADS];
        if (value == NULL)
            return status_fail(ERR_USER, "%s: it has no %s", r->name, hf_fields[i].name);
        if (i == HF_SCALING) strbuf_printf(yaml, "  rope_scaling:\n");
        strbuf_printf(yaml, "%s%s: %s\n", i < HF_SCALING ? "  " : "    ", hf_fields[i].key, value);
    }
    return OK;
}

static Status read_config(Reader *r, StrBuf *yaml) {
    Status st = OK;
    char *key;
    for (json_object(&r->j); st == OK && json_object_next(&r->j, &key); free(key))
        st = read_entry(r, key);
    CHECK(st);
    json_end(&r->j);
    if (r->j.error != NULL)
        return status_fail(ERR_USER, "%s: not the configuration of a model: %s at byte %lld",
                           r->name, r->j.error, (long long)r->j.pos);
    if (!r->is_llama)
        return status_fail(ERR_USER, "%s: it has no model_type, expected \"llama\"", r->name);
    return translate(r, yaml);
}

Status hf_config_parse(Config *out, HfExtra *extra, const char *name, const char *text,
                       int64_t len) {
    Reader r = {.name = name, .extra = {.bos = -1, .pad = -1}};
    StrBuf yaml = {0};
    *out = (Config){0};
    json_start(&r.j, text, len);
    Status st = read_config(&r, &yaml);
    if (st == OK) {
        char *made = mem_printf("the configuration made of %s", name);
        st = config_parse(out, made, strbuf_text(&yaml), yaml.len, 0, NULL);
        free(made);
    }
    *extra = r.extra;
    extra->max_positions = out->model.seq_len;
    hf_extra_limit(extra, out->model.vocab);
    for (int i = 0; i < HF_FIELDS; i++) free(r.values[i]);
    free(r.rope_type);
    strbuf_free(&yaml);
    return st;
}
