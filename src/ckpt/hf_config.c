/* hf_config.c: the JSON files of a Hugging Face directory, both ways. */
#include "ckpt/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

/* What an import trains on is for a configuration to say. */
#define NO_DATA "imported"

/* ---- reading config.json --------------------------------------------------------------------- */

/* Numbers and flags, under which keys of `model`, and what LlamaConfig takes when they are missing
 * or null. Those of a required field are the dimensions, which nobody leaves to a default. */
static const struct {
    const char *name, *key, *otherwise; /* NULL: required */
} fields[] = {{"num_hidden_layers", "layers", NULL},
              {"hidden_size", "hidden", NULL},
              {"num_attention_heads", "heads", NULL},
              {"num_key_value_heads", "kv_heads", ""}, /* "": as many as heads */
              {"head_dim", "head_dim", "0"},
              {"intermediate_size", "ffn", NULL},
              {"vocab_size", "vocab", NULL},
              {"max_position_embeddings", "seq_len", "2048"},
              {"tie_word_embeddings", "tie_embeddings", "false"},
              {"rms_norm_eps", "norm_eps", "1e-6"},
              {"initializer_range", "init_std", "0.02"},
              {"rope_theta", "rope_theta", "10000"},
              {"factor", "factor", NULL},
              {"low_freq_factor", "low", NULL},
              {"high_freq_factor", "high", NULL},
              {"original_max_position_embeddings", "original", NULL}};
enum { HEADS = 2, ROPE_THETA = 11, SCALING = 12, N_FIELDS = sizeof fields / sizeof *fields };

/* Fields that change what the model computes: cria computes this and nothing else. */
static const struct {
    const char *name, *value;
} fixed[] = {{"model_type", "\"llama\""},      {"hidden_act", "\"silu\""},
             {"attention_bias", "false"},      {"mlp_bias", "false"},
             {"partial_rotary_factor", "1.0"}, {"quantization_config", "null"}};
enum { MODEL_TYPE, N_FIXED = sizeof fixed / sizeof *fixed };

typedef struct {
    const char *name; /* of the file, for sentences */
    Json j;
    char *values[N_FIELDS]; /* as in the text; NULL: missing or null */
    char *rope_type;
    int64_t eos;   /* -1: none */
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
        if (strcmp(fields[i].name, name) == 0) return i;
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
                         fields[i].name, text);
        free(text);
    } else if (r->values[i] != NULL && strcmp(r->values[i], text) != 0) {
        st = status_fail(ERR_USER, "%s: %s is given twice, as %s and %s", r->name, fields[i].name,
                         r->values[i], text);
        free(text);
    } else {
        free(r->values[i]);
        r->values[i] = text;
    }
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
        int i = find_field(key, ROPE_THETA, N_FIELDS);
        if (i >= 0) {
            st = read_field(r, i);
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
        found |= text != NULL && strcmp(text, "LlamaForCausalLM") == 0;
        free(text);
    }
    if (found || r->j.error != NULL) return OK;
    return status_fail(
        ERR_USER, "%s: architectures has no LlamaForCausalLM, which is what cria trains", r->name);
}

/* A number, null, or a list, of which the first counts. */
static void read_eos(Reader *r) {
    char kind = json_peek(&r->j);
    r->eos = -1;
    if (kind == 'n') {
        json_skip(&r->j);
    } else if (kind != '[') {
        r->eos = json_int(&r->j);
    } else {
        json_array(&r->j);
        for (int i = 0; json_array_next(&r->j); i++) {
            int64_t id = json_int(&r->j);
            if (i == 0) r->eos = id;
        }
    }
}

static Status read_fixed(Reader *r, int i) {
    char *text = take_text(&r->j);
    Status st = OK;
    if (r->j.error == NULL && strcmp(text, fixed[i].value) != 0 && strcmp(text, "null") != 0)
        st = status_fail(ERR_USER, "%s: %s is %.60s, but cria computes models with %s only",
                         r->name, fixed[i].name, text, fixed[i].value);
    else if (i == MODEL_TYPE)
        r->is_llama = strcmp(text, fixed[i].value) == 0;
    free(text);
    return st;
}

/* One entry of config.json. Those that change nothing in training (use_cache) are passed over. */
static Status read_entry(Reader *r, const char *key) {
    int i = find_field(key, 0, SCALING);
    if (i >= 0) return read_field(r, i);
    for (i = 0; i < N_FIXED; i++)
        if (strcmp(key, fixed[i].name) == 0) return read_fixed(r, i);
    if (strcmp(key, "rope_scaling") == 0 || strcmp(key, "rope_parameters") == 0)
        return read_rope(r, key);
    if (strcmp(key, "architectures") == 0) return read_architectures(r);
    if (strcmp(key, "eos_token_id") == 0)
        read_eos(r);
    else
        json_skip(&r->j);
    return OK;
}

/* Is RoPE scaled? It is a mistake to say so half. */
static Status check_scaling(const Reader *r, bool *scaled) {
    const char *type = r->rope_type != NULL ? r->rope_type : "default";
    *scaled = strcmp(type, "llama3") == 0;
    if (!*scaled && strcmp(type, "default") != 0)
        return status_fail(ERR_USER, "%s: rope_type is '%.60s', cria knows default and llama3",
                           r->name, type);
    for (int i = SCALING; i < N_FIELDS; i++)
        if ((r->values[i] != NULL) != *scaled)
            return status_fail(ERR_USER, "%s: rope_type is %s, %s a field %s", r->name, type,
                               *scaled ? "so it needs" : "but there is", fields[i].name);
    return OK;
}

/* The same as text that config_parse reads, which checks every bound. */
static Status translate(const Reader *r, StrBuf *yaml) {
    bool scaled;
    CHECK(check_scaling(r, &scaled));
    strbuf_printf(yaml, "data: {train: " NO_DATA ", eod: %lld}\nmodel:\n", (long long)r->eos);
    for (int i = 0; i < (scaled ? N_FIELDS : SCALING); i++) {
        const char *value = r->values[i] != NULL ? r->values[i] : fields[i].otherwise;
        if (value != NULL && value[0] == '\0') value = r->values[HEADS];
        if (value == NULL)
            return status_fail(ERR_USER, "%s: it has no %s", r->name, fields[i].name);
        if (i == SCALING) strbuf_printf(yaml, "  rope_scaling:\n");
        strbuf_printf(yaml, "%s%s: %s\n", i < SCALING ? "  " : "    ", fields[i].key, value);
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

Status hf_config_parse(Config *out, const char *name, const char *text, int64_t len) {
    Reader r = {.name = name, .eos = -1};
    StrBuf yaml = {0};
    *out = (Config){0};
    json_start(&r.j, text, len);
    Status st = read_config(&r, &yaml);
    if (st == OK) {
        char *made = mem_printf("the configuration made of %s", name);
        st = config_parse(out, made, strbuf_text(&yaml), yaml.len, 0, NULL);
        free(made);
    }
    for (int i = 0; i < N_FIELDS; i++) free(r.values[i]);
    free(r.rope_type);
    strbuf_free(&yaml);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* As Python's repr: the shortest text that reads back to v, and never without a point or an
 * exponent, because transformers tells floats from integers. */
static void print_double(double v, const char *key, StrBuf *out) {
    char text[40];
    int digits = 0, exponent;
    do snprintf(text, sizeof text, "%.*e", digits, v);
    while (strtod(text, NULL) != v && ++digits < 17);
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16)
        snprintf(text, sizeof text, "%.*f", exponent < digits ? digits - exponent : 1, v);
    strbuf_printf(out, "\"%s\": %s", key, text);
}

static void print_id(int64_t id, const char *key, StrBuf *out) {
    if (id >= 0)
        strbuf_printf(out, "  \"%s\": %lld,\n", key, (long long)id);
    else
        strbuf_printf(out, "  \"%s\": null,\n", key);
}

/* Sorted by name, as transformers does. rope_theta and rope_scaling have the place that
 * transformers 4 knows and 5 still reads. Ids that are not known must be null, not left to
 * LlamaConfig's defaults. */
void hf_config_print(const Config *c, Dtype dtype, StrBuf *out) {
    const ModelConfig *m = &c->model;
    const char *type = dtype == DT_BF16 ? "bfloat16" : "float32";
    strbuf_printf(out, "{\n  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n"
                       "  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n");
    print_id(-1, "bos_token_id", out);
    strbuf_printf(out, "  \"dtype\": \"%s\",\n", type);
    print_id(c->data.eod, "eos_token_id", out);
    strbuf_printf(out,
                  "  \"head_dim\": %d,\n  \"hidden_act\": \"silu\",\n  \"hidden_size\": %d,\n  ",
                  m->head_dim, m->hidden);
    print_double(m->init_std, "initializer_range", out);
    strbuf_printf(out,
                  ",\n  \"intermediate_size\": %d,\n  \"max_position_embeddings\": %lld,\n"
                  "  \"mlp_bias\": false,\n  \"model_type\": \"llama\",\n"
                  "  \"num_attention_heads\": %d,\n  \"num_hidden_layers\": %d,\n"
                  "  \"num_key_value_heads\": %d,\n  \"pretraining_tp\": 1,\n  ",
                  m->ffn, (long long)m->seq_len, m->heads, m->layers, m->kv_heads);
    print_double(m->norm_eps, "rms_norm_eps", out);
    if (m->rope_scaling.factor != 1) {
        strbuf_printf(out, ",\n  \"rope_scaling\": {\n    ");
        print_double(m->rope_scaling.factor, "factor", out);
        strbuf_printf(out, ",\n    ");
        print_double(m->rope_scaling.high, "high_freq_factor", out);
        strbuf_printf(out, ",\n    ");
        print_double(m->rope_scaling.low, "low_freq_factor", out);
        strbuf_printf(out,
                      ",\n    \"original_max_position_embeddings\": %lld,\n"
                      "    \"rope_type\": \"llama3\"\n  },\n  ",
                      (long long)m->rope_scaling.original);
    } else {
        strbuf_printf(out, ",\n  \"rope_scaling\": null,\n  ");
    }
    print_double(m->rope_theta, "rope_theta", out);
    strbuf_printf(out,
                  ",\n  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\",\n"
                  "  \"use_cache\": true,\n  \"vocab_size\": %d\n}\n",
                  m->tie_embeddings ? "true" : "false", type, m->vocab);
}

void hf_generation_print(const Config *c, StrBuf *out) {
    strbuf_printf(out, "{\n  \"_from_model_config\": true,\n");
    if (c->data.eod >= 0) print_id(c->data.eod, "eos_token_id", out);
    out->len -= 2; /* the last entry has no comma */
    strbuf_printf(out, "\n}\n");
}

/* ---- the index ------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    const SafeEntry *x = a, *y = b;
    return strcmp(x->key, y->key);
}

/* A file of the directory itself. */
static bool is_file_name(const char *name) {
    size_t n = strlen(name), end = strlen(".safetensors");
    for (const char *c = name; *c != '\0'; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f || *c == '/') return false;
    return n > end && name[0] != '.' && strcmp(name + n - end, ".safetensors") == 0;
}

static Status read_places(HfIndex *index, Json *j, const char *name) {
    int64_t cap = index->n_places;
    char *key;
    for (json_object(j); json_object_next(j, &key);) {
        if (index->n_places == cap)
            index->places = mem_grow(index->places, cap = 2 * cap + 16, sizeof *index->places);
        SafeEntry *e = &index->places[index->n_places++];
        *e = (SafeEntry){.key = key, .value = json_string(j)};
        if (e->value != NULL && !is_file_name(e->value))
            return status_fail(ERR_USER,
                               "%s: '%.200s' is not the name of a safetensors file beside it", name,
                               e->value);
    }
    return OK;
}

static Status read_index(HfIndex *index, Json *j, const char *name) {
    bool found = false;
    Status st = OK;
    char *key;
    for (json_object(j); st == OK && json_object_next(j, &key); free(key)) {
        if (strcmp(key, "weight_map") != 0) {
            json_skip(j);
        } else {
            st = read_places(index, j, name);
            found = true;
        }
    }
    CHECK(st);
    json_end(j);
    if (j->error != NULL)
        return status_fail(ERR_USER, "%s: not an index of weights: %s at byte %lld", name, j->error,
                           (long long)j->pos);
    if (!found) return status_fail(ERR_USER, "%s: it has no weight_map", name);
    if (index->n_places > 1)
        qsort(index->places, (size_t)index->n_places, sizeof *index->places, by_key);
    for (int i = 1; i < index->n_places; i++)
        if (by_key(&index->places[i - 1], &index->places[i]) == 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' appears twice", name,
                               index->places[i].key);
    return OK;
}

Status hf_index_parse(HfIndex *index, const char *name, const char *text, int64_t len) {
    Json j;
    *index = (HfIndex){0};
    json_start(&j, text, len);
    Status st = read_index(index, &j, name);
    if (st != OK) hf_index_free(index);
    return st;
}

void hf_index_print(const HfIndex *index, int64_t n_weights, int64_t bytes, StrBuf *out) {
    strbuf_printf(out,
                  "{\n  \"metadata\": {\n    \"total_parameters\": %lld,\n"
                  "    \"total_size\": %lld\n  },\n  \"weight_map\": {",
                  (long long)n_weights, (long long)bytes);
    for (int i = 0; i < index->n_places; i++) {
        strbuf_printf(out, "%s\n    ", i > 0 ? "," : "");
        strbuf_json_string(out, index->places[i].key);
        strbuf_printf(out, ": ");
        strbuf_json_string(out, index->places[i].value);
    }
    strbuf_printf(out, "\n  }\n}\n");
}

void hf_index_free(HfIndex *index) {
    for (int i = 0; i < index->n_places; i++) {
        free(index->places[i].key);
        free(index->places[i].value);
    }
    free(index->places);
    *index = (HfIndex){0};
}
